"""Times HD95, NSD and Dice of a pair of masks, as evaluation computes them."""

import pathlib
from typing import Any

import numpy as np

from benchmarks import masks
from benchmarks.ours import nets
from benchmarks.worker import Task
from unet_jax.metrics.overlap import dice_from_counts
from unet_jax.metrics.surface import surface_scores
from unet_jax.metrics.volume_counts import slice_counts


def prepare(*, folder: pathlib.Path, work: dict[str, Any]) -> Task:
    """Make the task: one call is one pair.

    Args:
        folder: shared with the peer.
        work: ``prediction`` of ``masks``, ``spacing``, ``tolerance``, ``surface``.
    """
    label, predicted = masks.organ(seed=0), masks.prediction(work["prediction"])
    np.savez(folder / nets.GIVEN, label=label, prediction=predicted)

    def scores() -> np.ndarray:
        found = surface_scores(
            prediction=predicted,
            label=label,
            spacing=work["spacing"],
            tolerance=work["tolerance"],
            surface=work["surface"],
        )
        counts = slice_counts(predicted, label, axis=None, num_classes=2)
        dice = np.asarray(dice_from_counts(counts))[0, 1]
        return np.array([found.hd95, found.nsd, dice])

    return Task(
        run=lambda calls: [scores() for _ in range(calls)] and None,
        facts={},
        outputs=lambda: {"hd95_nsd_dice": scores()},
        packages=(*nets.PACKAGES, "scipy"),
    )
