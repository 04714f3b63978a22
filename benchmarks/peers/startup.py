"""Times the start of a plain PyTorch script."""

import json
import pathlib
import sys
from typing import Any

from benchmarks.commands import seconds_to_end, seconds_until
from benchmarks.worker import Task

SCRIPT = "benchmarks.peers.brain_script"


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one start of a process.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        mode: mode of the script; eager starts fastest.
    """

    def once() -> float:
        match work["what"]:
            case "import":
                return seconds_to_end([sys.executable, "-c", "import torch"])
            case "help":
                return seconds_to_end([sys.executable, "-m", SCRIPT, "--help"])
        log = folder / "peer" / "log.jsonl"
        log.parent.mkdir(exist_ok=True)
        arguments = [f"--data={folder / 'given.npz'}", f"--log={log}", f"--mode={mode}"]
        command = [sys.executable, "-m", SCRIPT, *arguments]
        return seconds_until(command, lambda line: "loss" in json.loads(line), log=log)

    return Task(
        run=lambda calls: {"seconds": sum(once() for _ in range(calls)) / calls},
        facts={},
        outputs=dict,
        packages=("torch", "numpy"),
    )
