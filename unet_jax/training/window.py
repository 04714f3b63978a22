"""The metrics of the steps between two lines of metrics.jsonl."""

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from unet_jax.errors import RunError
from unet_jax.report.writer import MetricWriter, NoWriter


class MetricWindow:
    """The steps since the last line of metrics.jsonl, averaged when it is written.

    Metrics stay on the device until then: reading them each step would stop the host
    from working ahead.
    """

    def __init__(
        self, batch_size: int, *, rows: Sequence[Mapping[str, float]] | None = None
    ) -> None:
        """Begin a window.

        Args:
            batch_size: images of a step.
            rows: of the steps that an interrupted run had in it; None for none.
        """
        self._batch_size = batch_size
        self._metrics: list[Mapping[str, Any]] = list(rows or ())
        self._began = time.monotonic()
        self._rate = 0.0
        self.last_loss: float | None = None

    def add(self, metrics: dict[str, jax.Array], *, learning_rate: float) -> None:
        """Keep the metrics of one step; let the host be two steps ahead at most.

        So the speed that is shown is the device's, and no queue of batches grows.
        """
        self._metrics.append(metrics)
        self._rate = float(learning_rate)
        if len(self._metrics) > 2:
            jax.block_until_ready(self._metrics[-3])

    def write(
        self,
        step: int,
        writer: MetricWriter | NoWriter,
        *,
        last_good: Callable[[], str],
    ) -> None:
        """Write the means up to ``step`` and empty the window.

        Args:
            step: the last step added.
            writer: of the run.
            last_good: says in words which checkpoint is whole, for the message.

        Raises:
            RunError: a value of some step is NaN or infinite.
        """
        rows = self.rows(step, last_good=last_good)
        means = {
            name: float(np.mean([row[name] for row in rows], dtype=np.float64))
            for name in rows[0]
        }
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
        self.last_loss = means["loss"]
        self._metrics = []
        self.restart_clock()

    def rows(
        self, step: int, *, last_good: Callable[[], str]
    ) -> list[dict[str, float]]:
        """Wait for the steps in the window, and give the metrics of each.

        Args:
            step: the last step added.
            last_good: says in words which checkpoint is whole, for the message.

        Returns:
            A JSON-able row a step.

        Raises:
            RunError: a value of some step is NaN or infinite.
        """
        rows = [
            {name: float(value) for name, value in row.items()}
            for row in jax.device_get(self._metrics)
        ]
        first = step - len(rows) + 1
        for offset, row in enumerate(rows):
            wrong = [name for name, value in row.items() if not math.isfinite(value)]
            if wrong:
                raise RunError(
                    f"step {first + offset}: {wrong[0]} is {row[wrong[0]]}; "
                    f"{last_good()}; lower optimizer.learning_rate or set "
                    "optimizer.gradient_clip, and check the data"
                )
        return rows

    def restart_clock(self) -> None:
        """Leave out the time that validation took."""
        self._began = time.monotonic()


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
