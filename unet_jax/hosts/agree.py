"""Exchanges between the processes of a run, outside of a step.

Every process must make the same calls in the same order. A single process returns at
once.
"""

import json
import pathlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np

from unet_jax.errors import InputError
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.watchdog import Watchdog

T = TypeVar("T")

_COMPILE_SECONDS = 3600.0
"""Time to wait for a process that compiles what this one found in its cache."""

_seconds = 600.0
_own_folders = False


def be_patient(seconds: float) -> None:
    """Set the seconds after which others count as lost in an exchange; 0 for none."""
    global _seconds
    _seconds = seconds


def keep_own_folders() -> None:
    """Declare that each process has a workdir of its own, a copy from a bucket."""
    global _own_folders
    _own_folders = True


def folders_are_own() -> bool:
    """Return whether several processes each have a workdir of their own."""
    return _own_folders and jax.process_count() > 1


def _patience(least: float) -> Watchdog:
    """Make the watchdog of one exchange."""
    seconds = max(_seconds, least) if _seconds else 0.0
    return Watchdog(seconds, last_good=lambda: "the checkpoints are as they were")


def is_first() -> bool:
    """Return whether this process writes the logs, records and pictures."""
    return jax.process_index() == 0


def indices_here(count: int) -> range:
    """Return the indices of items that this process handles, dealt out round robin."""
    return range(jax.process_index(), count, jax.process_count())


def gather(mine: bytes, *, patience_seconds: float = 0.0) -> list[bytes]:
    """Collect one value from every process, in their order.

    ``patience_seconds`` is the least time to wait for the others; that of `be_patient`
    counts if it is longer.
    """
    if jax.process_count() == 1:
        return [mine]
    from jax.experimental import multihost_utils

    def every(array: np.ndarray) -> np.ndarray:
        return np.asarray(multihost_utils.process_allgather(array))

    what = "the answer of the other processes"
    with _patience(patience_seconds) as watchdog, watchdog.watching(what):
        sizes = every(np.array([len(mine)], np.int32)).reshape(-1)
        padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
        padded[: len(mine)] = np.frombuffer(mine, np.uint8)
        rows = every(padded).reshape(len(sizes), -1)
    return [
        row[:size].tobytes() for row, size in zip(rows, sizes.tolist(), strict=True)
    ]


def wait_for_compiles() -> None:
    """Wait until every process has compiled its next program."""
    gather(b"", patience_seconds=_COMPILE_SECONDS)


def gather_items(mine: Sequence[Any]) -> list[Any]:
    """Collect the results of items that the processes dealt out among themselves.

    Entry k of the JSON-able results belongs to ``indices_here(count)[k]``. All results
    come in the order of the items, the same in every process.
    """
    parts = [json.loads(text) for text in gather(json.dumps(list(mine)).encode())]
    if len(parts) == 1:
        return list(mine)
    longest = max(len(entries) for entries in parts)
    return [
        entries[place]
        for place in range(longest)
        for entries in parts
        if place < len(entries)
    ]


def on_first(function: Callable[[], T]) -> T | None:
    """Call a function in the first process; the others wait for it, and return None.

    The result need not be anything that can be sent.

    Raises:
        InputError: the function raised it; every process raises it.
    """
    if is_first():
        return on_all(function)
    return on_all(lambda: None)


def on_each_folder(function: Callable[[], None]) -> None:
    """Call a function once per workdir: once if it is shared, else in each process.

    Raises:
        InputError: the function raised it in some process; every process raises it.
    """
    (on_all if folders_are_own() else on_first)(function)


def on_all(function: Callable[[], T]) -> T:
    """Call a function in every process, and go on when all have returned.

    Raises:
        InputError: the function raised it in some process; every process raises it.
    """
    report, result, failure = None, None, None
    try:
        result = function()
    except InputError as error:
        failure, report = error, [str(error), list(error.details)]
    reports = [json.loads(one) for one in gather(json.dumps(report).encode())]
    if failure is not None:
        raise failure
    for refusal in filter(None, reports):
        raise InputError(*refusal)
    return cast(T, result)


def check_equal(what: str, mine: str) -> None:
    """Refuse processes whose values differ from that of the first.

    Raises:
        InputError: the values differ; every process raises it.
    """
    found = [one.decode() for one in gather(mine.encode())]
    for number, other in enumerate(found):
        if other != found[0]:
            raise InputError(
                f"{what}: process 0 has {found[0]!r}, process {number} has {other!r}, "
                "expected the same in all; start all of them with the same command"
            )


def check_shared(workdir: pathlib.Path, *, patience_seconds: float = 30.0) -> None:
    """Check that the workdir is the same folder in all processes.

    The first process writes a token, and the others read it; a slow file system may
    take ``patience_seconds`` to show it. Nothing is checked where each process has a
    workdir of its own.

    Raises:
        InputError: some process does not see the folder; every process raises it.
    """
    if jax.process_count() == 1 or folders_are_own():
        return
    path = workdir / ".token"
    mine = secrets.token_hex(8) if is_first() else ""
    if is_first():
        with atomic_path(path) as temporary:
            temporary.write_text(mine)
    token = gather(mine.encode())[0].decode()
    end = time.monotonic() + patience_seconds
    while (seen := _read(path)) != token and time.monotonic() < end:
        time.sleep(0.1)
    answers = [
        answer == b"yes" for answer in gather(b"yes" if seen == token else b"no")
    ]
    if is_first():
        path.unlink(missing_ok=True)
    blind = [number for number, sees in enumerate(answers) if not sees]
    if blind:
        raise InputError(
            f"--workdir {workdir}: process {blind[0]} does not see the folder of "
            "process 0; several processes need one workdir on a file system that all "
            "of them share"
        )


def _read(path: pathlib.Path) -> str | None:
    """Read a text file; None if there is none."""
    try:
        return path.read_text()
    except OSError:
        return None
