"""Guards a run: its lease, requests to stop, hangs, lost processes and broken disks."""

import contextlib
import dataclasses
import pathlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from unet_jax.errors import RunError, Stopped
from unet_jax.hosts import agree
from unet_jax.hosts.lost import leaving_when_lost
from unet_jax.runtime.lease import Lease, NoLease
from unet_jax.runtime.stop import Stop
from unet_jax.runtime.watchdog import Watchdog
from unet_jax.training.devices import STOP


@dataclasses.dataclass
class Guard:
    """What may end a run from outside, in one object; made by `guarding`.

    Attributes:
        stop: requests to stop.
        lease: right of this run to write into the workdir.
        watchdog: ends the process when a step or a save hangs.
        last_good: says which checkpoint a restart would resume from.
    """

    stop: Stop
    lease: Lease | NoLease
    watchdog: Watchdog
    last_good: Callable[[], str]
    _votes: deque[jax.Array] = dataclasses.field(default_factory=deque)
    _stopping: bool = False

    def watching(self, what: str) -> contextlib.AbstractContextManager[None]:
        """End the process if the block takes longer than ``train.step_timeout``.

        ``what`` names the work for the message, such as "step 12".
        """
        return self.watchdog.watching(what)

    def leaving_when_lost(self) -> contextlib.AbstractContextManager[None]:
        """End the process at once if another process of the run is gone."""
        return leaving_when_lost(self.stop, safe=self.last_good)

    def vote(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Add this process's vote for a stop to its part of a batch.

        With a single process the batch stays as it is.
        """
        if jax.process_count() == 1:
            return batch
        asked = self.stop.reason is not None
        return {**batch, STOP: np.full(jax.local_device_count(), asked, np.int32)}

    def count_votes(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Take the sum of the votes out of the metrics of a step."""
        if STOP in metrics:
            self._votes.append(metrics[STOP])
        return {name: value for name, value in metrics.items() if name != STOP}

    def must_stop(self, step: int) -> bool:
        """Return whether the run stops after this step, equal in every process.

        Votes are read two steps late, when they are known: nothing waits for them.
        """
        if jax.process_count() == 1:
            return self.stop.reason is not None
        with self.watching(f"step {step}"):
            while len(self._votes) > 2:
                self._stopping = self._stopping or int(self._votes.popleft()) > 0
        return self._stopping

    def stopped(self, step: int) -> Stopped:
        """Return the exception that ends a stopped run; ``step`` is saved."""
        saved = f"step {step} is saved" if step else "no step was done"
        reason = self.stop.reason or "a signal to another process"
        return Stopped(reason, code=self.stop.code, saved=saved)


@contextlib.contextmanager
def guarding(
    workdir: pathlib.Path,
    *,
    stop: Stop,
    step_timeout: float,
    last_good: Callable[[], str],
) -> Iterator[Guard]:
    """Take the lease of a workdir, and name what is safe when the run fails.

    ``step_timeout`` is the seconds that a step or a save may take, 0 for any time.

    Raises:
        InputError: another run is at work in the workdir, or processes see different
            folders under its name.
        RunError: the block raised it, or a file could not be read or written; the
            message ends with the last good checkpoint.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(leaving_when_lost(stop, safe=last_good))
        lease = agree.on_first(lambda: Lease(workdir)) or NoLease()
        stack.enter_context(lease)
        stop.on_exit(lease.release)
        agree.check_shared(workdir)
        watchdog = stack.enter_context(Watchdog(step_timeout, last_good=last_good))
        try:
            yield Guard(stop, lease, watchdog, last_good)
        except RunError as error:
            text, safe = str(error), last_good()
            raise RunError(text if safe in text else f"{text}; {safe}") from error
        except OSError as error:
            name = error.filename if error.filename is not None else workdir
            reason = error.strerror or str(error) or type(error).__name__
            raise RunError(
                f"{name}: {reason}; fix the disk, then start the same command again; "
                f"{last_good()}"
            ) from error
