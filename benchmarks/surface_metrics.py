"""Times HD95 and NSD of pairs of masks of 256 x 256 x 256, ours against each peer.

    python -m benchmarks.surface_metrics  # or some rows: ... noise

needs the extra ``bench``. Area-weighted elements are compared with DeepMind's
``surface-distance``, border voxels with MONAI. Ours and the peer take turns in one run,
which prints median and range of the repeats and the ratio. The values must agree.
"""

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import surface_distance
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from benchmarks.masks import PREDICTIONS, organ, prediction
from unet_jax.metrics.surface import surface_scores

SPACING, TOLERANCE = (0.9, 0.9, 1.5), 1.0
REPEATS = 5


def main() -> None:
    """Print a row for each pair of masks and peer."""
    # Its code names what SciPy deprecates, once a call.
    warnings.simplefilter("ignore", DeprecationWarning)
    label = organ(seed=0)
    print(f"{'prediction':<14}{'peer':<18}{'ours s':<26}{'peer s':<26}ratio")
    for name in sys.argv[1:] or PREDICTIONS:
        predicted = prediction(name)
        for peer, theirs, surface in (
            ("surface-distance", _deepmind, "area"),
            ("MONAI", _monai, "voxel"),
        ):

            def ours(prediction, label, surface=surface):
                scores = surface_scores(
                    prediction=prediction,
                    label=label,
                    spacing=SPACING,
                    tolerance=TOLERANCE,
                    surface=surface,
                )
                return scores.hd95, scores.nsd

            times = _alternate(ours, theirs, predicted, label)
            ratio = np.median(times[1]) / np.median(times[0])
            cells = "".join(f"{_spread(seconds):<26}" for seconds in times)
            print(f"{name:<14}{peer:<18}{cells}{ratio:.1f}", flush=True)


def _alternate(ours: Callable, theirs: Callable, *masks: np.ndarray) -> list[list]:
    """Seconds of each, taking turns after one call that is not counted."""
    np.testing.assert_allclose(ours(*masks), theirs(*masks), rtol=1e-6)
    times: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for kept, function in zip(times, (ours, theirs), strict=True):
            began = time.perf_counter()
            function(*masks)
            kept.append(time.perf_counter() - began)
    return times


def _spread(seconds: list[float]) -> str:
    """Median with the range."""
    return f"{np.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def _deepmind(prediction: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Both scores from one pass, as the package means them to be made."""
    found = surface_distance.compute_surface_distances(label, prediction, SPACING)
    return (
        surface_distance.compute_robust_hausdorff(found, 95),
        surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE),
    )


def _monai(prediction: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Both scores; MONAI has no function for the two together."""
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, label)]
    distance = compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=SPACING
    )
    dice = compute_surface_dice(
        *pair, class_thresholds=[TOLERANCE], include_background=True, spacing=SPACING
    )
    return distance.item(), dice.item()


if __name__ == "__main__":
    main()
