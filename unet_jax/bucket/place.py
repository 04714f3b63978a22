"""A workdir by its name: a folder as it is, or the copy of one in a bucket."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from unet_jax.bucket.lease import NAME as LEASE
from unet_jax.bucket.lease import BucketLease
from unet_jax.bucket.mirror import Mirror
from unet_jax.bucket.store import SCHEME, BucketError, Store
from unet_jax.errors import InputError, RunError
from unet_jax.hosts import agree
from unet_jax.runtime.shown_path import shown, shown_as
from unet_jax.runtime.stop import Stop

PREFIX = "unet_jax_bucket_copy-"
"""Of names that nobody else gives: what a kill left under them is removed."""

_YOUNG_SECONDS = 60.0
"""Age of a temporary folder whose process may not have locked it yet."""

_QUICK_RETRIES = 3
"""At the start, about ten seconds: what is wrong then is mostly a name. So has the
lease, which is renewed again soon."""


class Place(NamedTuple):
    """Where a command works.

    Attributes:
        path: a folder of this machine.
        bucket: what it is a copy of; None for a folder that is itself the workdir.
    """

    path: pathlib.Path
    bucket: Mirror | None


@contextlib.contextmanager
def opened(name: str, *, stop: Stop, trains: bool = False) -> Iterator[Place]:
    """Give a workdir as a folder, and bring what is written there where it belongs.

    Args:
        name: a path, or ``gs://bucket/folder``.
        stop: ends the process at once, where it has to.
        trains: whether checkpoints are written: then no other run may be at work.

    Raises:
        InputError: the bucket cannot be used, or another run is at work there.
        RunError: it cannot be written at the end.
    """
    is_bucket = name.startswith(SCHEME)
    agree.check_equal("--workdir", name if is_bucket else "a path")
    if not is_bucket:
        yield Place(pathlib.Path(name), None)
        return
    agree.keep_own_folders()
    with contextlib.ExitStack() as stack:
        store = agree.on_all(lambda: _store(name))
        lease = stack.enter_context(_lease(name, stop)) if trains else None
        path = stack.enter_context(_temporary_folder(stop))
        known = LEASE if trains else "config.json"
        mirror = Mirror(store, path, lease=lease, known=known)
        digest = agree.on_all(mirror.fetch)
        agree.check_equal(f"--workdir {name}: its objects", digest)
        stack.enter_context(_named(path, name))
        with _sending(mirror):
            yield Place(path, mirror)


@contextlib.contextmanager
def copy_of(name: str) -> Iterator[pathlib.Path]:
    """Give a folder to read: itself, or a copy of one in a bucket.

    Args:
        name: a path, or ``gs://bucket/folder``.

    Raises:
        InputError: the bucket cannot be read.
    """
    if not name.startswith(SCHEME):
        yield pathlib.Path(name)
        return
    with _temporary_folder(Stop()) as path, _named(path, name):
        agree.on_all(lambda: Mirror(_store(name), path).fetch())
        yield path


def _store(name: str) -> Store:
    """Name a folder of a bucket, and see that it answers."""
    with _refused(name):
        if "/" not in name.removeprefix(SCHEME).strip("/"):
            raise BucketError(f"expected {SCHEME}BUCKET/FOLDER")
        Store(name, retries=_QUICK_RETRIES).read("config.json")
        return Store(name)


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    """Say of a bucket that cannot be used which flag named it."""
    try:
        yield
    except BucketError as error:
        raise InputError(f"--workdir {name}: {error}") from None


@contextlib.contextmanager
def _lease(name: str, stop: Stop) -> Iterator[BucketLease | None]:
    """Take the lease in the first process, for all of them."""

    def take() -> BucketLease:
        with _refused(name):
            return BucketLease(Store(name, retries=_QUICK_RETRIES))

    lease = agree.on_first(take)
    if lease is None:
        yield None
        return
    stop.on_exit(lease.release)
    with lease:
        yield lease


@contextlib.contextmanager
def _temporary_folder(stop: Stop) -> Iterator[pathlib.Path]:
    """Make a folder that is gone at the end.

    It is locked: what cleans up temporary folders by their age leaves it alone, and so
    does the next start here, which removes those that a kill left.
    """
    for other in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _locked(other):
            if time.time() - other.stat().st_mtime > _YOUNG_SECONDS:
                shutil.rmtree(other)
    path = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
    stop.on_exit(lambda: shutil.rmtree(path, ignore_errors=True))
    try:
        with _locked(path):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Lock a folder; OSError where another process has it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _sending(mirror: Mirror) -> Iterator[None]:
    """Send what a command wrote, also where it stops or fails."""
    try:
        yield
    except InputError:
        raise  # nothing was begun
    except Exception:
        with contextlib.suppress(RunError):
            if not mirror.is_cut_off:
                mirror.send()
        raise
    mirror.send()


@contextlib.contextmanager
def _named(path: pathlib.Path, name: str) -> Iterator[None]:
    """Let messages and errors name the bucket and not the copy."""
    with shown_as(path, name):
        try:
            yield
        except InputError as error:
            error.args = (shown(error),)
            error.details = tuple(map(shown, error.details))
            raise
