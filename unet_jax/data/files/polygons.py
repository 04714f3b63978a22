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
    # Edges that leave a row at a column toggle all pixels behind that column.
    toggles = np.zeros((shape[0], shape[1] + 1), np.int64)
    for corners in polygons:
        for start, stop in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            # Both directions of an edge give the same numbers.
            low, high = sorted((tuple(start.tolist()), tuple(stop.tolist())))
            rows = np.arange(
                max(np.ceil(low[0]), 0), min(np.ceil(high[0]), shape[0]), dtype=np.int64
            )
            slope = (high[1] - low[1]) / (high[0] - low[0]) if rows.size else 0.0
            columns = np.ceil(low[1] + (rows - low[0]) * slope)
            columns = np.clip(columns, 0, shape[1]).astype(np.int64)
            toggles[rows, columns] += 1
    return np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
