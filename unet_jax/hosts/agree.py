"""What processes tell each other outside of a step. With one process it costs nothing.

Every process has to make the same calls in the same order.
"""

import json
import pathlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from unet_jax.errors import InputError
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.watchdog import Watchdog

_COMPILE_SECONDS = 3600.0
"""Patience with another process that compiles while this one had it in its cache."""

_seconds = 600.0
_own_folders = False


def be_patient(seconds: float) -> None:
    """Say how long the others may take before they count as lost.

    Args:
        seconds: for each exchange; 0 for ever.
    """
    global _seconds
    _seconds = seconds


def keep_own_folders() -> None:
    """Say that the workdir is a copy of this process: no other one sees it."""
    global _own_folders
    _own_folders = True


def folders_are_own() -> bool:
    """Whether there are several processes, each with a workdir of its own."""
    return _own_folders and jax.process_count() > 1


def _patience(least: float) -> Watchdog:
    """A watchdog for one exchange."""
    seconds = max(_seconds, least) if _seconds else 0.0
    return Watchdog(seconds, last_good=lambda: "the checkpoints are as they were")


def is_first() -> bool:
    """Whether this is the process that writes logs, records and pictures."""
    return jax.process_index() == 0


def share(count: int) -> range:
    """Return which of so many things this process does: every n-th, from its place.

    Args:
        count: of all things.
    """
    return range(jax.process_index(), count, jax.process_count())


def gather(mine: bytes, *, patience_seconds: float = 0.0) -> list[bytes]:
    """Give every process what each of them has.

    Args:
        mine: of this process.
        patience_seconds: with the others, where that of `be_patient` may be too short.

    Returns:
        One entry a process, in their order.
    """
    if jax.process_count() == 1:
        return [mine]
    from jax.experimental import multihost_utils

    def every(array: np.ndarray) -> np.ndarray:
        return np.asarray(multihost_utils.process_allgather(array))

    what = "what other processes have to say"
    with _patience(patience_seconds) as watchdog, watchdog.watching(what):
        sizes = every(np.array([len(mine)], np.int32)).reshape(-1)
        padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
        padded[: len(mine)] = np.frombuffer(mine, np.uint8)
        rows = every(padded).reshape(len(sizes), -1)
    return [
        row[:size].tobytes() for row, size in zip(rows, sizes.tolist(), strict=True)
    ]


def wait_for_compiles() -> None:
    """Go on when every process has compiled what comes next."""
    gather(b"", patience_seconds=_COMPILE_SECONDS)


def gather_shares(mine: Sequence[Any]) -> list[Any]:
    """Put together what the processes made of their shares, in the order of all.

    Args:
        mine: JSON-able; entry k belongs to ``share(count)[k]``.

    Returns:
        All entries, the same in every process.
    """
    shares = [json.loads(text) for text in gather(json.dumps(list(mine)).encode())]
    if len(shares) == 1:
        return list(mine)
    longest = max(len(entries) for entries in shares)
    return [
        entries[place]
        for place in range(longest)
        for entries in shares
        if place < len(entries)
    ]


def on_first(function: Callable[[], Any]) -> None:
    """Let the first process do something that the others wait for.

    Args:
        function: what to do.

    Raises:
        InputError: the function raised it; every process does.
    """
    on_all(function if is_first() else lambda: None)


def on_each_folder(function: Callable[[], Any]) -> None:
    """Do something once in each workdir: in the one that all see, or in every copy.

    Args:
        function: what to do.

    Raises:
        InputError: the function raised it in some process; every process does.
    """
    (on_all if folders_are_own() else on_first)(function)


def on_all(function: Callable[[], Any]) -> None:
    """Let every process do something, and go on when all have done it.

    Args:
        function: what to do.

    Raises:
        InputError: the function raised it in some process; every process does.
    """
    failure: InputError | None = None
    try:
        function()
    except InputError as error:
        failure = error
    report = json.dumps([str(failure), list(failure.details)] if failure else None)
    reports = [json.loads(one) for one in gather(report.encode())]
    if failure is not None:
        raise failure
    for refusal in filter(None, reports):
        raise InputError(*refusal)


def check_equal(what: str, mine: str) -> None:
    """Refuse processes of which one found something else than the first.

    Args:
        what: its name for the message.
        mine: what this process found.

    Raises:
        InputError: they differ; every process raises it.
    """
    found = [one.decode() for one in gather(mine.encode())]
    for number, other in enumerate(found):
        if other != found[0]:
            raise InputError(
                f"{what}: process 0 has {found[0]!r}, process {number} has {other!r}, "
                "expected the same in all; start all of them with the same command"
            )


def check_shared(workdir: pathlib.Path, *, patience_seconds: float = 30.0) -> None:
    """See that all processes have the same folder under that name.

    The first one writes a token, and the others read it. Folders that are each
    process's own are not looked at.

    Args:
        workdir: folder of the run; it exists.
        patience_seconds: that a slow file system may take to show the file.

    Raises:
        InputError: some process does not see it; every process raises it.
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
    """The text of a file, None where there is none."""
    try:
        return path.read_text()
    except OSError:
        return None
