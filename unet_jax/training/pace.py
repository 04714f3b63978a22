"""Decides when a run logs, validates and ends: by the number of steps or the clock."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from unet_jax.errors import InputError

_LOG_STEPS = 25
"""Steps between two lines of the log, unless the run is short."""


class StepPace:
    """A run of a fixed number of steps, validated at fixed steps.

    Attributes:
        total_steps: steps of the whole run; an estimate for a run by the clock.
        is_over: whether the run was over when it was resumed.
    """

    def __init__(
        self,
        steps: int,
        *,
        every_steps: int,
        first_step: int,
        log_steps: int | None = None,
    ) -> None:
        """Count from the steps done; see `create_pace`."""
        self.total_steps = steps
        self._log_steps = log_steps or max(1, min(_LOG_STEPS, steps // 12))
        self._every = every_steps
        self.is_over = first_step >= steps

    def ready(self) -> None:
        """Note that data and program are ready; time does not count here."""

    def place(self, step: int) -> float:
        """Return the place in the schedule for the update of this step."""
        return step - 1

    def after(self, step: int) -> tuple[bool, bool]:
        """Return whether to validate after this step, and whether it is the last."""
        last = step >= self.total_steps
        return last or step % self._every == 0, last

    def logs(self, step: int) -> bool:
        """Return whether to write a line after this step; call `after` first."""
        return step % self._log_steps == 0

    def validated(self, seconds: float) -> None:
        """Note the duration of validating and saving; it does not count here."""

    def record(self) -> dict[str, Any]:
        """Return what a resumed run needs to know: nothing beside the step number."""
        return {}

    def account(self) -> str:
        """Say how the time went: nothing, since steps are counted."""
        return ""


class ClockPace:
    """A run that ends by the clock, with the schedule stretched to fit.

    The place in the schedule is the elapsed fraction of the time, counted from the
    first step: on a slow machine data and compilation take longer than the whole
    warm-up, and the first steps would have the full learning rate. The first validation
    comes after a tenth of the time, the others 12 % of the time apart, or farther if
    they are slow: they take a tenth of the time at most. The time of the last
    validation is set aside. Lines of the log are a fortieth of the time apart at most.

    Such a run is not reproducible bit by bit: the number of steps depends on the speed
    of the machine.
    """

    _FIRST, _APART, _SLOW, _LINE = 0.1, 0.12, 10.0, 0.025

    def __init__(
        self,
        minutes: float,
        *,
        schedule_steps: int,
        record: Mapping[str, Any],
        first_step: int,
        began: float,
        log_steps: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start or resume the clock; see `create_pace`.

        ``schedule_steps`` is the number of steps of the schedule.
        """
        self._budget = 60 * minutes
        self._schedule_steps = schedule_steps
        self._clock = clock
        self._log_steps, self._line_at = log_steps, 0.0
        self._used = float(record.get("seconds", 0.0))
        self._reserve = float(record.get("reserve_seconds", 0.0))
        self._began = began
        self._ready_at: float | None = record.get("ready_seconds")
        # Of all starts; a run of 0.1 has recorded the first of them alone.
        self._starting = float(record.get("start_seconds", self._ready_at or 0.0))
        self._trained = float(
            record.get("training_seconds", max(self._used - self._starting, 0.0))
        )
        self._starts = 1 + int(record.get("starts", "seconds" in record))
        self.is_over = self._used > 0 and self._used + self._reserve >= self._budget
        self._step, self._first_step = first_step, first_step
        self._paused = self._training_since = 0.0
        self._start_training()

    @property
    def total_steps(self) -> int:
        """Steps that will fit, estimated from the steps since this start."""
        done = self._step - self._first_step
        training = self._clock() - self._training_began - self._paused
        left = max(self._budget - self._reserve - self._seconds(), 0.0)
        if done < 2 or training <= 0:
            return max(self._step + 1, self._schedule_steps)
        return self._step + max(1, int(left * done / training))

    def ready(self) -> None:
        """Start the schedule, unless an earlier start did, and time the steps."""
        if self._ready_at is None:
            self._ready_at = self._seconds()
        self._starting += self._clock() - self._began
        self._start_training()

    def place(self, step: int) -> float:
        """Return the step of the schedule at the elapsed fraction of the time."""
        first = self._ready_at or 0.0
        left = self._budget - self._reserve - first
        fraction = (self._seconds() - first) / max(left, 1e-9)
        return min(fraction, 1.0) * (self._schedule_steps - 1)

    def after(self, step: int) -> tuple[bool, bool]:
        """Look at the clock."""
        self._step = step
        now = self._clock()
        seconds = self._used + now - self._began
        self._trained += now - self._training_since
        self._training_since = now
        last = seconds + self._reserve >= self._budget
        return last or seconds >= self._validate_at, last

    def logs(self, step: int) -> bool:
        """Return whether to write a line after this step."""
        if self._log_steps is not None:
            return step % self._log_steps == 0
        seconds = self._seconds()
        due = step % _LOG_STEPS == 0 or seconds >= self._line_at
        if due:
            self._line_at = seconds + self._LINE * self._budget
        return due

    def validated(self, seconds: float) -> None:
        """Set the time of the next validation, and the time to keep for the last."""
        # The first one compiles, so a later and shorter one counts for more.
        self._reserve = 1.2 * seconds
        self._paused += seconds
        self._training_since = self._clock()
        apart = max(self._APART * self._budget, self._SLOW * seconds)
        self._validate_at = self._seconds() + apart

    def record(self) -> dict[str, Any]:
        """Return the time used, the time set aside, and when the first step began."""
        return {
            "seconds": self._seconds(),
            "reserve_seconds": self._reserve,
            "ready_seconds": self._ready_at,
            "start_seconds": self._starting,
            "training_seconds": self._trained,
            "starts": self._starts,
        }

    def account(self) -> str:
        """Say how the time of all starts went, in minutes."""
        used, starts = self._seconds(), self._starts
        rest = max(used - self._starting - self._trained, 0.0)
        over = f" over {starts} starts" if starts > 1 else ""
        parts = ", ".join(
            f"{what} {seconds / 60:.2f}"
            for what, seconds in (
                ("start (data, compilation)", self._starting),
                (f"training ({self._step} steps)", self._trained),
                ("validation and checkpoints", rest),
            )
        )
        return (
            f"{used / 60:.2f} of {self._budget / 60:g} minutes{over} (the test split "
            f"comes after them): {parts}"
        )

    def _start_training(self) -> None:
        """Time the steps, and the wait for the first validation, from now."""
        self._training_began = self._training_since = self._clock()
        self._validate_at = self._seconds() + self._FIRST * self._budget

    def _seconds(self) -> float:
        """Return the time used, over all starts."""
        return self._used + self._clock() - self._began


Pace = StepPace | ClockPace


def create_pace(
    *,
    minutes: float | None,
    steps: int,
    every_steps: int,
    record: Mapping[str, Any],
    first_step: int,
    began: float,
    log_steps: int | None = None,
) -> Pace:
    """Create the pace of a run.

    Args:
        minutes: time of the whole run; None or 0 to count steps.
        steps: steps of the run, or of the schedule for a run by the clock.
        every_steps: steps between validations, if steps are counted.
        record: record of the run that is resumed; empty for a new one.
        first_step: steps done before.
        began: when this start began, by ``time.monotonic``.
        log_steps: steps between lines of the log; None for what suits the run.

    Raises:
        InputError: several processes cannot end by the clock.
    """
    if not minutes:
        return StepPace(
            steps, every_steps=every_steps, first_step=first_step, log_steps=log_steps
        )
    if jax.process_count() > 1:
        raise InputError(
            "train.max_minutes: clocks of several processes differ; give train.steps"
        )
    used = float(record.get("seconds", 0.0)) / 60
    before = f", {used:.2f} of them used by earlier starts" if used else ""
    print(
        f"this run ends after {minutes:g} minutes, a total over all resumes of start, "
        f"training and validation{before}; the number of steps differs each time, so "
        "its weights cannot be reproduced bit by bit"
    )
    return ClockPace(
        minutes,
        schedule_steps=steps,
        record=record,
        first_step=first_step,
        began=began,
        log_steps=log_steps,
    )
