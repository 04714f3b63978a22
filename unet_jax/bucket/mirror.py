"""Keeps a local folder and a folder of a bucket equal: fetches first, then sends."""

import hashlib
import pathlib
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from unet_jax.bucket.lease import NAME as LEASE
from unet_jax.bucket.lease import BucketLease
from unet_jax.bucket.store import BucketError, Store
from unet_jax.errors import InputError, RunError
from unet_jax.hosts import agree
from unet_jax.training.manifest import SUMS_FILE
from unet_jax.training.resume import last_good_of

_CHECKPOINT = re.compile(r"((?:.*/)?(?:checkpoints|interrupted)/\d+)/")
_ONLY_SENT = frozenset({"predictions", "figures", "profile"})
"""Folders that nothing reads; every process writes a part of the first two."""

_ONLY_HERE = frozenset({"prepared", "lease.json"})
_UNFINISHED = re.compile(r"/\.|\.orbax-checkpoint-tmp")

State: TypeAlias = tuple[int, int]
"""Size and modification time of a file."""


class Mirror:
    """A local copy of a folder of a bucket, whose changes are sent back.

    Logs are sent first, then the files of a new checkpoint, and its checksums last.
    Only then are deleted files deleted in the bucket, checksums first. So the bucket
    holds complete checkpoints, and at most one without checksums, which is not fetched.

    Args:
        path: local folder. While it holds a checkpoint, checkpoints that it lacks are
            deleted in the bucket.
        lease: lease of the run; None for a process that writes no checkpoints there.
        known: name of an object that exists if there is a run.
    """

    def __init__(
        self,
        store: Store,
        path: pathlib.Path,
        *,
        lease: BucketLease | None = None,
        known: str = "config.json",
    ) -> None:
        """Fetch nothing yet."""
        self.path = path
        self.is_cut_off = False
        self._store, self._lease, self._known = store, lease, known
        self._there: set[str] = set()
        self._sent: dict[str, State] = {}
        self._last_good = last_good_of([])

    def fetch(self) -> str:
        """Fetch the objects of the bucket, except those that nothing reads.

        Returns:
            Checksum of names and generations: equal where the same was fetched.

        Raises:
            InputError: the bucket cannot be read, or the folder cannot be written.
        """
        try:
            return self._fetch()
        except BucketError as error:
            raise InputError(f"--workdir {self._store.url}: {error}") from None
        except OSError as error:
            raise InputError(
                f"{self.path}: the copy of {self._store.url} cannot be written "
                f"({error.strerror}); set TMPDIR to a folder with free space"
            ) from None

    def saved(self) -> None:
        """Send a checkpoint that is on disk, or raise RunError; others wait."""
        self.send()
        self._last_good = agree.gather(self._last_good.encode())[0].decode()

    def distribute(self) -> None:
        """Copy the files of the first process to every process."""
        self.saved()
        agree.on_all(lambda: agree.is_first() or self.fetch())

    def send(self) -> None:
        """Send new files, or raise RunError; the first process sends checkpoints."""
        if self._lease is not None:
            self._lease.check()
        try:
            self._send(self._to_send())
        except BucketError as error:
            self.is_cut_off = True
            raise RunError(
                f"{self._store.url}: cannot be written: {error}, then start the same "
                f"command again; {self._last_good}"
            ) from None
        except OSError as error:
            raise RunError(
                f"{error.filename or self.path}: {error.strerror}, in the copy of "
                f"{self._store.url}; start the same command again; {self._last_good}"
            ) from None

    def last_good(self) -> str:
        """Return a phrase that names the checkpoint which a restart resumes from."""
        return self._last_good

    def _to_send(self) -> dict[str, State]:
        """Return the files that this process has to keep in the bucket."""
        files = _files(self.path)
        whole = _whole(files)
        mine = frozenset() if agree.is_first() else _ONLY_SENT
        return {
            name: state
            for name, state in files.items()
            if not _ONLY_HERE & set(name.split("/"))
            and (not mine or mine & set(name.split("/")))
            and (_checkpoint_of(name) or name) in whole | {name}
        }

    def _fetch(self) -> str:
        """List the objects, and read them."""
        self._there = set(self._store.names(known=self._known))
        whole = _whole(self._there)
        wanted = [name for name in sorted(self._there) if self._is_wanted(name, whole)]
        digest = hashlib.sha256()
        for name, found in self._store.read_all(wanted):
            digest.update(name.encode() + found.generation)
            if found.content is None:  # another run has just deleted it
                whole.discard(_checkpoint_of(name) or "")
                continue
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found.content)
            self._sent[name] = _state(path)
        self._drop_all_checkpoints_but(whole)
        self._note_last_good()
        return digest.hexdigest()

    def _is_wanted(self, name: str, whole: set[str]) -> bool:
        """Return whether an object is fetched."""
        parts = name.split("/")
        if name == LEASE or not all(parts) or ".." in parts:
            return False
        if _ONLY_SENT & set(parts) or parts[-1].startswith("events.out."):
            return False
        checkpoint = _checkpoint_of(name)
        if checkpoint is None:
            return True
        return checkpoint in whole and not (self.path / name).exists()

    def _drop_all_checkpoints_but(self, whole: set[str]) -> None:
        """Delete local checkpoints that the bucket does not hold."""
        here = {_checkpoint_of(name) for name in _files(self.path)}
        for checkpoint in here - whole - {None}:
            shutil.rmtree(self.path / str(checkpoint))

    def _send(self, files: Mapping[str, State]) -> None:
        """Send changed files and delete missing ones, in the order of the class."""
        changed = [name for name in files if files[name] != self._sent.get(name)]
        self._write([name for name in changed if not _checkpoint_of(name)], files)
        new = {_checkpoint_of(name) for name in changed} - {None}
        for checkpoint in sorted(map(str, new)):
            self._send_checkpoint(checkpoint, changed, files)
        if self._lease is not None and _whole(files):
            gone = {_checkpoint_of(name) for name in self._there - files.keys()}
            here = {_checkpoint_of(name) for name in files}
            for checkpoint in sorted(map(str, gone - here - {None})):
                self._remove(checkpoint, self._there)
        self._note_last_good()

    def _send_checkpoint(
        self, checkpoint: str, changed: Sequence[str], files: Mapping[str, State]
    ) -> None:
        """Send the files of a checkpoint, in place of an incomplete one."""
        sums = f"{checkpoint}/{SUMS_FILE}"
        self._remove(checkpoint, self._there - files.keys() | {sums})
        mine = [name for name in changed if _checkpoint_of(name) == checkpoint]
        self._write([name for name in mine if name != sums], files)
        self._write([sums], files)

    def _write(self, names: Sequence[str], files: Mapping[str, State]) -> None:
        """Send files."""
        self._there |= set(names)
        self._store.write_all(names, lambda name: (self.path / name).read_bytes())
        self._sent |= {name: files[name] for name in names}

    def _remove(self, checkpoint: str, names: Collection[str]) -> None:
        """Delete the objects of a checkpoint among some names, checksums first."""
        sums = f"{checkpoint}/{SUMS_FILE}"
        gone = [
            name
            for name in sorted(names)
            if _checkpoint_of(name) == checkpoint and name in self._there
        ]
        for some in ([sums] if sums in gone else [], [n for n in gone if n != sums]):
            self._store.write_all(some, lambda name: None)
            self._there -= set(some)

    def _note_last_good(self) -> None:
        """Note the newest complete checkpoint of the bucket."""
        steps = [
            int(checkpoint.partition("/")[2])
            for checkpoint in _whole(self._there)
            if checkpoint.count("/") == 1
        ]
        self._last_good = last_good_of(steps)


def _checkpoint_of(name: str) -> str | None:
    """Return the folder of the checkpoint that a file belongs to, or None."""
    match = _CHECKPOINT.match(name)
    return match[1] if match else None


def _whole(names: Iterable[str]) -> set[str]:
    """Return the checkpoints whose checksums exist."""
    return {
        checkpoint
        for name in names
        if (checkpoint := _checkpoint_of(name)) and name == f"{checkpoint}/{SUMS_FILE}"
    }


def _state(path: pathlib.Path) -> State:
    """Return what changes when a file changes."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _files(root: pathlib.Path) -> dict[str, State]:
    """Return the files of a folder, except those that are still being written."""
    return {
        path.relative_to(root).as_posix(): _state(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not _UNFINISHED.search(f"/{path.relative_to(root)}")
    }
