"""Fills polygons on a grid of pixels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float


def fill_polygons(
    polygons: Sequence[Float[np.ndarray, "corners 2"]], shape: tuple[int, int]
) -> Bool[np.ndarray, "rows columns"]:
    """Return the pixels whose centre is inside an odd number of polygons.

    A polygon inside another one is thus a hole, and the two sides of a channel that
    leads to a hole (a keyhole) cancel each other.

    Args:
        polygons: corners as (row, column); the pixel (0, 0) has its centre at (0, 0),
            and the last corner is joined to the first.
        shape: rows and columns.

    Example:
        >>> square = np.array([[0.5, 0.5], [0.5, 2.5], [2.5, 2.5], [2.5, 0.5]])
        >>> fill_polygons([square], (4, 4)).astype(int).sum(axis=1).tolist()
        [0, 2, 2, 0]
    """
    # An edge that crosses a row at a column toggles all pixels behind that column.
    toggles = np.zeros((shape[0], shape[1] + 1), np.int32)
    for corners in polygons:
        ends = np.stack([corners, np.roll(corners, -1, axis=0)])
        down = ends[0, :, 0] > ends[1, :, 0]
        # From the lower row to the upper one: both directions give the same numbers.
        low, high = np.where(down[:, None], ends[::-1], ends)
        first = np.clip(np.ceil(low[:, 0]), 0, shape[0]).astype(np.int64)
        count = np.clip(np.ceil(high[:, 0]), 0, shape[0]).astype(np.int64) - first
        edge = np.repeat(np.arange(len(count)), count)
        starts = np.repeat(np.cumsum(count) - count, count)
        rows = first[edge] + np.arange(len(edge)) - starts
        (y, x), (height, width) = low[edge].T, (high - low)[edge].T
        columns = np.ceil(x + (rows - y) / height * width)
        np.add.at(toggles, (rows, np.clip(columns, 0, shape[1]).astype(np.int64)), 1)
    filled = np.zeros(shape, bool)
    used = np.flatnonzero(toggles.any(axis=1))
    if used.size:
        part = slice(used[0], used[-1] + 1)
        filled[part] = np.cumsum(toggles[part], axis=1)[:, :-1] % 2
    return filled
