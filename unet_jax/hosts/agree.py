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

from unet_jax.atomic import atomic_path
from unet_jax.errors import InputError
from unet_jax.guard.watchdog import Watchdog

_COMPILE_SECONDS = 3600.0
"""Patience with another process that compiles while this one had it in its cache."""

_seconds = 600.0


def be_patient(seconds: float) -> None:
    """Say how long the others may take before they count as lost.

    Args:
        seconds: for each exchange; 0 for ever.
    """
    global _seconds
    _seconds = seconds


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
    failure: InputError | None = None
    if is_first():
        try:
            function()
        except InputError as error:
            failure = error
    if jax.process_count() == 1:
        if failure is not None:
            raise failure
        return
    report = json.dumps([str(failure), list(failure.details)] if failure else None)
    message = json.loads(gather(report.encode())[0])
    if failure is not None:
        raise failure
    if message is not None:
        raise InputError(message[0], message[1])


def check_shared(workdir: pathlib.Path, *, patience_seconds: float = 30.0) -> None:
    """See that all processes have the same folder under that name.

    The first one writes a token, and the others read it.

    Args:
        workdir: folder of the run; it exists.
        patience_seconds: that a slow file system may take to show the file.

    Raises:
        InputError: some process does not see it; every process raises it.
    """
    if jax.process_count() == 1:
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
