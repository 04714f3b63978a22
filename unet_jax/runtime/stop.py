"""Handles signals that ask a run to stop, also while the main thread compiles.

Python runs a signal handler between two instructions of the main thread, and a compile
is one instruction of minutes. But it writes the number of the signal to a pipe at once,
and a thread of ours reads it.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from unet_jax.errors import Stopped
from unet_jax.runtime.answer import answer_of

REQUEUE = 42
"""Exit code: preempted; the same command resumes from the last checkpoint."""

INTERRUPTED = 130
"""Exit code of Ctrl-C, as in shells."""

GRACE_SECONDS = 25.0
"""Time to end a step and save: SIGTERM is mostly followed by SIGKILL after 30 s."""


class Stop:
    """A request to stop; without a command line nothing ever asks.

    Attributes:
        reason: who asked, such as "SIGTERM"; None if nobody did.
        code: exit code of the process.
    """

    reason: str | None = None
    code: int = REQUEUE

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Mark the part of a run that saves a checkpoint before it stops."""
        yield

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Register a callback for an exit at once; see `StopSignals`."""

    def leave(self, why: str) -> NoReturn:
        """End a run that cannot wait for anything any more, and say why.

        Raises:
            Stopped: always, without a command line.
        """
        raise Stopped(self.reason or "a problem outside", code=self.code, saved=why)


class StopSignals(Stop):
    """Turns SIGTERM, SIGUSR1 and Ctrl-C into a request that the loop checks.

    Within `saving` the loop has ``grace_seconds`` to save. Elsewhere (compiling,
    preparing data, scoring) nothing new can be saved, and the process ends at once; so
    it does at a second Ctrl-C. Exit code 42 asks for the job to be queued again, 130
    stands for Ctrl-C.

    A context manager for the main thread; it restores the previous handlers. The
    preemption service of ``jax.distributed`` must be off: it installs its own handler.

    Args:
        hint: lines on how to resume, printed at an exit at once.
        grace_seconds: time after which a run that was asked to stop is ended.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, *, hint: str = "", grace_seconds: float = GRACE_SECONDS) -> None:
        """Prepare; the handlers are installed on entry."""
        self._hint = hint
        self._grace = grace_seconds
        self._can_save = False
        self._on_exit: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._previous: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "StopSignals":
        """Install the handlers and start the thread that listens."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._SIGNALS:
            # Without a Python handler nothing is written to the pipe.
            self._previous[number] = signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._write)  # the thread reads the end of the pipe, and ends
        self._thread.join()
        os.close(self._read)
        if self._timer is not None:
            self._timer.cancel()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Let a stop wait for the checkpoint that the loop saves."""
        with self._lock:
            self._can_save = True
        try:
            yield
        finally:
            with self._lock:
                self._can_save = False

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Register a callback that runs in another thread before an exit at once.

        It has to be quick, and harmless if it runs twice.
        """
        self._on_exit.append(callback)

    def _listen(self) -> None:
        """Wait for signals until the pipe is closed."""
        while numbers := os.read(self._read, 1):
            number = numbers[0]
            if number not in self._SIGNALS:
                continue  # another handler's
            again = self.reason is not None and number == signal.SIGINT
            with self._lock:
                if self.reason is None:
                    self.code = INTERRUPTED if number == signal.SIGINT else REQUEUE
                    name = signal.Signals(number).name
                    self.reason = "Ctrl-C" if name == "SIGINT" else name
                can_save = self._can_save
            if again or not can_save:
                self.leave("nothing new to save")
            self._timer = timer = threading.Timer(
                self._grace, self.leave, [f"no checkpoint within {self._grace:g} s"]
            )
            timer.daemon = True
            timer.start()

    def leave(self, why: str) -> NoReturn:
        """End the process at once, from any thread; ``why`` goes into the message."""
        for callback in self._on_exit:
            answer_of(callback)  # a disk may hang
        by = f" by {self.reason}" if self.reason else ""
        print(f"\nunet_jax: stopped{by}: {why}", file=sys.stderr)
        if self._hint:
            print(self._hint, file=sys.stderr)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self.code)
