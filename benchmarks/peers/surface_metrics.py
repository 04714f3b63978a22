"""Times HD95, NSD and Dice of a pair of masks, by the packages that define them."""

import pathlib
import warnings
from typing import Any

import numpy as np

from benchmarks.peers import modes
from benchmarks.worker import Task


def prepare(*, folder: pathlib.Path, work: dict[str, Any], mode: str) -> Task:
    """Make the task: one call is one pair.

    Args:
        folder: shared with ours.
        work: description of the case's work.
        mode: "surface_distance" or "monai".
    """
    modes.use_cores()
    # Its code names what SciPy deprecates, once a call.
    warnings.simplefilter("ignore", DeprecationWarning)
    with np.load(folder / "given.npz") as given:
        label, predicted = given["label"], given["prediction"]
    score, packages = {
        "surface_distance": (_deepmind, ("surface-distance", "numpy", "scipy")),
        "monai": (_monai, ("monai", "torch", "numpy", "scipy")),
    }[mode]

    def scores() -> np.ndarray:
        spacing, tolerance = work["spacing"], work["tolerance"]
        return np.array(score(predicted, label, spacing, tolerance))

    return Task(
        run=lambda calls: [scores() for _ in range(calls)] and None,
        facts={},
        outputs=lambda: {"hd95_nsd_dice": scores()},
        packages=packages,
    )


def _deepmind(
    prediction: np.ndarray, label: np.ndarray, spacing: list[float], tolerance: float
) -> tuple[float, float, float]:
    """Compute both surface scores from one pass, as the package intends."""
    import surface_distance

    found = surface_distance.compute_surface_distances(label, prediction, spacing)
    return (
        surface_distance.compute_robust_hausdorff(found, 95),
        surface_distance.compute_surface_dice_at_tolerance(found, tolerance),
        surface_distance.compute_dice_coefficient(label, prediction),
    )


def _monai(
    prediction: np.ndarray, label: np.ndarray, spacing: list[float], tolerance: float
) -> tuple[float, float, float]:
    """Compute all scores; MONAI has no function for several of them."""
    import torch
    from monai.metrics import (
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, label)]
    distance = compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=spacing
    )
    nsd = compute_surface_dice(
        *pair, class_thresholds=[tolerance], include_background=True, spacing=spacing
    )
    dice = compute_dice(*pair, include_background=True)
    return distance.item(), nsd.item(), dice.item()
