"""Finds the elements of two surfaces and their distances to the other surface."""

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

# Only the tables of this package are used: its functions need names that NumPy 2 has
# removed and SciPy deprecates.
from surface_distance import lookup_tables

Surface = Literal["area", "voxel"]
"""Elements of a surface: "area" for pieces with an area at the corners between pixels,
"voxel" for the pixels of the mask that have a neighbour outside of it."""

_NEAR = 3
"""Pixels along each axis within which the other surface is searched step by step."""

_NEAR_PLACES = 64
"""Number of near places to search; more of them would be slower than the tree."""

_DENSE = 1 / 64
"""Fraction of the places of a box above which one distance transform of the box is
faster than a tree, which is slow for places with many equally distant neighbours."""

_TRANSFORMED = 2**26
"""Places of the largest box that is transformed; each takes 12 bytes."""


@dataclasses.dataclass(frozen=True)
class SurfaceDistances:
    """Surface elements of two masks, each with its distance to the other surface.

    Attributes:
        from_label: distances of the elements of the label to the other surface.
        from_prediction: distances of the elements of the prediction to the other
            surface.
        label_areas: areas of the elements of the label (lengths in 2-D; 1 for voxels).
        prediction_areas: areas of the elements of the prediction (lengths in 2-D; 1 for
            voxels).
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
    """Compute the distances between the surfaces of two masks, neither of them empty.

    "area": an element lies at each corner of the pixel grid whose 2x2 (2x2x2)
    neighbourhood is mixed; its length (area) is that of the marching-squares (-cubes)
    piece at the corner, scaled by the spacing. "voxel": an element is a pixel of the
    mask that has an edge (a face) in common with a pixel outside of it; its area is 1.
    Everything outside the image is background.

    Args:
        prediction: predicted mask, 2-D or 3-D.
        label: true mask.
        spacing: size of a pixel on each axis in mm, or ones for distances in pixels.
        surface: "area" for surface elements between pixels, "voxel" for border pixels.

    Returns: Distances in the unit of the spacing, areas in its square (lengths in 2-D).
    Raises: ValueError: a mask is empty or not 2-D or 3-D, the spacing does not fit, or
        the surface is unknown.
    Source: Nikolov et al. 2021, "Clinically applicable segmentation of head and neck
        anatomy for radiotherapy", and its code ``surface-distance``; MONAI's
        ``get_mask_edges`` for voxels.
    """
    sizes = checked_spacing(label.ndim, spacing)
    if not (prediction.any() and label.any()):
        raise ValueError("found an empty mask, expected two masks with a surface")
    crop = _bounding_box(prediction, label)
    masks = [_padded(mask[crop]) for mask in (label, prediction)]
    match surface:
        case "area":
            found = [_corner_elements(mask, sizes) for mask in masks]
        case "voxel":
            found = [_border_pixels(mask) for mask in masks]
        case _:
            raise ValueError(
                f"unknown surface {surface!r}; expected one of 'area', 'voxel'"
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
    """Convert a spacing to floats and check it.

    Args:
        ndim: number of axes of the mask.
        spacing: size of a pixel on each axis.

    Returns: The size of a pixel on each axis.
    Raises: ValueError: the mask does not have 2 or 3 axes, or the spacing does not fit
        it.
    """
    if ndim not in (2, 3):
        raise ValueError(f"found a mask with {ndim} axes, expected 2 or 3")
    values = tuple(float(value) for value in spacing)
    if len(values) != ndim or not all(0 < v < math.inf for v in values):
        raise ValueError(
            f"found spacing {values} for a {ndim}-D mask, expected {ndim} positive "
            "numbers"
        )
    return values


# ---- surfaces ------------------------------------------------------------------------


def _bounding_box(*masks: Bool[np.ndarray, "*spatial"]) -> tuple[slice, ...]:
    """Smallest box around all masks; the rest has no surface and takes time."""
    box: list[slice] = []
    for axis in range(masks[0].ndim):
        others = tuple(a for a in range(masks[0].ndim) if a != axis)
        # Read only what the cuts along earlier axes left.
        cut = tuple(box)
        found = np.flatnonzero(
            np.logical_or.reduce([mask[cut].any(axis=others) for mask in masks])
        )
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _padded(mask: Bool[np.ndarray, "*spatial"]) -> np.ndarray:
    """Convert a mask to uint8, with a margin for its surface and the near places."""
    return np.pad(mask, _NEAR + 1).view(np.uint8)


def _corner_elements(
    mask: np.ndarray, sizes: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the corners of the grid on a surface, and the area at each of them.

    The code of a corner has a bit for each pixel around it; the lowest bit belongs to
    the last pixel. The code is built axis by axis.
    """
    codes = mask
    for place, axis in enumerate(reversed(range(mask.ndim))):
        before = (slice(None),) * axis
        higher = np.left_shift(codes[(*before, slice(None, -1))], 1 << place)
        higher |= codes[(*before, slice(1, None))]
        codes = higher
    table = _element_areas(sizes)
    # Code 0 wraps around to 255: one comparison excludes both 0 and all ones.
    mixed = (codes - np.uint8(1)) < np.uint8(len(table) - 2)
    return mixed, table[codes[mixed]]


def _border_pixels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels of a mask with a neighbour outside of it; their areas are 1."""
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

    Most elements of a good prediction are a few pixels from an element of the label:
    near places are searched first, in the order of their distance. A tree of the others
    answers for the rest, or, where the rest is large, a distance transform of the box.
    Both return a place, so that every distance is computed from whole numbers.

    Args:
        places: flat indices into ``is_other``.
        others: flat indices where ``is_other`` is True.
        is_other: mask of the other surface, with a margin of ``_NEAR`` pixels.
        sizes: size of a pixel on each axis.
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
    """Find the nearest target of each point with a tree, ``(points, axes)``."""
    scale = np.array(sizes)
    # Points of a surface are many and evenly spread: balancing only takes time.
    tree = cKDTree(
        targets * scale, leafsize=16, balanced_tree=False, compact_nodes=False
    )
    return targets[tree.query(points * scale, workers=-1)[1]]


def _nearest_by_transform(
    points: np.ndarray, is_target: np.ndarray, sizes: tuple[float, ...]
) -> np.ndarray:
    """Find the nearest target of each point with a distance transform of the box."""
    nearest = ndimage.distance_transform_edt(
        ~is_target, sampling=sizes, return_distances=False, return_indices=True
    )
    return np.stack([axis[tuple(points.T)] for axis in nearest], axis=-1)


@functools.lru_cache(maxsize=32)
def _near_offsets(sizes: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the near places and their lengths, nearest first.

    The list has every place up to the largest of its lengths: an offset of more than
    ``_NEAR`` pixels along any axis is longer than all of them.
    """
    reach = range(-_NEAR, _NEAR + 1)
    offsets = np.array(list(itertools.product(reach, repeat=len(sizes))))
    lengths = np.sqrt(((offsets * np.array(sizes)) ** 2).sum(axis=-1))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] < (_NEAR + 1) * min(sizes)][:_NEAR_PLACES]
    return offsets[order], lengths[order]
