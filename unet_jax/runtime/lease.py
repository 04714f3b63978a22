"""One run a workdir: a lease that the run renews and the next one looks at."""

import abc
import contextlib
import json
import os
import pathlib
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Self

from unet_jax.errors import InputError, RunError

STALE_SECONDS = 60.0
"""Age of the last sign of life after which a lease counts no longer."""

BEAT_SECONDS = 10.0
_FILE = "lease.json"
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")


class Held(abc.ABC):
    """A right that a thread renews until it is given back.

    Args:
        name: of the workdir.
    """

    def __init__(self, name: object) -> None:
        """Start nothing yet: the right has to be taken."""
        self._name = name
        self._lost: str | None = None
        self._ended = threading.Event()
        self._renewing = threading.Lock()

    def check(self) -> None:
        """See that the workdir is still this run's.

        Raises:
            RunError: it was deleted, or another run has taken it over.
        """
        self._sign_of_life()
        if self._lost is not None:
            raise RunError(f"--workdir {self._name}: {self._lost}; nothing is saved")

    def release(self) -> None:
        """Give the lease back; a second time does nothing."""
        self._ended.set()
        self._give_back()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give it back."""
        self.release()
        self._thread.join()

    def _start(self, beat_seconds: float) -> None:
        """Renew it from now on."""
        self._thread = threading.Thread(
            target=self._beat, args=(beat_seconds,), daemon=True
        )
        self._thread.start()

    def _beat(self, seconds: float) -> None:
        """Renew the lease until it is given back or lost."""
        while self._lost is None and not self._ended.wait(seconds):
            self._sign_of_life()

    def _sign_of_life(self) -> None:
        """Renew it, from one thread at a time."""
        with self._renewing:
            if self._lost is None and not self._ended.is_set():
                self._renew()

    @abc.abstractmethod
    def _renew(self) -> None:
        """Give a sign of life, or find the lease lost."""

    @abc.abstractmethod
    def _give_back(self) -> None:
        """Remove what was taken, if it is still this run's."""


class Lease(Held):
    """The right to write into a workdir, as ``lease.json`` in it.

    It names host, process and job. A thread touches the file every ten seconds. Ages
    are read off the file system's own clock, since those of two hosts differ. A lease
    of this host counts as long as its process lives. Of another host's it is waited
    whether it is renewed; after a minute of silence it is taken over, so that a job
    that was killed and queued again elsewhere goes on.

    Args:
        workdir: folder of the run; made where it is missing.
        beat_seconds: between two signs of life.
        stale_seconds: see `STALE_SECONDS`.

    Raises:
        InputError: another run is at work there, or the folder cannot be written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Take the lease, or refuse."""
        super().__init__(workdir)
        self._workdir = workdir
        self._path = workdir / _FILE
        self._stale = stale_seconds
        self._me = identity()
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise InputError(
                f"--workdir {workdir}: cannot be written ({error.strerror}); name a "
                "folder that can"
            ) from None
        self._start(beat_seconds)

    def _acquire(self) -> None:
        """Create the file, in the place of one that counts no longer."""
        seen: tuple[object, float] | None = None
        while True:
            try:
                with self._path.open("x", encoding="utf-8") as file:
                    json.dump(self._me, file)
                return
            except FileExistsError:
                pass
            try:
                other, renewed = _read(self._path), self._path.stat().st_mtime
            except FileNotFoundError:
                continue  # given back meanwhile
            age = self._now() - renewed
            lives = lives_here(other, self._me)
            last = (other.get("token"), renewed)
            if lives or (lives is None and seen is not None and seen != last):
                raise InputError(refusal(self._workdir, other, f"{max(age, 0):.0f} s"))
            if lives is None and age < self._stale:
                if seen is None:
                    print(
                        f"{self._path}: left by a run on host "
                        f"{other.get('host', 'unknown')}; waiting up to "
                        f"{self._stale - age:.0f} s for a sign of life"
                    )
                seen = last
                time.sleep(min(1.0, self._stale / 10))
                continue
            self._put_aside(other)

    def _put_aside(self, stale: Mapping[str, Any]) -> None:
        """Remove the file that was found stale, and no other."""
        aside = self._path.with_name(f"{_FILE}.{self._me['token']}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if _read(aside).get("token") != stale.get("token"):
            aside.rename(self._path)  # a third run was quicker: this one is its
            return
        aside.unlink()

    def _now(self) -> float:
        """The time by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self._workdir, prefix=".clock") as file:
            return os.stat(file.name).st_mtime

    def _renew(self) -> None:
        """Give a sign of life, if the lease is still ours."""
        try:
            if _read(self._path).get("token") != self._me["token"]:
                self._lost = "another run has taken it over"
            else:
                os.utime(self._path)
        except FileNotFoundError:
            self._lost = "it was deleted under the run"
        except OSError:
            # A disk that answers again is as good as before; a full one can be touched.
            pass

    def _give_back(self) -> None:
        """Remove the file, and a folder in which nothing was written."""
        with contextlib.suppress(OSError):
            if _read(self._path).get("token") == self._me["token"]:
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._workdir.rmdir()


class NoLease:
    """What the other processes of a run have: the first one holds the lease."""

    def check(self) -> None:
        """See nothing: the first process looks."""

    def release(self) -> None:
        """Give nothing back."""

    def __enter__(self) -> "NoLease":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing."""


def refusal(workdir: object, other: Mapping[str, Any], age: str) -> str:
    """Say who is at work there.

    Args:
        workdir: its name.
        other: content of the lease.
        age: of the last sign of life, in words.
    """
    job = f", job {other['job']}" if other.get("job") else ""
    return (
        f"--workdir {workdir}: another run is at work there (host "
        f"{other.get('host', 'unknown')}, process {other.get('pid', 'unknown')}"
        f"{job}, last sign of life {age} ago); stop it, or name another --workdir"
    )


def identity() -> dict[str, Any]:
    """Name this process so that no other is mistaken for it."""
    return {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "job": next((os.environ[v] for v in _JOB_VARIABLES if os.environ.get(v)), None),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def lives_here(other: Mapping[str, Any], me: Mapping[str, Any]) -> bool | None:
    """Whether the process of another lease lives; None where it cannot be known.

    Args:
        other: content of the lease.
        me: what `identity` gives here.
    """
    here = other.get("boot") == me["boot"] and other.get("host") == me["host"]
    if not here or me["boot"] is None or not isinstance(other.get("pid"), int):
        return None
    return other.get("started") == _started(other["pid"])


def _boot() -> str | None:
    """Identity of this boot of this machine; None where the system has none.

    With it that of the process numbers: another container, though it may have the
    host's name, has others, and what it does not see there may live.
    """
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return None


def _started(pid: int) -> str | None:
    """When a process of this machine began, in its own ticks; None without one."""
    with contextlib.suppress(OSError):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        # The second field is a name in brackets, with spaces perhaps.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Read the file of a lease."""
    return read_lease(path.read_bytes())


def read_lease(content: bytes) -> dict[str, Any]:
    """Read a lease; empty where it is half written.

    Args:
        content: of the file or object.
    """
    try:
        lease = json.loads(content)
    except ValueError:
        return {}
    return lease if isinstance(lease, dict) else {}
