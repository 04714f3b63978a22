"""Scores of the distance between two surfaces, on the host in float64."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

# The package's tables, not its functions: those call names that SciPy deprecates and
# NumPy 2 no longer has.
from surface_distance import lookup_tables

_SLACK = 1e-6
"""Relative slack of a tolerance: 3 * 0.1 mm is within 0.3 mm, 1.2 of a header too."""


@dataclasses.dataclass(frozen=True)
class SurfaceDistances:
    """Surface elements of two masks, each with its distance to the other surface.

    Attributes:
        from_label: distances of the label's elements to the prediction's surface.
        from_prediction: distances of the prediction's elements to the label's surface.
        label_areas: areas of the label's elements (lengths in 2-D).
        prediction_areas: areas of the prediction's elements (lengths in 2-D).
    """

    from_label: Float[np.ndarray, " label_elements"]
    from_prediction: Float[np.ndarray, " prediction_elements"]
    label_areas: Float[np.ndarray, " label_elements"]
    prediction_areas: Float[np.ndarray, " prediction_elements"]


def surface_distances(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
) -> SurfaceDistances:
    """Distances between the surfaces of two masks that are both not empty.

    A surface element lies at each corner of the pixel grid whose 2x2 (2x2x2)
    neighbourhood is mixed; its length (area) is that of the marching-squares (-cubes)
    piece there, scaled by the spacing. Outside the image is background.

    Args:
        prediction: the predicted mask, 2-D or 3-D.
        label: the true mask.
        spacing: size of a pixel on each axis, in mm (1 each for distances in pixels).

    Returns:
        Distances in the unit of the spacing, areas in its power.

    Raises:
        ValueError: a mask is empty or not 2-D or 3-D, or the spacing does not fit.

    Source: Nikolov et al. 2021, "Clinically applicable segmentation of head and neck
    anatomy for radiotherapy", and its code ``surface-distance``.
    """
    sizes = _checked_spacing(label.ndim, spacing)
    if not (prediction.any() and label.any()):
        raise ValueError("Surface distances need two masks that are not empty.")
    table, kernel = _element_areas(sizes)
    crop = _bounding_box(prediction | label)
    codes = [_neighbour_codes(mask[crop], kernel) for mask in (label, prediction)]
    on_label, on_prediction = ((c != 0) & (c != len(table) - 1) for c in codes)
    to_label, to_prediction = (
        ndimage.distance_transform_edt(~border, sampling=sizes)
        for border in (on_label, on_prediction)
    )
    return SurfaceDistances(
        from_label=to_prediction[on_label],
        from_prediction=to_label[on_prediction],
        label_areas=table[codes[0][on_label]],
        prediction_areas=table[codes[1][on_prediction]],
    )


def hausdorff_95(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
) -> float:
    """95th percentile Hausdorff distance, weighted by surface area.

    ``max(q(d(L, P)), q(d(P, L)))``: d(L, P) are the distances of the label's surface
    elements to the prediction's surface, and q the least distance within which 95 %
    of the surface area lies.

    Args:
        prediction: the predicted mask, 2-D or 3-D.
        label: the true mask.
        spacing: size of a pixel on each axis, in mm (1 each for distances in pixels).

    Returns:
        The distance in the unit of the spacing; the image diagonal where one mask is
        empty, NaN where both are.

    Raises:
        ValueError: a mask is not 2-D or 3-D, or the spacing does not fit.

    Source: Nikolov et al. 2021, and Huttenlocher et al. 1993.

    Example:
        >>> label = np.zeros((9, 9), bool)
        >>> label[2:6, 2:6] = True
        >>> moved = np.roll(label, 2, axis=0)
        >>> hausdorff_95(prediction=moved, label=label, spacing=(0.5, 1.0))
        1.0
    """
    # The tolerance has no part in the distance.
    return surface_scores(
        prediction=prediction, label=label, spacing=spacing, tolerance=0.0
    )[0]


def normalized_surface_dice(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    tolerance: SupportsFloat,
) -> float:
    """Share of both surfaces that lies within a tolerance of the other.

    ``(A_L(d <= t) + A_P(d <= t)) / (A_L + A_P)`` with A the area of the label's and
    the prediction's surface, d the distance to the other surface, and t the tolerance.
    A distance that exceeds t by rounding alone (one part in a million) is within it.

    Args:
        prediction: the predicted mask, 2-D or 3-D.
        label: the true mask.
        spacing: size of a pixel on each axis, in mm (1 each for distances in pixels).
        tolerance: distance that counts as agreement, in the unit of the spacing.

    Returns:
        A value in [0, 1]; 0 where one mask is empty, NaN where both are.

    Raises:
        ValueError: a mask is not 2-D or 3-D, the spacing does not fit, or the
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
    return surface_scores(
        prediction=prediction, label=label, spacing=spacing, tolerance=tolerance
    )[1]


def surface_scores(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
    spacing: Sequence[SupportsFloat],
    tolerance: SupportsFloat,
) -> tuple[float, float]:
    """`hausdorff_95` and `normalized_surface_dice` from one pass over the masks.

    Args:
        prediction: the predicted mask, 2-D or 3-D.
        label: the true mask.
        spacing: size of a pixel on each axis, in mm (1 each for distances in pixels).
        tolerance: distance that counts as agreement, in the unit of the spacing.

    Returns:
        The distance and the share, as the two functions define them.

    Raises:
        ValueError: a mask is not 2-D or 3-D, the spacing does not fit, or the
            tolerance is negative.
    """
    sizes = _checked_spacing(label.ndim, spacing)
    reach = float(tolerance) * (1 + _SLACK)
    if reach < 0:
        raise ValueError(f"Negative tolerance {tolerance}; expected 0 or more.")
    present = int(prediction.any()) + int(label.any())
    if present == 0:
        return math.nan, math.nan
    if present == 1:
        return math.hypot(*np.multiply(label.shape, sizes)), 0.0
    found = surface_distances(prediction=prediction, label=label, spacing=spacing)
    distance = max(
        _percentile(found.from_label, found.label_areas, 0.95),
        _percentile(found.from_prediction, found.prediction_areas, 0.95),
    )
    within = (
        found.label_areas[found.from_label <= reach].sum()
        + found.prediction_areas[found.from_prediction <= reach].sum()
    )
    area = found.label_areas.sum() + found.prediction_areas.sum()
    # The two sums add in different orders and may differ in the last bit.
    return distance, min(float(within / area), 1.0)


def _checked_spacing(ndim: int, spacing: Sequence[SupportsFloat]) -> tuple[float, ...]:
    """The spacing as floats, if it fits a mask of 2 or 3 axes."""
    if ndim not in (2, 3):
        raise ValueError(f"Surfaces need 2-D or 3-D masks; found {ndim} axes.")
    values = tuple(float(value) for value in spacing)
    if len(values) != ndim or not all(0 < v < math.inf for v in values):
        raise ValueError(
            f"Spacing {values} does not fit a {ndim}-D mask; "
            f"expected {ndim} positive numbers."
        )
    return values


@functools.lru_cache(maxsize=32)
def _element_areas(
    spacing: tuple[float, ...],
) -> tuple[Float[np.ndarray, " codes"], np.ndarray]:
    """Area of the surface element of every neighbourhood code, and the code's bits."""
    if len(spacing) == 2:
        table = lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
        return table, lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL
    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    return table, lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL


def _bounding_box(mask: Bool[np.ndarray, "*spatial"]) -> tuple[slice, ...]:
    """The smallest box around a mask: the rest has no surface and costs time."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _neighbour_codes(
    mask: Bool[np.ndarray, "*spatial"], kernel: np.ndarray
) -> np.ndarray:
    """Code of the 2x2(x2) neighbourhood of every grid corner, one more an axis."""
    padded = np.pad(mask.astype(np.uint8), [(0, 1)] * mask.ndim)
    return ndimage.correlate(padded, kernel, mode="constant", cval=0)


def _percentile(
    distances: Float[np.ndarray, " elements"],
    areas: Float[np.ndarray, " elements"],
    share: float,
) -> float:
    """The least distance within which a share of the area lies."""
    order = np.lexsort((areas, distances))
    cumulative = np.cumsum(areas[order])
    index = int(np.searchsorted(cumulative / cumulative[-1], share))
    return float(distances[order][index])
