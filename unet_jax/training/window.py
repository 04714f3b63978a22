"""The metrics of the steps between two lines of metrics.jsonl."""

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from unet_jax.report.writer import MetricWriter, NoWriter
from unet_jax.training.nonfinite import NonfiniteSteps

Row = dict[str, float] | None
"""Metrics of one step by name; None for a step that is left out."""


class MetricWindow:
    """The steps since the last line of metrics.jsonl, averaged when it is written.

    Metrics stay on the device until then: reading them each step would stop the host
    from working ahead.
    """

    def __init__(
        self,
        batch_size: int,
        nonfinite: NonfiniteSteps,
        *,
        rows: Sequence[Row] | None = None,
    ) -> None:
        """Begin a window.

        Args:
            batch_size: images of a step.
            nonfinite: judges the steps that the device masked.
            rows: of the steps that an interrupted run had in it; None for none.
        """
        self._batch_size = batch_size
        self._nonfinite = nonfinite
        self._rows: list[Row] = list(rows or ())
        self._on_device: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self._rate = 0.0
        self.last_loss: float | None = None

    def add(self, metrics: dict[str, Any], *, learning_rate: float) -> None:
        """Keep the metrics of one step; let the host be two steps ahead at most.

        So the speed that is shown is the device's, and no queue of batches grows.
        """
        self._on_device.append(metrics)
        self._rate = float(learning_rate)
        if len(self._on_device) > 2:
            jax.block_until_ready(self._on_device[-3])

    def write(
        self,
        step: int,
        writer: MetricWriter | NoWriter,
        *,
        last_good: Callable[[], str],
    ) -> None:
        """Write the means up to ``step`` and empty the window.

        Steps that are left out do not enter them; they are counted as
        ``skipped_steps`` where there are some.

        Args:
            step: the last step added.
            writer: of the run.
            last_good: says in words which checkpoint is whole, for the message.

        Raises:
            RunError: a value of some step is NaN or infinite, and may not be.
        """
        rows = self.rows(step, last_good=last_good)
        sound = [row for row in rows if row is not None]
        means = {
            name: float(np.mean([row[name] for row in sound], dtype=np.float64))
            for name in (sound[0] if sound else ())
        }
        self.last_loss = means.get("loss", self.last_loss)
        if len(sound) < len(rows):
            means["skipped_steps"] = len(rows) - len(sound)
        writer.write(step, "train", {**means, "learning_rate": self._rate})
        seconds = time.monotonic() - self._began
        writer.write_timing(
            step,
            {
                "seconds_per_step": seconds / len(rows),
                "images_per_second": self._batch_size * len(rows) / seconds,
                "peak_memory_mib": _peak_memory_mib(),
            },
        )
        self._rows = []
        self.restart_clock()

    def rows(self, step: int, *, last_good: Callable[[], str]) -> list[Row]:
        """Wait for the steps in the window, judge them, and give their metrics.

        Args:
            step: the last step added.
            last_good: says in words which checkpoint is whole, for the message.

        Returns:
            A JSON-able row a step.

        Raises:
            RunError: a value of some step is NaN or infinite, and may not be.
        """
        fetched = jax.device_get(self._on_device)
        self._on_device = []
        for number, row in enumerate(fetched, start=step - len(fetched) + 1):
            skipped = self._nonfinite.leaves_out(number, row, last_good=last_good)
            numbers = {k: float(v) for k, v in row.items() if k != "problems"}
            self._rows.append(None if skipped else numbers)
        return self._rows

    def restart_clock(self) -> None:
        """Leave out the time that validation took."""
        self._began = time.monotonic()


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
