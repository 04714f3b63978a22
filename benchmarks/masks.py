"""Pairs of large masks of one organ, for scores of surfaces."""

import numpy as np
from scipy import ndimage

SIZE = 256

PREDICTIONS = ("close", "3_mm_off", "another_shape", "noise")
"""From one that is good to what no network gives: 1 % of all voxels at random."""


def organ(*, seed: int, growth: float = 0.0) -> np.ndarray:
    """A lumpy ellipsoid of some 200 voxels across.

    Args:
        seed: of its lumps.
        growth: share by which it is larger.

    Returns:
        A mask ``(SIZE, SIZE, SIZE)``.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 3, indexing="ij", sparse=True)
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.6) ** 2 + (z / 0.7) ** 2)
    lumps = ndimage.zoom(rng.normal(size=(10, 10, 10)), SIZE / 10, order=1)
    return radius + 0.12 * lumps < 1 + growth


def prediction(name: str) -> np.ndarray:
    """A mask to hold against ``organ(seed=0)``.

    Args:
        name: one of ``PREDICTIONS``.
    """
    match name:
        case "close":
            return organ(seed=0, growth=0.01)
        case "3_mm_off":
            return organ(seed=0, growth=0.04)
        case "another_shape":
            return organ(seed=5)
        case "noise":
            return np.random.default_rng(0).random((SIZE,) * 3) < 0.01
    raise ValueError(f"prediction: found {name!r}, expected one of {PREDICTIONS}")
