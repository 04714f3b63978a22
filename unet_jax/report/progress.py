"""Shows how far a run or its start is: a tqdm bar on a terminal, lines elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO


class Progress:
    """Shows steps, ETA, loss, images a second and the last validation score.

    On a terminal tqdm draws a bar. Other streams, such as a log file, get a plain line
    every ``interval`` seconds and at each tenth of the way, which tqdm has not. The
    speed is ours too: it leaves out the compilation and the validation.
    """

    def __init__(
        self,
        total: int,
        *,
        images_per_step: int,
        initial: int = 0,
        score_name: str = "val Dice",
        interval: float = 30.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start to count.

        Args:
            total: number of steps of the whole run.
            images_per_step: number of images that one step takes.
            initial: number of steps done before, where a run is resumed.
            score_name: name of the validation score.
            interval: longest time between plain lines, in seconds.
            stream: stream to write to; standard error by default.
            clock: function that returns the time in seconds.
        """
        from tqdm import tqdm

        self._score_name = score_name
        self._total, self._images, self._interval = total, images_per_step, interval
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._step = initial
        self._shown: dict[str, str] = {}
        # The first step compiles: the speed is measured from its end.
        self._origin: tuple[int, float] | None = None
        self._paused = 0.0
        self._last_line = clock()
        self._tenth = 10 * initial // max(total, 1)
        self._bar: Any = tqdm(
            total=total,
            initial=initial,
            file=self._stream,
            disable=not self._stream.isatty() or _has_no_width(self._stream),
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def update(
        self,
        step: int,
        *,
        loss: float | None = None,
        score: float | None = None,
        total: int | None = None,
    ) -> None:
        """Show that a step is done.

        Args:
            step: number of steps done in the whole run.
            loss: training loss; None keeps the last one.
            score: validation score; None keeps the last one.
            total: number of steps of the whole run; None keeps the last one.
        """
        if total is not None:
            self._total = total
        now = self._clock()
        self._step = step
        if self._origin is None:
            self._origin = (step, now)
        if loss is not None:
            self._shown["loss"] = f"{loss:.4g}"
        if score is not None:
            self._shown[self._score_name] = f"{score:.4f}"
        if not self._bar.disable:
            self._bar.total = self._total
            self._bar.set_postfix_str(self._state(now), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        tenth = 10 * step // max(self._total, 1)
        if tenth > self._tenth or now - self._last_line >= self._interval:
            self._last_line, self._tenth = now, tenth
            percent = 100 * step // max(self._total, 1)
            self.write(f"step {step}/{self._total} ({percent} %), {self._state(now)}")

    def paused(self, seconds: float) -> None:
        """Leave a pause out of the speed: validation is not training.

        Args:
            seconds: length of the pause.
        """
        self._paused += seconds

    def write(self, text: str) -> None:
        """Print a message without breaking the bar.

        Args:
            text: one or more lines.
        """
        self._bar.write(text, file=self._stream)
        self._stream.flush()

    def close(self) -> None:
        """Leave the bar as it stands and free the terminal."""
        self._bar.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, also after an error, so that its message starts on a new line."""
        self.close()

    def _state(self, now: float) -> str:
        """Return loss, score, speed and remaining time, as far as they are known."""
        parts = [f"{name} {value}" for name, value in self._shown.items()]
        step, began = self._origin or (self._step, now)
        trained = now - began - self._paused
        if self._step > step and trained > 0:
            seconds = trained / (self._step - step)
            left = round(seconds * (self._total - self._step))
            parts.append(f"{self._images / seconds:.1f} images/s")
            parts.append(f"ETA {self._bar.format_interval(left)}")
        return ", ".join(parts) if parts else "first step done"


class ReadingBar:
    """Shows how many cases were read, where reading them takes a while.

    A terminal gets a tqdm bar after a second, other streams a plain line every ten
    seconds.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show nothing yet.

        Args:
            stream: stream to write to; standard error by default.
            interval: time between plain lines, in seconds.
            clock: function that returns the time in seconds.
        """
        self._stream = sys.stderr if stream is None else stream
        self._interval, self._clock = interval, clock
        self._last_line = clock()
        self._bar: Any = None

    def step(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` cases are read."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                desc="reading",
                total=total,
                unit=" cases",
                delay=1.0,
                leave=False,
                file=self._stream,
                disable=not self._stream.isatty() or _has_no_width(self._stream),
                dynamic_ncols=True,
            )
        self._bar.update(done - self._bar.n)
        if self._bar.disable and self._clock() - self._last_line >= self._interval:
            self._last_line = self._clock()
            self._stream.write(f"reading     {done} of {total} cases\n")
            self._stream.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def _has_no_width(stream: TextIO) -> bool:
    """Return whether a terminal states no width: tqdm would draw nothing there."""
    try:
        return os.get_terminal_size(stream.fileno()).columns == 0
    except (OSError, ValueError):
        return False
