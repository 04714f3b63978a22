"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO


class Progress:
    """Shows steps, ETA, loss, images a second and the last validation score.

    A terminal gets a bar. Anything else, such as a log file, gets a plain line every
    ``interval`` seconds and at each tenth of the way.
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
        """Begin to count.

        Args:
            total: steps of the whole run.
            images_per_step: images that one step consumes.
            initial: steps done before, when a run is resumed.
            score_name: what the validation score is.
            interval: longest time between plain lines, in seconds.
            stream: where to write; standard error by default.
            clock: gives seconds.
        """
        self._score_name = score_name
        self._total, self._images, self._interval = total, images_per_step, interval
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._step = initial
        self._shown: dict[str, str] = {}
        # The first step compiles: rates count from its end, if it was reported.
        self._origin: tuple[int, float] | None = None
        self._paused = 0.0
        self._last_line = clock()
        self._tenth = 10 * initial // max(total, 1)
        self._bar: Any = None
        # A terminal that does not tell its width would show nothing of a bar.
        if self._stream.isatty() and _columns(self._stream) > 0:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=initial,
                file=self._stream,
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
        """Say that a step is done.

        Args:
            step: number of steps done in the whole run.
            loss: the training loss, where it is known; else the last one stays.
            score: the validation score, likewise.
            total: steps of the whole run, where another number is known by now.
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
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.set_postfix_str(self._state(now), refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._line_is_due(now):
            self._print_line(now)

    def paused(self, seconds: float) -> None:
        """Leave time out of the speed: validation is not training.

        Args:
            seconds: how long the pause was.
        """
        self._paused += seconds

    def write(self, text: str) -> None:
        """Print a message without breaking the bar.

        Args:
            text: one or more lines.
        """
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def close(self) -> None:
        """Leave the bar as it stands and free the terminal."""
        if self._bar is not None:
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

    def _line_is_due(self, now: float) -> bool:
        """Whether a plain line is due: another tenth done, or the interval over."""
        tenth = 10 * self._step // max(self._total, 1)
        return tenth > self._tenth or now - self._last_line >= self._interval

    def _print_line(self, now: float) -> None:
        """One plain line."""
        self._last_line = now
        self._tenth = 10 * self._step // max(self._total, 1)
        share = 100 * self._step // max(self._total, 1)
        head = f"step {self._step}/{self._total} ({share} %)"
        print(f"{head}, {self._state(now)}", file=self._stream, flush=True)

    def _state(self, now: float) -> str:
        """Loss, score, speed and remaining time, as far as they are known."""
        parts = [f"{name} {value}" for name, value in self._shown.items()]
        step, began = self._origin or (self._step, now)
        trained = now - began - self._paused
        if self._step > step and trained > 0:
            seconds = trained / (self._step - step)
            parts.append(f"{self._images / seconds:.1f} images/s")
            parts.append(f"ETA {_clock_time(seconds * (self._total - self._step))}")
        return ", ".join(parts) if parts else "first step done"


def _columns(stream: TextIO) -> int:
    """Width of a terminal; 80 where nobody can say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80


def _clock_time(seconds: float) -> str:
    """Hours, minutes and seconds, as on a clock."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
