"""Times the plain PyTorch loop until its validation reaches a given Dice."""

import itertools
import json
import pathlib
import sys
from typing import Any

from benchmarks.commands import seconds_until
from benchmarks.peers.startup import SCRIPT
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one run of the script with a new seed.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        mode: mode of the network.
    """
    seeds = itertools.count()

    def once() -> dict[str, float]:
        log = folder / f"peer_{mode}" / "log.jsonl"
        log.parent.mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-m", SCRIPT, f"--data={folder / 'given.npz'}"),
            *(f"--log={log}", f"--mode={mode}"),
            *(f"--every={work['every']}", f"--seed={next(seeds)}"),
        ]
        steps = []

        def reached(line: str) -> bool:
            row = json.loads(line)
            steps.append(row["step"])
            return row.get("dice", 0.0) >= work["dice"]

        seconds = seconds_until(command, reached, log=log)
        return {"seconds": seconds, "steps": steps[-1]}

    def repeat(calls: int) -> dict[str, float]:
        runs = [once() for _ in range(calls)]
        return {key: sum(run[key] for run in runs) / calls for key in runs[0]}

    packages = ("torch", "numpy", "batchgeneratorsv2")
    return Task(run=repeat, facts={}, outputs=dict, packages=packages)
