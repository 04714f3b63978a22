"""Takes a few windows of an image, for statistics of the image."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_jax.inference.sliding_window import window_starts


def sample_windows(image: Any, *, window: Sequence[int], count: int) -> np.ndarray:
    """Cut at most ``count`` of the windows that tile an image, drawn with a fixed seed.

    Windows of one value say nothing and are left out, unless the image has no others.

    Args:
        image: array or view ``(*spatial, channels)``; a smaller one than the window is
            padded with its edge.
        window: size of a window, with an axis of size 1 for slices.
        count: largest number of windows.

    Returns:
        Windows ``(n, *window, channels)``.
    """
    axes = [
        window_starts(max(size, wanted), wanted, 0.0)
        for size, wanted in zip(image.shape, window, strict=False)
    ]
    places = list(itertools.product(*axes))
    # In a random order, since a regular one would meet the same place of each slice.
    order = np.random.default_rng(0).permutation(len(places))[: 4 * count]
    found = [_cut(image, places[index], window) for index in order]
    kept = [one for one in found if one.min() < one.max()] or found
    return np.stack(kept[:count])


def _cut(image: Any, place: Sequence[int], window: Sequence[int]) -> np.ndarray:
    """Cut a window out of an image, padded with its edge."""
    region = tuple(slice(at, at + n) for at, n in zip(place, window, strict=True))
    found = np.asarray(image[region])
    missing = [(0, n - size) for n, size in zip(window, found.shape, strict=False)]
    return np.pad(found, [*missing, (0, 0)], mode="edge")
