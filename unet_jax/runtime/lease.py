"""Lets only one run at a time write into a workdir, by a lease that it renews."""

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
"""Age of the last renewal after which another run may take the lease over."""

BEAT_SECONDS = 10.0
_FILE = "lease.json"
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")


class Held(abc.ABC):
    """A lease that a background thread renews until it is released.

    Args:
        name: name of the workdir, for messages.
    """

    def __init__(self, name: object) -> None:
        """Prepare the thread; the subclass acquires the lease and starts it."""
        self._name = name
        self._lost: str | None = None
        self._ended = threading.Event()
        self._renewing = threading.Lock()

    def check(self) -> None:
        """Check that this run still holds the lease.

        Raises:
            RunError: the lease was deleted, or another run has taken it over.
        """
        self._sign_of_life()
        if self._lost is not None:
            raise RunError(f"--workdir {self._name}: {self._lost}; nothing is saved")

    def release(self) -> None:
        """Release the lease; calling it again does nothing."""
        self._ended.set()
        self._give_back()

    def __enter__(self) -> Self:
        """Return the lease."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the lease."""
        self.release()
        self._thread.join()

    def _start(self, beat_seconds: float) -> None:
        """Start the thread that renews the lease."""
        self._thread = threading.Thread(
            target=self._beat, args=(beat_seconds,), daemon=True
        )
        self._thread.start()

    def _beat(self, seconds: float) -> None:
        """Renew the lease until it is released or lost."""
        while self._lost is None and not self._ended.wait(seconds):
            self._sign_of_life()

    def _sign_of_life(self) -> None:
        """Renew the lease, from one thread at a time."""
        with self._renewing:
            if self._lost is None and not self._ended.is_set():
                self._renew()

    @abc.abstractmethod
    def _renew(self) -> None:
        """Renew the lease, or note that it is lost."""

    @abc.abstractmethod
    def _give_back(self) -> None:
        """Remove the lease, if this run still holds it."""


class Lease(Held):
    """The lease of a workdir in a file system: the file ``lease.json`` in it.

    The file names host, process and job. A thread touches it every ten seconds. Ages
    are measured by the clock of the file system, since the clocks of two hosts differ.
    A lease of this host is valid as long as its process lives. A lease of another host
    is taken over after a minute without a renewal, so that a job that was killed and
    queued again elsewhere resumes.

    Lock packages do not give this: ``flock`` is unreliable on network file systems, and
    a lock file that is not renewed stays after a kill until somebody deletes it.

    Args:
        workdir: folder of the run; created if it is missing.
        beat_seconds: seconds between two renewals.
        stale_seconds: see `STALE_SECONDS`.

    Raises:
        InputError: another run writes there, or the folder cannot be written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Acquire the lease, or refuse."""
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
        """Create the file; replace one that is stale."""
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
                continue  # released meanwhile
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
        """Remove the file that was found stale, and no other one."""
        aside = self._path.with_name(f"{_FILE}.{self._me['token']}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if _read(aside).get("token") != stale.get("token"):
            aside.rename(self._path)  # a third run was quicker and holds this one
            return
        aside.unlink()

    def _now(self) -> float:
        """Return the time by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self._workdir, prefix=".clock") as file:
            return os.stat(file.name).st_mtime

    def _renew(self) -> None:
        """Touch the file, if this run still holds the lease."""
        try:
            if _read(self._path).get("token") != self._me["token"]:
                self._lost = "another run has taken it over"
            else:
                os.utime(self._path)
        except FileNotFoundError:
            self._lost = "it was deleted under the run"
        except OSError:
            # The disk may answer again later; a full disk can still be touched.
            pass

    def _give_back(self) -> None:
        """Remove the file, and the folder if it is empty."""
        with contextlib.suppress(OSError):
            if _read(self._path).get("token") == self._me["token"]:
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._workdir.rmdir()


class NoLease:
    """The lease of all processes but the first, which holds the real one."""

    def check(self) -> None:
        """Do nothing: the first process checks."""

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> "NoLease":
        """Return the object."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing."""


def refusal(workdir: object, other: Mapping[str, Any], age: str) -> str:
    """Write the error message that names the run that holds a lease.

    ``age`` is that of its last renewal, in words.
    """
    job = f", job {other['job']}" if other.get("job") else ""
    return (
        f"--workdir {workdir}: another run is at work there (host "
        f"{other.get('host', 'unknown')}, process {other.get('pid', 'unknown')}"
        f"{job}, last sign of life {age} ago); stop it, or name another --workdir"
    )


def identity() -> dict[str, Any]:
    """Describe this process so that no other process is taken for it."""
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
    """Tell whether the process of another lease lives; None where that is unknown."""
    here = other.get("boot") == me["boot"] and other.get("host") == me["host"]
    if not here or me["boot"] is None or not isinstance(other.get("pid"), int):
        return None
    return other.get("started") == _started(other["pid"])


def _boot() -> str | None:
    """Return an identifier of this boot and process namespace; None without one.

    Another container may have the same host name but other process numbers, so a
    process that is not visible here may still live there.
    """
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return None


def _started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks; None if it is gone."""
    with contextlib.suppress(OSError):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        # The second field is a name in brackets that may contain spaces.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Read the file of a lease."""
    return read_lease(path.read_bytes())


def read_lease(content: bytes) -> dict[str, Any]:
    """Parse a lease; return an empty dict if it is half written."""
    try:
        lease = json.loads(content)
    except ValueError:
        return {}
    return lease if isinstance(lease, dict) else {}
