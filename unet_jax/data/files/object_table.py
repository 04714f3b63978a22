"""Counts and measures the connected objects of label maps."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet_jax.data.files.label_table import rounded

MOST_PIXELS = 2**27
"""Largest box around a class, in pixels, in which objects are counted: 512 MiB."""
MOST_OBJECTS = 10_000
"""Largest number of objects of a class that are measured; more are noise."""

_AXES = range(3)
COLUMNS = (
    *("file", "class", "object", "pixels", "area_mm2", "volume_mm3"),
    *(f"centroid_{axis}" for axis in _AXES),
    *(f"box_start_{axis}" for axis in _AXES),
    *(f"box_stop_{axis}" for axis in _AXES),
    *("unit", "equivalent_diameter", "major_axis", "minor_axis", "eccentricity"),
    "touches_border",
)
"""Columns of objects.csv."""


class Objects(NamedTuple):
    """Objects of the classes of an image.

    Attributes:
        rows: a row for each object, with the keys `COLUMNS`; "" for an unknown value.
        counts: number of objects of each class by name; "" where they are not counted.
        left_out: why objects of a class have no rows, in words, by class.
    """

    rows: list[dict[str, object]]
    counts: dict[str, object]
    left_out: dict[str, str]


def find_objects(
    labels: np.ndarray,
    spacing: tuple[float, ...] | None,
    *,
    file: str,
    class_names: Sequence[str],
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Objects:
    """Count the objects of each class above 0, and measure them.

    An object is a connected component; pixels that touch at a corner are connected. A
    class takes 5 bytes for each pixel of its box while it is measured.

    Args:
        labels: ``(*spatial)`` class indices, two or three axes.
        spacing: millimetres of a pixel along each axis, or None.
        file: text of the column "file".
        class_names: name of each class index.
        regions: classes of each region by name, instead of the classes; None for them.
    """
    groups = regions or {n: (i,) for i, n in enumerate(class_names) if i}
    found = Objects([], {}, {})
    for name, classes in groups.items():
        # Boxes of single classes need no mask of the whole image.
        boxes = [one for one in _boxes(labels, classes) if one is not None]
        if not boxes:
            found.counts[name] = 0
            continue
        box = tuple(
            slice(min(one[a].start for one in boxes), max(one[a].stop for one in boxes))
            for a in range(labels.ndim)
        )
        pixels = math.prod(side.stop - side.start for side in box)
        if pixels > MOST_PIXELS:
            found.counts[name] = ""
            found.left_out[name] = f"its box has {pixels} pixels, over {MOST_PIXELS}"
            continue
        part = labels[box]
        mask = part == classes[0] if len(classes) == 1 else np.isin(part, classes)
        components, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        found.counts[name] = count
        if count > MOST_OBJECTS:
            found.left_out[name] = f"{count} objects, over {MOST_OBJECTS}"
            continue
        for number, place in enumerate(ndimage.find_objects(components), start=1):
            start = [side.start + at.start for side, at in zip(box, place, strict=True)]
            row = _measured(components[place] == number, start, labels.shape, spacing)
            head = {"file": file, "class": name, "object": number}
            found.rows.append(dict.fromkeys(COLUMNS, "") | head | row)
    return found


def _boxes(
    labels: np.ndarray, classes: Sequence[int]
) -> list[tuple[slice, ...] | None]:
    """Return the box around each class; None for a class that is absent."""
    every = ndimage.find_objects(labels, max(classes))
    return [every[one - 1] for one in classes]


def _measured(
    inside: np.ndarray,
    start: Sequence[int],
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
) -> dict[str, object]:
    """Measure one object: its mask in its box, which begins at ``start``."""
    axes = inside.ndim
    steps = np.array(spacing or (1.0,) * axes)
    count = int(inside.sum())
    centre, covariance = _moments(inside)
    spread = np.linalg.eigvalsh(covariance * np.outer(steps, steps)).clip(min=0)
    size = count * float(np.prod(steps))
    row: dict[str, object] = {"pixels": count}
    if spacing is not None:
        row["area_mm2" if axes == 2 else "volume_mm3"] = rounded(size)
    touches = False
    for axis, (first, side) in enumerate(zip(start, inside.shape, strict=True)):
        row[f"centroid_{axis}"] = rounded(first + centre[axis])
        row[f"box_start_{axis}"], row[f"box_stop_{axis}"] = first, first + side
        touches |= first == 0 or first + side == shape[axis]
    # The ellipse, or ellipsoid, of equal second moments; of equal area, or volume.
    length = 4.0 if axes == 2 else math.sqrt(20)
    row["unit"] = "px" if spacing is None else "mm"
    row["equivalent_diameter"] = rounded(
        math.sqrt(4 * size / math.pi) if axes == 2 else math.cbrt(6 * size / math.pi)
    )
    row["major_axis"] = rounded(length * math.sqrt(spread[-1]))
    row["minor_axis"] = rounded(length * math.sqrt(spread[0]))
    if axes == 2:
        ratio = spread[0] / spread[1] if spread[1] > 0 else 1.0
        row["eccentricity"] = rounded(math.sqrt(1 - ratio))
    row["touches_border"] = "yes" if touches else "no"
    return row


def _moments(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the indices of the pixels of a mask.

    They come from projections of the mask. ``skimage.measure.regionprops`` gives the
    same, but takes some 50 bytes for each pixel of an object.
    """
    axes = range(inside.ndim)
    total = inside.sum()
    places = [np.arange(side) for side in inside.shape]
    mean = np.zeros(inside.ndim)
    covariance = np.zeros((inside.ndim, inside.ndim))
    for axis in axes:
        counts = inside.sum(axis=tuple(a for a in axes if a != axis))
        mean[axis] = counts @ places[axis] / total
        covariance[axis, axis] = counts @ (places[axis] - mean[axis]) ** 2 / total
    for a in axes:
        for b in range(a):
            counts = inside.sum(axis=tuple(c for c in axes if c not in (a, b)))
            product = (places[b] - mean[b]) @ counts @ (places[a] - mean[a])
            covariance[a, b] = covariance[b, a] = product / total
    return mean, covariance
