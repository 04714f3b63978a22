"""Makes pairs of large masks of one organ, for surface scores."""

import numpy as np
from scipy import ndimage

SIZE = 256

PREDICTIONS = ("close", "3_mm_off", "another_shape", "noise")
"""From a good prediction to one that no network gives: 1 % of all voxels at random."""


def organ(*, seed: int, growth: float = 0.0) -> np.ndarray:
    """Make a lumpy ellipsoid about 200 voxels across.

    Args:
        seed: seed of its lumps.
        growth: fraction by which it is larger.

    Returns:
        A mask ``(SIZE, SIZE, SIZE)``.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 3, indexing="ij", sparse=True)
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.6) ** 2 + (z / 0.7) ** 2)
    lumps = ndimage.zoom(rng.normal(size=(10, 10, 10)), SIZE / 10, order=1)
    return radius + 0.12 * lumps < 1 + growth


def prediction(name: str) -> np.ndarray:
    """Make a mask to compare with ``organ(seed=0)``.

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
