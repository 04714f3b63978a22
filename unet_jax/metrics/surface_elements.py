"""The elements of two surfaces, and how far each lies from the other surface."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal, SupportsFloat

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import cKDTree

# The package's tables, not its functions: those call names that SciPy deprecates and
# NumPy 2 no longer has.
from surface_distance import lookup_tables

Surface = Literal["area", "voxel"]
"""What a surface is made of: elements with an area at the corners between pixels, or
the pixels of the mask that have a neighbour outside of it."""

_NEAR = 3
"""Pixels an axis within which the other surface is looked for place by place."""

_NEAR_PLACES = 64
"""Places looked at before the rest is left to a tree: more cost more than they find."""

_DENSE = 1 / 64
"""Share of the places of a box above which one transform of it all is quicker than a
tree, which a place that is as far from everything, such as a centre, keeps busy."""

_TRANSFORMED = 2**26
"""Places of the largest box that is transformed: it takes 12 bytes each."""


@dataclasses.dataclass(frozen=True)
class SurfaceDistances:
    """Surface elements of two masks, each with its distance to the other surface.

    Attributes:
        from_label: distances of the label's elements to the prediction's surface.
        from_prediction: distances of the prediction's elements to the label's surface.
        label_areas: areas of the label's elements (lengths in 2-D; 1 for voxels).
        prediction_areas: areas of the prediction's elements, likewise.
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
    surface: Surface = "area",
) -> SurfaceDistances:
    """Distances between the surfaces of two masks that are both not empty.

    "area": an element lies at each corner of the pixel grid whose 2x2 (2x2x2)
    neighbourhood is mixed; its length (area) is that of the marching-squares (-cubes)
    piece there, scaled by the spacing. "voxel": an element is a pixel of the mask that
    shares an edge (a face) with one outside of it; each weighs 1. Outside the image is
    background.

    Args:
        prediction: the predicted mask, 2-D or 3-D.
        label: the true mask.
        spacing: size of a pixel on each axis, in mm (1 each for distances in pixels).
        surface: what the surfaces are made of.

    Returns:
        Distances in the unit of the spacing, areas in its power.

    Raises:
        ValueError: a mask is empty or not 2-D or 3-D, the spacing does not fit, or
            the surface is unknown.

    Source: Nikolov et al. 2021, "Clinically applicable segmentation of head and neck
    anatomy for radiotherapy", and its code ``surface-distance``; MONAI's
    ``get_mask_edges`` for voxels.
    """
    sizes = checked_spacing(label.ndim, spacing)
    if not (prediction.any() and label.any()):
        raise ValueError("Surface distances need two masks that are not empty.")
    crop = _bounding_box(prediction, label)
    masks = [_padded(mask[crop]) for mask in (label, prediction)]
    match surface:
        case "area":
            found = [_corner_elements(mask, sizes) for mask in masks]
        case "voxel":
            found = [_border_pixels(mask) for mask in masks]
        case _:
            raise ValueError(
                f"Unknown surface {surface!r}; expected one of 'area', 'voxel'."
            )
    (on_label, label_areas), (on_prediction, prediction_areas) = found
    label_places = np.flatnonzero(on_label)
    prediction_places = np.flatnonzero(on_prediction)
    return SurfaceDistances(
        from_label=_distances(label_places, prediction_places, on_prediction, sizes),
        from_prediction=_distances(prediction_places, label_places, on_label, sizes),
        label_areas=label_areas,
        prediction_areas=prediction_areas,
    )


def checked_spacing(ndim: int, spacing: Sequence[SupportsFloat]) -> tuple[float, ...]:
    """Take a spacing as floats.

    Args:
        ndim: axes of the mask.
        spacing: size of a pixel on each axis.

    Returns:
        The sizes.

    Raises:
        ValueError: the mask has not 2 or 3 axes, or the spacing does not fit it.
    """
    if ndim not in (2, 3):
        raise ValueError(f"Surfaces need 2-D or 3-D masks; found {ndim} axes.")
    values = tuple(float(value) for value in spacing)
    if len(values) != ndim or not all(0 < v < math.inf for v in values):
        raise ValueError(
            f"Spacing {values} does not fit a {ndim}-D mask; "
            f"expected {ndim} positive numbers."
        )
    return values


# ---- surfaces ------------------------------------------------------------------------


def _bounding_box(*masks: Bool[np.ndarray, "*spatial"]) -> tuple[slice, ...]:
    """The smallest box around all masks: the rest has no surface and costs time."""
    box: list[slice] = []
    for axis in range(masks[0].ndim):
        others = tuple(a for a in range(masks[0].ndim) if a != axis)
        # What earlier axes cut off need not be read again.
        cut = tuple(box)
        found = np.flatnonzero(
            np.logical_or.reduce([mask[cut].any(axis=others) for mask in masks])
        )
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _padded(mask: Bool[np.ndarray, "*spatial"]) -> np.ndarray:
    """The mask as uint8 with a margin for its surface and for the nearest places."""
    return np.pad(mask, _NEAR + 1).view(np.uint8)


def _corner_elements(
    mask: np.ndarray, sizes: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the grid that a surface goes through, and its area at each of them.

    The code of a corner has a bit for each pixel around it, of which the last pixel's
    is the lowest. It is put together axis by axis.
    """
    codes = mask
    for place, axis in enumerate(reversed(range(mask.ndim))):
        before = (slice(None),) * axis
        higher = np.left_shift(codes[(*before, slice(None, -1))], 1 << place)
        higher |= codes[(*before, slice(1, None))]
        codes = higher
    table = _element_areas(sizes)
    # Code 0 wraps around to 255: one comparison finds what is neither 0 nor all ones.
    mixed = (codes - np.uint8(1)) < np.uint8(len(table) - 2)
    return mixed, table[codes[mixed]]


def _border_pixels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a mask with a neighbour outside of it; each weighs 1."""
    inside = mask.view(bool).copy()
    for axis in range(mask.ndim):
        before = (slice(None),) * axis
        middle = inside[(*before, slice(1, -1))]
        middle &= mask.view(bool)[(*before, slice(2, None))]
        middle &= mask.view(bool)[(*before, slice(None, -2))]
    border = mask.view(bool) & ~inside
    return border, np.ones(int(border.sum()))


@functools.lru_cache(maxsize=32)
def _element_areas(spacing: tuple[float, ...]) -> Float[np.ndarray, " codes"]:
    """Area of the surface element of every neighbourhood code."""
    if len(spacing) == 2:
        return lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
    return lookup_tables.create_table_neighbour_code_to_surface_area(spacing)


# ---- distances -----------------------------------------------------------------------


def _distances(
    places: np.ndarray,
    others: np.ndarray,
    is_other: np.ndarray,
    sizes: tuple[float, ...],
) -> Float[np.ndarray, " places"]:
    """Distance of each place to the nearest of the others.

    Most elements of a good prediction are a few pixels from the label's: those places
    are looked at in the order of their distance. What remains goes to a tree of the
    others, or, where much remains, to a transform of the box. Their answer is a place,
    so that all parts compute a distance in the same way from whole numbers.

    Args:
        places: flat indices into ``is_other``.
        others: flat indices where it is True.
        is_other: the surface, with a margin of ``_NEAR`` in which it is False.
        sizes: of a pixel.
    """
    offsets, lengths = _near_offsets(sizes)
    strides = np.array(is_other.strides) // is_other.itemsize
    flat = is_other.reshape(-1)
    result = np.zeros(len(places))
    rest = np.arange(len(places))
    where = places
    for shift, length in zip(offsets @ strides, lengths, strict=True):
        hit = flat[where + shift]
        result[rest[hit]] = length
        rest, where = rest[~hit], where[~hit]
        if not len(rest):
            return result
    points = np.stack(np.unravel_index(where, is_other.shape), axis=-1)
    if len(where) > _DENSE * is_other.size and is_other.size <= _TRANSFORMED:
        nearest = _nearest_by_transform(points, is_other, sizes)
    else:
        targets = np.stack(np.unravel_index(others, is_other.shape), axis=-1)
        nearest = _nearest_by_tree(points, targets, sizes)
    apart = (points - nearest) * np.array(sizes)
    result[rest] = np.sqrt((apart**2).sum(axis=-1))
    return result


def _nearest_by_tree(
    points: np.ndarray, targets: np.ndarray, sizes: tuple[float, ...]
) -> np.ndarray:
    """The target nearest to each point, ``(points, axes)``."""
    scale = np.array(sizes)
    # Points of a surface are many and spread evenly: a balanced tree only costs time.
    tree = cKDTree(
        targets * scale, leafsize=16, balanced_tree=False, compact_nodes=False
    )
    return targets[tree.query(points * scale, workers=-1)[1]]


def _nearest_by_transform(
    points: np.ndarray, is_target: np.ndarray, sizes: tuple[float, ...]
) -> np.ndarray:
    """The same from the nearest target of every place of the box."""
    nearest = ndimage.distance_transform_edt(
        ~is_target, sampling=sizes, return_distances=False, return_indices=True
    )
    return np.stack([axis[tuple(points.T)] for axis in nearest], axis=-1)


@functools.lru_cache(maxsize=32)
def _near_offsets(sizes: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Steps to the nearest places and their lengths, nearest first.

    None is left out that is nearer than the last: a step of more than ``_NEAR`` pixels
    along any axis is longer than all of these.
    """
    reach = range(-_NEAR, _NEAR + 1)
    offsets = np.array(list(itertools.product(reach, repeat=len(sizes))))
    lengths = np.sqrt(((offsets * np.array(sizes)) ** 2).sum(axis=-1))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] < (_NEAR + 1) * min(sizes)][:_NEAR_PLACES]
    return offsets[order], lengths[order]
