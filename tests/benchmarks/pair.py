"""A pair that needs no packages: each side sums numbers in its own process."""

import pathlib
import time
from typing import Any

import numpy as np

from benchmarks.worker import Task


def prepare(
    *, folder: pathlib.Path, numbers: list[float], mode: str = "ours", **work: Any
) -> Task:
    """Sum numbers; ``work`` can make a mode slow, wrong or unable to work.

    Where it gives the ``seconds`` of a mode, they replace the measured time.

    The first to come hands the numbers over, as ours do with weights.
    """
    if mode == work.get("broken"):
        raise RuntimeError("no such thing here")
    given = folder / "given.npz"
    if mode == "ours":
        np.savez(given, numbers=np.array(numbers))
    with np.load(given) as file:
        read = file["numbers"]

    def repeat(calls: int) -> dict[str, float]:
        with (folder / "turns.txt").open("a") as log:
            log.write(f"{mode} {calls}\n")
        for _ in range(calls):
            time.sleep(0.02 if mode == work.get("slow") else 0.001)
        measured = {"seconds": work["seconds"][mode]} if "seconds" in work else {}
        return {"peak_mib": 20.0 if mode == "ours" else 50.0, **measured}

    print("libraries print what they like")
    return Task(
        run=repeat,
        facts={"count": len(read) + (mode == work.get("longer"))},
        outputs=lambda: {"sum": read.sum() + (0.5 if mode == work.get("wrong") else 0)},
        packages=("numpy",),
    )
