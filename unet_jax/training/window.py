"""The metrics of the steps between two lines of metrics.jsonl."""

import resource
import time

import jax
import numpy as np

from unet_jax.report.writer import MetricWriter
from unet_jax.training.faults import NonfiniteSteps


class MetricWindow:
    """The steps since the last line of metrics.jsonl, averaged when it is written.

    Metrics stay on the device until then: reading them each step would stop the host
    from working ahead.
    """

    def __init__(self, batch_size: int, nonfinite: NonfiniteSteps) -> None:
        """Begin an empty window.

        Args:
            batch_size: images of a step.
            nonfinite: judges the steps that the device masked.
        """
        self._batch_size = batch_size
        self._nonfinite = nonfinite
        self._metrics: list[dict[str, jax.Array]] = []
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

    def write(self, step: int, writer: MetricWriter, *, last_good: int | None) -> None:
        """Write the means up to ``step`` and empty the window.

        Steps that are left out do not enter them; they are counted as
        ``skipped_steps`` where there are some.

        Args:
            step: the last step added.
            writer: of the run.
            last_good: step of the last checkpoint, for the message; None for none.

        Raises:
            RunError: a value of some step is NaN or infinite, and may not be.
        """
        rows = jax.device_get(self._metrics)
        first = step - len(rows) + 1
        sound = [
            row
            for number, row in enumerate(rows, start=first)
            if not self._nonfinite.leaves_out(number, row, last_good=last_good)
        ]
        means = {
            name: float(np.mean([row[name] for row in sound], dtype=np.float64))
            for name in (sound[0] if sound else ())
            if name != "faults"
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
        self._metrics = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out the time that validation took."""
        self._began = time.monotonic()


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
