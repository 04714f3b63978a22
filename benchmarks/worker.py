"""Runs one side of a pair as a process that answers requests, one JSON object a line.

It prepares the work, writes its results for the check, and then repeats the work at
each request. It imports no packages of either side itself, because both sides run it.
"""

import dataclasses
import importlib
import json
import math
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, TextIO

import numpy as np


@dataclasses.dataclass(kw_only=True)
class Task:
    """Work that can be repeated.

    Attributes:
        run: function that does the work a number of times and returns when all is
            done. It may return further measures; a measure ``seconds`` replaces the
            measured time.
        facts: facts that must be equal on both sides, such as parameters and shapes.
        outputs: function that returns the results of the work, which must agree on both
            sides; it is called once, before the timing.
        packages: packages whose versions belong to the result.
    """

    run: Callable[[int], Mapping[str, float] | None]
    facts: dict[str, Any]
    outputs: Callable[[], dict[str, np.ndarray]]
    packages: tuple[str, ...]


def repeated(once: Callable[[], object]) -> Callable[[int], None]:
    """Make the ``run`` of a task from a function that does the work once.

    Args:
        once: function that returns when the work is done.
    """

    def run(calls: int) -> None:
        for _ in range(calls):
            once()

    return run


class Server:
    """Answers requests about one task."""

    def __init__(self) -> None:
        """Start without a task."""
        self._task: Task | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Args:
            request: ``do`` is "prepare" (with ``module``, ``options``, ``folder``,
                ``cores``), "check" (``file``), "warm" (``least_seconds``) or "time"
                (``calls``).

        Returns:
            The answer, ready for JSON.

        Raises:
            ValueError: ``do`` is unknown.
        """
        match request["do"]:
            case "prepare":
                return self._prepare(request)
            case "check":
                np.savez(request["file"], **self.task.outputs())
                return {}
            case "warm":
                return {"calls": self._calls(request["least_seconds"])}
            case "time":
                return self._time(request["calls"])
        raise ValueError(
            f"do: found {request['do']!r}, expected 'prepare', 'check', 'warm', 'time'"
        )

    @property
    def task(self) -> Task:
        """The prepared task."""
        if self._task is None:
            raise ValueError("found no task; expected a request to prepare one first")
        return self._task

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import the module of this side and let it make the task."""
        if request["cores"]:
            os.sched_setaffinity(0, request["cores"])
        module = importlib.import_module(request["module"])
        self._task = module.prepare(
            folder=pathlib.Path(request["folder"]), **request["options"]
        )
        versions = {name: metadata.version(name) for name in self.task.packages}
        version = ".".join(map(str, sys.version_info[:3]))
        return {"facts": self.task.facts, "versions": {"python": version, **versions}}

    def _calls(self, least_seconds: float) -> int:
        """Warm up, then find how many calls last long enough for the timing."""
        self.task.run(1)
        seconds = self._time(1)["seconds"]
        return max(1, math.ceil(least_seconds / seconds))

    def _time(self, calls: int) -> dict[str, float]:
        """Seconds of a call, and further measures of the task."""
        began = time.perf_counter()
        measured = dict(self.task.run(calls) or {})
        elapsed = time.perf_counter() - began
        return {"seconds": elapsed / calls, **measured}


def serve(requests: Iterable[str], answers: TextIO) -> None:
    """Answer every line until there are no more.

    Args:
        requests: lines of JSON.
        answers: file for one line each; ``{"error": traceback}`` for a failure.
    """
    server = Server()
    for line in requests:
        try:
            answer = server.answer(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve on the standard streams; output of libraries goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    # Import by the name that the modules of both sides use, not as __main__.
    from benchmarks import worker

    worker.main()
