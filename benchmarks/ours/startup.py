"""Times the start of the command."""

import itertools
import json
import pathlib
import sys
from typing import Any

from benchmarks.commands import seconds_to_end, seconds_until
from benchmarks.ours import brain, nets
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one start of a process.

    Args:
        folder: shared with the peer.
        work: ``what``: "import", "help", "first_step_cold" (nothing is compiled yet)
            or "first_step_warm".
    """
    what = work["what"]
    if what.startswith("first_step"):
        brain.hand_over(folder, brain.opened(folder))
    numbers = itertools.count()

    def once() -> float:
        match what:
            case "import":
                return seconds_to_end(
                    [sys.executable, "-c", "import unet_jax.commands.train"]
                )
            case "help":
                return seconds_to_end([sys.executable, "-m", "unet_jax.main", "--help"])
        number = next(numbers)
        cache = folder / ("cache" if what.endswith("warm") else f"cache_{number}")
        return _first_step(folder / f"run_{number}", cache)

    if what.endswith("warm"):
        once()
    return Task(
        run=lambda calls: {"seconds": sum(once() for _ in range(calls)) / calls},
        facts={},
        outputs=dict,
        packages=nets.PACKAGES,
    )


def _first_step(workdir: pathlib.Path, cache: pathlib.Path) -> float:
    """Seconds from the command to the loss of its first step."""
    command = [
        *(sys.executable, "-m", "unet_jax.main", "--config=configs/brain_slab.py"),
        f"--workdir={workdir}",
        "--config.log.every_steps=1",
        f"--config.compilation_cache_dir={cache}",
    ]
    log = workdir / "metrics.jsonl"
    workdir.mkdir()
    return seconds_until(command, lambda line: json.loads(line)["step"] >= 1, log=log)
