"""Ends a process that hangs: on a dead process, a disk or a device."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from unet_jax.runtime.answer import answer_of
from unet_jax.runtime.stop import REQUEUE


class Watchdog:
    """Ends a process whose work takes longer than some time.

    It prints one line and the stack of every thread, and exits with 42: the cause is
    mostly another machine, and the job should be queued again. Only the work within
    `watching` counts.

    Args:
        seconds: time of one piece of work; 0 watches nothing.
        last_good: says which checkpoint a restart would resume from.
        leave: ends the process with an exit code.
    """

    def __init__(
        self,
        seconds: float,
        *,
        last_good: Callable[[], str],
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        """Start the thread."""
        self._seconds = seconds
        self._last_good = last_good
        self._leave = leave
        self._work: tuple[str, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if seconds > 0:
            self._thread.start()

    @contextlib.contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Watch the work of a block, named in the message, such as "step 12"."""
        self._work = (what, time.monotonic())
        try:
            yield
        finally:
            self._work = None

    def __enter__(self) -> "Watchdog":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End the thread."""
        self._ended.set()
        if self._seconds > 0:
            self._thread.join()

    def _watch(self) -> None:
        """Check the clock several times within the allowed time."""
        while not self._ended.wait(min(self._seconds / 20, 5.0)):
            work = self._work
            if work is None or time.monotonic() - work[1] < self._seconds:
                continue
            # The disk itself may hang.
            safe = answer_of(self._last_good) or "its checkpoints cannot be listed"
            print(
                f"\nunet_jax: error: {work[0]} has not come back for "
                f"{self._seconds:g} s (train.step_timeout): another process, a device "
                f"or a disk hangs; {safe}; the stack of each thread follows",
                file=sys.stderr,
            )
            faulthandler.dump_traceback(all_threads=True)
            sys.stderr.flush()
            self._leave(REQUEUE)
            return
