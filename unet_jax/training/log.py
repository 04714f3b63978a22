"""Logs the steps of a run: metrics.jsonl, timing.jsonl and the progress line."""

import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from unet_jax.report.progress import Progress
from unet_jax.report.writer import MetricWriter, NoWriter
from unet_jax.training.nonfinite import NonfiniteSteps

Row = dict[str, float] | None
"""Metrics of one step by name; None for a skipped step."""


class TrainingLog:
    """Averages the metrics of the steps between two lines, and writes the lines.

    Metrics stay on the device until a line is due: reading them each step would stop
    the host from working ahead.

    Args:
        writer: writer of metrics.jsonl and timing.jsonl.
        progress: progress line of the user.
        nonfinite: judge of the steps that the device masked.
        batch_size: examples of a step.
        rows: steps that an interrupted run had not written yet; None for none.
    """

    def __init__(
        self,
        writer: MetricWriter | NoWriter,
        progress: Progress,
        nonfinite: NonfiniteSteps,
        *,
        batch_size: int,
        rows: Sequence[Row] | None = None,
    ) -> None:
        """Start the clock of the first line."""
        self._writer, self._progress = writer, progress
        self._nonfinite, self._batch_size = nonfinite, batch_size
        self._rows: list[Row] = list(rows or ())
        self._on_device: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self._rate = 0.0
        self._loss: float | None = None

    def add(self, metrics: dict[str, Any], *, learning_rate: float) -> None:
        """Keep the metrics of one step; let the host be two steps ahead at most.

        The speed that is shown is then the device's, and no queue of batches grows.
        """
        self._on_device.append(metrics)
        self._rate = float(learning_rate)
        if len(self._on_device) > 2:
            jax.block_until_ready(self._on_device[-3])

    def pending(self, step: int) -> list[Row]:
        """Wait for the steps that are not written yet, ``step`` the last of them.

        Returns:
            One JSON-able row per step.

        Raises:
            RunError: a step is not finite, and may not be skipped.
        """
        fetched = jax.device_get(self._on_device)
        self._on_device = []
        for number, row in enumerate(fetched, start=step - len(fetched) + 1):
            skipped = self._nonfinite.skips(number, row)
            numbers = {k: float(v) for k, v in row.items() if k != "problems"}
            self._rows.append(None if skipped else numbers)
        return self._rows

    def write_steps(self, step: int) -> None:
        """Write the means of the steps since the last line, ``step`` the last of them.

        Skipped steps do not enter the means; ``skipped_steps`` counts them.

        Raises:
            RunError: a step is not finite, and may not be skipped.
        """
        rows = self.pending(step)
        sound = [row for row in rows if row is not None]
        means = {
            name: float(np.mean([row[name] for row in sound], dtype=np.float64))
            for name in (sound[0] if sound else ())
        }
        self._loss = means.get("loss", self._loss)
        if len(sound) < len(rows):
            means["skipped_steps"] = len(rows) - len(sound)
        self._writer.write(step, "train", {**means, "learning_rate": self._rate})
        seconds = time.monotonic() - self._began
        self._writer.write_timing(
            step,
            {
                "seconds_per_step": seconds / len(rows),
                "images_per_second": self._batch_size * len(rows) / seconds,
                "peak_memory_mib": _peak_memory_mib(),
            },
        )
        self._rows = []
        self._began = time.monotonic()

    def write_scores(self, step: int, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the scores of a validation: numbers by name, for each split."""
        for split, values in scores.items():
            self._writer.write(step, split, values)

    def show_step(self, step: int, *, total: int) -> None:
        """Show a finished step of about ``total`` on the progress line."""
        self._progress.update(step, loss=self._loss, total=total)

    def show_validation(
        self, step: int, *, score: float, line: str, seconds: float
    ) -> None:
        """Show a validation, and leave its time (with saving) out of the speed."""
        self._progress.paused(seconds)
        self._progress.update(step, score=score)
        self._progress.write(line)
        self._began = time.monotonic()

    def record(self) -> dict[str, Any]:
        """Return what a resumed run needs to know, once the lines are on the disk."""
        self._writer.flush()
        return {**self._nonfinite.record(), "metrics_bytes": self._writer.size()}


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
