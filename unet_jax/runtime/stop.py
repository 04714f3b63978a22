"""Signals that ask a run to stop, answered wherever the main thread is.

Python runs a signal handler between two instructions of the main thread, and a compile
is one instruction of minutes. The number of the signal is written to a pipe at once,
though, and a thread of ours reads it there.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

from unet_jax.errors import Stopped
from unet_jax.runtime.answer import answer_of

REQUEUE = 42
"""Exit code: preempted; the same command goes on from the last checkpoint."""

INTERRUPTED = 130
"""Exit code of Ctrl-C, as shells have it."""

GRACE_SECONDS = 25.0
"""Time to end a step and save: those who send SIGTERM mostly kill after thirty."""


class Stop:
    """Whether a run was asked to stop; this one never is.

    It is the default of functions that may be called without a command line, and the
    part of `StopSignals` that a loop sees.
    """

    reason: str | None = None
    code: int = REQUEUE

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Mark the part of a run where a stop can wait for a checkpoint."""
        yield

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Name what is to be done before an exit at once; see `StopSignals`."""

    def leave(self, why: str) -> NoReturn:
        """End a run in which nothing can be waited for any more.

        Args:
            why: in words.

        Raises:
            Stopped: always, where there is no command line.
        """
        raise Stopped(self.reason or "a problem outside", code=self.code, saved=why)


class StopSignals(Stop):
    """Turns SIGTERM, SIGUSR1 and Ctrl-C into a request that the loop looks at.

    Within `saving` the loop has ``grace_seconds`` to save; elsewhere (compiling,
    preparing data, scoring) nothing new can be saved and the process ends at once. So
    it does when Ctrl-C comes a second time. Exit code 42 asks for the job to be queued
    again, 130 stands for Ctrl-C.

    A context manager, for the main thread; the handlers from before come back at its
    end. The preemption service of ``jax.distributed`` has to be off: it installs its
    own.

    Args:
        hint: lines for the user on how to go on, printed at an exit at once.
        grace_seconds: after which a run that was asked to stop is ended anyway.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, *, hint: str = "", grace_seconds: float = GRACE_SECONDS) -> None:
        """Change nothing yet."""
        self._hint = hint
        self._grace = grace_seconds
        self._can_save = False
        self._on_exit: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._previous: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "StopSignals":
        """Install the handlers and the thread that listens."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._SIGNALS:
            # A handler of Python's has to be there for the pipe to be written to.
            self._previous[number] = signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put back what was there before."""
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
        """Let a stop wait for the checkpoint that the loop will save."""
        with self._lock:
            self._can_save = True
        try:
            yield
        finally:
            with self._lock:
                self._can_save = False

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Name what is to be done, in another thread, before an exit at once.

        Args:
            callback: quick, and harmless where it was done already.
        """
        self._on_exit.append(callback)

    def _listen(self) -> None:
        """Wait for signals until the pipe is closed."""
        while numbers := os.read(self._read, 1):
            number = numbers[0]
            if number not in self._SIGNALS:
                continue  # some other handler's
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
        """End the process here and now, from any thread.

        Args:
            why: in words.
        """
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
