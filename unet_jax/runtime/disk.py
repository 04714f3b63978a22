"""Disks that fill up, become read-only or vanish under a run, in one line."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

from unet_jax.errors import RunError


@contextlib.contextmanager
def disk_problems(
    workdir: pathlib.Path, *, last_good: Callable[[], str]
) -> Iterator[None]:
    """Turn what a disk refuses into the one line of a run that cannot go on.

    Args:
        workdir: folder of the run.
        last_good: says in words which checkpoint is whole.

    Raises:
        RunError: a file could not be read or written.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if error.filename is not None else workdir
        reason = error.strerror or str(error) or type(error).__name__
        raise RunError(
            f"{name}: {reason}; {last_good()}; fix the disk, then start the same "
            "command again"
        ) from error
