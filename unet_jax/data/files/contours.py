"""Writes the outlines of a label map as GeoJSON, exact at the edges of pixels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from unet_jax.runtime.atomic import atomic_path

Ring = list[list[int]]


def write_contours(
    path: str | Path,
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    class_colors: Sequence[Sequence[int]],
    slice_axis: int | None = None,
) -> None:
    """Write the outline of every connected region, in the form that QuPath reads.

    A coordinate is (column, row) of a corner of a pixel: the pixel in the first row and
    column is the square from (0, 0) to (1, 1). Regions are connected by sides.

    Args:
        path: the file; it appears complete or not at all.
        labels: ``(*spatial)`` class indices.
        class_names: name of each class; the background has no outlines.
        slice_axis: axis across the slices of a volume, which are outlined one by one.
    """
    planes: list[tuple[int | None, np.ndarray]] = [(None, labels)]
    if labels.ndim == 3:
        stack = np.moveaxis(labels, slice_axis or 0, 0)
        planes = [(plane, stack[plane]) for plane in range(len(stack))]
    features = [
        _feature(rings, pixels, plane, class_names[index], class_colors[index])
        for plane, picture in planes
        for index in range(1, len(class_names))
        for rings, pixels in _regions(picture == index)
    ]
    content = {"type": "FeatureCollection", "features": features}
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps(content) + "\n")


def _feature(
    rings: list[Ring], pixels: int, plane: int | None, name: str, color: Sequence[int]
) -> dict[str, Any]:
    """Describe one region."""
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": name, "color": list(color)},
        "pixels": pixels,
    }
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings}
    if plane is not None:
        properties["slice"] = plane
        geometry["plane"] = {"c": -1, "z": plane, "t": 0}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _regions(mask: np.ndarray) -> list[tuple[list[Ring], int]]:
    """Outline every region of a picture: the outer ring first, then its holes."""
    regions, count = ndimage.label(mask)
    result = []
    for index, box in enumerate(ndimage.find_objects(regions), start=1):
        region = regions[box] == index
        offset = (box[1].start, box[0].start)
        rings = [
            [[x + offset[0], y + offset[1]] for x, y in ring] for ring in _rings(region)
        ]
        # The outer ring has the largest box.
        rings.sort(key=_extent, reverse=True)
        result.append((rings, int(region.sum())))
    assert len(result) == count
    return result


def _extent(ring: Ring) -> int:
    """Return the area of the box around a ring."""
    xs, ys = zip(*ring, strict=True)
    return (max(xs) - min(xs)) * (max(ys) - min(ys))


def _rings(region: np.ndarray) -> list[Ring]:
    """Follow the edges between a region and the rest, with the region on the right."""
    padded = np.pad(region, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Step (rows, columns) from a region pixel to an outside neighbour, and the edge
    # between them, as (column, row) of both ends relative to the pixel's first corner.
    for (down, right), start, stop in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        outside = ~np.roll(padded, (-down, -right), (0, 1))[1:-1, 1:-1]
        for row, column in np.argwhere(region & outside).tolist():
            begin = (column + start[0], row + start[1])
            following.setdefault(begin, []).append((column + stop[0], row + stop[1]))
    rings = []
    while following:
        rings.append(_walk(following))
    return rings


def _walk(following: dict[tuple[int, int], list[tuple[int, int]]]) -> Ring:
    """Follow edges from any corner back to it, remove them, and keep only the turns."""
    start = next(iter(following))
    ring, here, direction = [list(start)], start, (0, 0)
    while True:
        options = following[here]
        # Two edges leave a corner where two pixels touch: turn left, to the other
        # pixel. A ring that passes a corner twice would be no valid outline; so the
        # part behind the corner is a hole, which may touch its outer ring.
        choice = options[0]
        for option in options:
            step = (option[0] - here[0], option[1] - here[1])
            if step == (direction[1], -direction[0]):
                choice = option
        options.remove(choice)
        if not options:
            del following[here]
        step = (choice[0] - here[0], choice[1] - here[1])
        if step == direction:
            ring[-1] = list(choice)
        else:
            ring.append(list(choice))
        here, direction = choice, step
        if here == start:
            return ring
