"""Scores the distance between two surfaces, on the host in float64."""

import math
from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Bool, Float

from unet_jax.metrics.surface_elements import (
    Surface,
    SurfaceDistances,
    checked_spacing,
    surface_distances,
)

_SLACK = 1e-6
"""Relative slack of a tolerance for rounding: 3 * 0.1 mm is within 0.3 mm."""


class SurfaceScores(NamedTuple):
    """Scores from `surface_scores`.

    Attributes:
        hausdorff: largest distance.
        hd95: distance within which 95 % of each surface lie.
        assd: mean distance of both surfaces.
        nsd: fraction of both surfaces within the tolerance.
    """

    hausdorff: float
    hd95: float
    assd: float
    nsd: float


def hausdorff(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    surface: Surface = "area",
) -> float:
    """Hausdorff distance: the largest distance between two surfaces.

    ``max(max d(L, P), max d(P, L))``: d(L, P) are the distances of the surface elements
    of the label to the surface of the prediction, d(P, L) those in the other direction.

    Args:
        prediction: predicted mask, 2-D or 3-D.
        label: true mask.
        spacing: size of a pixel on each axis in mm, or ones for distances in pixels.
        surface: "area" for surface elements between pixels, "voxel" for border pixels.

    Returns: The distance in the unit of the spacing; the image diagonal where one mask
        is empty, NaN where both are.
    Raises: ValueError: a mask is not 2-D or 3-D, or the spacing does not fit.
    Source: Huttenlocher et al. 1993, "Comparing images using the Hausdorff distance".

    Example:
        >>> label = np.zeros((9, 9), bool)
        >>> label[2:6, 2:6] = True
        >>> prediction = label.copy()
        >>> prediction[6:8, 4] = True
        >>> hausdorff(prediction=prediction, label=label, spacing=(0.5, 1.0))
        1.0
    """
    return _scores(prediction, label, spacing, surface).hausdorff


def hausdorff_95(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    surface: Surface = "area",
) -> float:
    """95th percentile Hausdorff distance, weighted by surface area.

    ``max(q(d(L, P)), q(d(P, L)))`` with the distances d of `hausdorff`. q is the
    smallest distance within which 95 % of the surface area lies; for border pixels it
    is the percentile that interpolates between two of them.

    Args:
        prediction, label, spacing: as for `hausdorff`.
        surface: "area" for surface elements between pixels (as surface-distance of
            DeepMind), "voxel" for border pixels (as MONAI).

    Returns: The distance in the unit of the spacing; the image diagonal where one mask
        is empty, NaN where both are.
    Raises: ValueError: a mask is not 2-D or 3-D, or the spacing does not fit.
    Source: Nikolov et al. 2021, and Huttenlocher et al. 1993.

    Example:
        >>> label = np.zeros((9, 9), bool)
        >>> label[2:6, 2:6] = True
        >>> moved = np.roll(label, 2, axis=0)
        >>> hausdorff_95(prediction=moved, label=label, spacing=(0.5, 1.0))
        1.0
    """
    return _scores(prediction, label, spacing, surface).hd95


def average_symmetric_surface_distance(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    surface: Surface = "area",
) -> float:
    """Mean distance of both surfaces to each other (ASSD).

    ``(sum a_L d(L, P) + sum a_P d(P, L)) / (A_L + A_P)`` with a the area of an element
    (1 for border pixels), A their sum, and d its distance to the other surface.

    Args:
        prediction, label, spacing, surface: as for `hausdorff`.

    Returns: The distance in the unit of the spacing; the image diagonal where one mask
        is empty, NaN where both are.
    Raises: ValueError: a mask is not 2-D or 3-D, or the spacing does not fit.
    Source: Heimann et al. 2009, "Comparison and evaluation of methods for liver
        segmentation from CT datasets".

    Example:
        >>> label = np.zeros((9, 9), bool)
        >>> label[2:6, 2:6] = True
        >>> average_symmetric_surface_distance(
        ...     prediction=label, label=label, spacing=(0.5, 1.0)
        ... )
        0.0
    """
    return _scores(prediction, label, spacing, surface).assd


def normalized_surface_dice(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    tolerance: SupportsFloat,
    surface: Surface = "area",
) -> float:
    """Fraction of both surfaces that lies within a tolerance of the other.

    ``(A_L(d <= t) + A_P(d <= t)) / (A_L + A_P)`` with A the area of the surface of the
    label and of the prediction, d the distance to the other surface, and t the
    tolerance. A distance may exceed t by one part in a million, for rounding.

    Args:
        prediction, label, spacing, surface: as for `hausdorff`.
        tolerance: largest distance that counts as agreement, in the unit of the
            spacing.

    Returns: A value in [0, 1]; 0 where one mask is empty, NaN where both are.
    Raises: ValueError: a mask is not 2-D or 3-D, the spacing does not fit, or the
        tolerance is negative.
    Source: Nikolov et al. 2021, "surface DSC".

    Example:
        >>> label = np.zeros((9, 9), bool)
        >>> label[2:6, 2:6] = True
        >>> moved = np.roll(label, 2, axis=0)
        >>> normalized_surface_dice(
        ...     prediction=moved, label=label, spacing=(0.5, 1.0), tolerance=1.0
        ... )
        1.0
    """
    return _scores(prediction, label, spacing, surface, tolerance).nsd


def surface_scores(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    tolerance: SupportsFloat,
    surface: Surface = "area",
) -> SurfaceScores:
    """Compute all scores of two surfaces in one pass over the masks.

    Args:
        tolerance: as for `normalized_surface_dice`.
        prediction, label, spacing, surface: as for `hausdorff`.

    Returns: The values of `hausdorff`, `hausdorff_95`,
        `average_symmetric_surface_distance` and `normalized_surface_dice`.
    Raises: ValueError: a mask is not 2-D or 3-D, the spacing does not fit, the surface
        is unknown, or the tolerance is negative.
    """
    return _scores(prediction, label, spacing, surface, tolerance)


def _scores(
    prediction: np.ndarray,
    label: np.ndarray,
    spacing: Sequence[SupportsFloat],
    surface: Surface,
    tolerance: SupportsFloat = 0.0,
) -> SurfaceScores:
    """Compute all scores."""
    sizes = checked_spacing(label.ndim, spacing)
    reach = float(tolerance) * (1 + _SLACK)
    if reach < 0:
        raise ValueError(f"found tolerance={tolerance}, expected 0 or more")
    present = int(prediction.any()) + int(label.any())
    if present == 0:
        return SurfaceScores(math.nan, math.nan, math.nan, math.nan)
    if present == 1:
        diagonal = math.hypot(*np.multiply(label.shape, sizes))
        return SurfaceScores(diagonal, diagonal, diagonal, 0.0)
    found = surface_distances(
        prediction=prediction, label=label, spacing=spacing, surface=surface
    )
    area = found.label_areas.sum() + found.prediction_areas.sum()
    within = (
        found.label_areas[found.from_label <= reach].sum()
        + found.prediction_areas[found.from_prediction <= reach].sum()
    )
    total = np.sum(found.from_label * found.label_areas) + np.sum(
        found.from_prediction * found.prediction_areas
    )
    return SurfaceScores(
        hausdorff=float(max(found.from_label.max(), found.from_prediction.max())),
        hd95=_hd95(found, surface),
        assd=float(total / area),
        # Rounding: the two sums add in different orders.
        nsd=min(float(within / area), 1.0),
    )


def _hd95(found: SurfaceDistances, surface: Surface) -> float:
    """Larger percentile of the two directions."""
    if surface == "voxel":
        distances = (found.from_label, found.from_prediction)
        return max(float(np.percentile(each, 95)) for each in distances)
    return max(
        _percentile(found.from_label, found.label_areas, 0.95),
        _percentile(found.from_prediction, found.prediction_areas, 0.95),
    )


def _percentile(
    distances: Float[np.ndarray, " elements"],
    areas: Float[np.ndarray, " elements"],
    fraction: float,
) -> float:
    """Smallest distance within which a fraction of the area lies."""
    order = np.argsort(distances, kind="stable")
    cumulative = np.cumsum(areas[order])
    index = int(np.searchsorted(cumulative / cumulative[-1], fraction))
    return float(distances[order][index])
