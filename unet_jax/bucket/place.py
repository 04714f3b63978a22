"""Opens a workdir by its name: a folder itself, or a local copy of one in a bucket."""

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
from unet_jax.runtime.home import expanded
from unet_jax.runtime.shown_path import shown, shown_as
from unet_jax.runtime.stop import Stop

PREFIX = "unet_jax_bucket_copy-"
"""Prefix of our temporary folders; leftovers of killed runs are deleted."""

_YOUNG_SECONDS = 60.0
"""Age up to which a temporary folder may belong to a process that has not locked it."""

_QUICK_RETRIES = 3
"""Retries at the start, about ten seconds: an error there is mostly a wrong name. The
lease has them too, since it is renewed again soon."""


class Place(NamedTuple):
    """The folder that a command works in, and the bucket that it is a copy of."""

    path: pathlib.Path
    bucket: Mirror | None


@contextlib.contextmanager
def opened(name: str, *, stop: Stop, trains: bool = False) -> Iterator[Place]:
    """Open a workdir as a folder, and send what is written there to its bucket.

    Args:
        name: path, or ``gs://bucket/folder``.
        stop: stop of the run; it deletes the copy if it ends the process at once.
        trains: take the lease of the bucket, since checkpoints are written.

    Raises:
        InputError: the bucket cannot be used, or another run works there.
        RunError: the bucket cannot be written at the end.
    """
    is_bucket = name.startswith(SCHEME)
    agree.check_equal("--workdir", name if is_bucket else "a path")
    if not is_bucket:
        yield Place(pathlib.Path(expanded(name)), None)
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
    """Open a folder to read: itself, or a copy of a folder in a bucket."""
    if not name.startswith(SCHEME):
        yield pathlib.Path(expanded(name))
        return
    with _temporary_folder(Stop()) as path, _named(path, name):
        agree.on_all(lambda: Mirror(_store(name), path).fetch())
        yield path


def _store(name: str) -> Store:
    """Open a folder of a bucket, and check that it answers."""
    with _refused(name):
        if "/" not in name.removeprefix(SCHEME).strip("/"):
            raise BucketError(f"expected {SCHEME}BUCKET/FOLDER")
        Store(name, retries=_QUICK_RETRIES).read("config.json")
        return Store(name)


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    """Name the flag in the error of a bucket that cannot be used."""
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
    """Make a folder that is deleted at the end.

    It is locked, so that a cleaner of old temporary folders leaves it alone, and the
    next start here too, which deletes the leftovers of killed runs.
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
    """Lock a folder; OSError where another process holds the lock."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _sending(mirror: Mirror) -> Iterator[None]:
    """Send what a command wrote, also if it stops or fails."""
    try:
        yield
    except InputError:
        raise  # nothing was started
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
