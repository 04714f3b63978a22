"""Times the main command until its validation reaches a given Dice."""

import itertools
import json
import pathlib
import sys
from typing import Any

from benchmarks.commands import seconds_until
from benchmarks.ours import brain, nets
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one run of the command with a new seed.

    Args:
        folder: shared with the peer.
        work: ``dice`` that is to be reached, and steps between validations (``every``).
    """
    brain.hand_over(folder, brain.opened(folder))
    seeds = itertools.count()

    def once() -> dict[str, float]:
        workdir = folder / f"run_{(seed := next(seeds))}"
        command = [
            *(sys.executable, "-m", "unet_jax.main", "--config=configs/brain_slab.py"),
            f"--workdir={workdir}",
            f"--config.seed={seed}",
            f"--config.eval.every_steps={work['every']}",
        ]
        steps = []

        def reached(line: str) -> bool:
            row = json.loads(line)
            if row["split"] == "val":
                steps.append(row["step"])
            return row["split"] == "val" and row["dice"] >= work["dice"]

        workdir.mkdir()
        seconds = seconds_until(command, reached, log=workdir / "metrics.jsonl")
        return {"seconds": seconds, "steps": steps[-1]}

    def repeat(calls: int) -> dict[str, float]:
        runs = [once() for _ in range(calls)]
        return {key: sum(run[key] for run in runs) / calls for key in runs[0]}

    return Task(run=repeat, facts={}, outputs=dict, packages=nets.PACKAGES)
