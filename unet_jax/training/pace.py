"""How long a run goes on: so many steps, or until the clock says so.

Both kinds answer the same questions of the loop: where the schedule stands, whether to
validate after this step, and whether it was the last.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Pace(Protocol):
    """What the loop asks, step by step."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, as far as it is known."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        ...

    def ready(self) -> None:
        """Note that data and program are there: the next thing is a step."""
        ...

    def place(self, step: int) -> float:
        """Return where the schedule stands before the update of this step."""
        ...

    def after(self, step: int) -> tuple[bool, bool]:
        """Say whether to validate after this step, and whether it was the last."""
        ...

    def validated(self, seconds: float) -> None:
        """Note how long validation and saving took."""
        ...

    def record(self) -> dict[str, Any]:
        """Return what a resumed run needs to know."""
        ...


class StepPace:
    """A run of a fixed number of steps, validated at fixed steps."""

    def __init__(self, steps: int, *, every_steps: int, first_step: int) -> None:
        """Begin a run.

        Args:
            steps: of the whole run.
            every_steps: steps between validations.
            first_step: steps done before, when a run is resumed.
        """
        self.total_steps = steps
        self._every = every_steps
        self.is_over = first_step >= steps

    def ready(self) -> None:
        """Need not know: time does not count."""

    def place(self, step: int) -> float:
        """Return the number of updates done."""
        return step - 1

    def after(self, step: int) -> tuple[bool, bool]:
        """Count the steps."""
        last = step >= self.total_steps
        return last or step % self._every == 0, last

    def validated(self, seconds: float) -> None:
        """Need not know: time does not count."""

    def record(self) -> dict[str, Any]:
        """Return nothing: the step says it all."""
        return {}


class ClockPace:
    """A run that ends by the clock, with the schedule stretched to fit.

    The schedule stands where the elapsed share of the time says, counted from the first
    step: on a slow machine data and compilation take longer than the whole warm-up, and
    a run that began behind it would take its first steps at the full rate. Validations
    are as far apart as ``share`` of the time, or farther where they are slow: they take
    a tenth of it at most. The time that the last one will take is set aside.

    Such a run is not reproducible bit by bit: how many steps fit is the machine's
    affair.
    """

    _FIRST, _SHARE, _SLOW = 0.1, 0.12, 10.0

    def __init__(
        self,
        minutes: float,
        *,
        schedule_steps: int,
        record: Mapping[str, Any],
        first_step: int,
        began: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a run, or go on with one.

        Args:
            minutes: of the whole run, over all its starts.
            schedule_steps: steps that the schedule is written for.
            record: of the run that goes on; empty for a new one.
            first_step: steps done before.
            began: when this start began, by ``clock``; data and compilation count.
            clock: gives seconds.
        """
        self._budget = 60 * minutes
        self._schedule_steps = schedule_steps
        self._clock = clock
        self._used = float(record.get("seconds", 0.0))
        self._reserve = float(record.get("reserve_seconds", 0.0))
        self._began = began
        self._ready_at: float | None = record.get("ready_seconds")
        self.is_over = self._used > 0 and self._used + self._reserve >= self._budget
        self._step, self._first_step = first_step, first_step
        self._paused = 0.0
        self._start_training()

    @property
    def total_steps(self) -> int:
        """Steps that will fit, from the time of those done in this start."""
        done = self._step - self._first_step
        training = self._clock() - self._training_began - self._paused
        left = max(self._budget - self._reserve - self._seconds(), 0.0)
        if done < 2 or training <= 0:
            return max(self._step + 1, self._schedule_steps)
        return self._step + max(1, int(left * done / training))

    def ready(self) -> None:
        """Start the schedule, unless an earlier start did, and the clock of steps."""
        if self._ready_at is None:
            self._ready_at = self._seconds()
        self._start_training()

    def place(self, step: int) -> float:
        """Return the step of the schedule at the elapsed share of the time."""
        first = self._ready_at or 0.0
        left = self._budget - self._reserve - first
        share = (self._seconds() - first) / max(left, 1e-9)
        return min(share, 1.0) * (self._schedule_steps - 1)

    def after(self, step: int) -> tuple[bool, bool]:
        """Look at the clock."""
        self._step = step
        seconds = self._seconds()
        last = seconds + self._reserve >= self._budget
        return last or seconds >= self._validate_at, last

    def validated(self, seconds: float) -> None:
        """Set the next validation, and the time that the last one will need."""
        # The first one compiles, so a later and shorter one counts for more.
        self._reserve = 1.2 * seconds
        self._paused += seconds
        apart = max(self._SHARE * self._budget, self._SLOW * seconds)
        self._validate_at = self._seconds() + apart

    def record(self) -> dict[str, Any]:
        """Return the time used, what was set aside, and when the first step began."""
        return {
            "seconds": self._seconds(),
            "reserve_seconds": self._reserve,
            "ready_seconds": self._ready_at,
        }

    def _start_training(self) -> None:
        """Count steps, and the time to the first validation, from now."""
        self._training_began = self._clock()
        self._validate_at = self._seconds() + self._FIRST * self._budget

    def _seconds(self) -> float:
        """Time used, over all starts."""
        return self._used + self._clock() - self._began
