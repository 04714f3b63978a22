"""A network with a fixed input size applied to images of any size.

Windows of one size, laid over the image with overlap, go through the network in fixed
batches (so it is compiled once for all image sizes); their scores are blended with
weights that fall off towards the window's border, where the network sees least.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped

Forward = Callable[[np.ndarray], np.ndarray]
"""``(windows, *window, channels) -> (windows, *window, classes)`` probabilities."""


def window_starts(size: int, window: int, overlap: float) -> tuple[int, ...]:
    """Where the windows of one axis start.

    Args:
        size: pixels of the axis, at least ``window``.
        window: pixels of a window.
        overlap: share of a window that its neighbour covers too, in [0, 1).

    Returns:
        Evenly spread starts: the first is 0, the last ends at the axis' end, and
        neighbours overlap by at least ``overlap``.

    Raises:
        ValueError: the overlap is out of range or the axis is shorter than a window.

    Example:
        >>> window_starts(10, 4, 0.5)
        (0, 2, 4, 6)
        >>> window_starts(4, 4, 0.5)
        (0,)
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: found {overlap}, expected 0 <= overlap < 1")
    if size < window:
        raise ValueError(f"size: found {size}, expected at least the window {window}")
    step = max(1, int(window * (1 - overlap)))
    count = math.ceil((size - window) / step) + 1
    if count == 1:
        return (0,)
    return tuple(round(i * (size - window) / (count - 1)) for i in range(count))


def importance_map(
    window: Sequence[int], *, sigma: float = 0.125
) -> Float[np.ndarray, "*window"]:
    """Gaussian weights of a window's pixels.

    Args:
        window: pixels an axis.
        sigma: standard deviation as a share of the window (1/8 in nnU-Net).

    Returns:
        float32 weights, 1 at most; never so small that a pixel under one window alone
        would lose its value to rounding.
    """
    weights = np.ones((), np.float64)
    for size in window:
        position = np.arange(size) - (size - 1) / 2
        axis = np.exp(-0.5 * (position / (sigma * size)) ** 2)
        weights = np.multiply.outer(weights, axis)
    weights /= weights.max()
    return np.maximum(weights, 1e-3).astype(np.float32)


def predict_probabilities(
    forward: Forward,
    images: Shaped[np.ndarray, "images *spatial channels"],
    *,
    window: Sequence[int],
    num_classes: int,
    overlap: float,
    batch_size: int,
) -> Float[np.ndarray, "images *spatial classes"]:
    """Blend the network's probabilities over each of a stack of images.

    Args:
        forward: the network, always called with ``batch_size`` windows.
        images: one image, or the slices of a volume, of any size.
        window: pixels an axis; an image that is smaller is padded with zeros.
        num_classes: of the network.
        overlap: share of a window that its neighbour covers too.
        batch_size: windows in one call of ``forward``.

    Returns:
        float32 probabilities that sum to 1.
    """
    window = tuple(window)
    spatial = images.shape[1:-1]
    images = _pad_to_window(images, window)
    padded = images.shape[1:-1]
    starts = [
        window_starts(size, extent, overlap)
        for size, extent in zip(padded, window, strict=True)
    ]
    places = list(itertools.product(range(len(images)), *starts))
    importance = importance_map(window)[..., None]
    total = np.zeros((*images.shape[:-1], num_classes), np.float32)
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        regions = [_region(place, window) for place in batch]
        # The last batch is filled up with its own first window: one shape for all.
        filled = regions + [regions[0]] * (batch_size - len(regions))
        scores = forward(np.stack([images[region] for region in filled]))
        for region, score in zip(regions, np.asarray(scores), strict=False):
            total[region] += importance * score
    weight = np.zeros((*padded, 1), np.float32)
    for place in itertools.product(*starts):
        weight[_region((0, *place), window)[1:]] += importance
    total /= weight
    return total[(slice(None), *(slice(0, size) for size in spatial))]


def _region(place: tuple[int, ...], window: tuple[int, ...]) -> tuple:
    """Index of one window in the stack: an image, then a slice an axis."""
    image, *starts = place
    return (
        image,
        *(slice(at, at + n) for at, n in zip(starts, window, strict=True)),
    )


def _pad_to_window(images: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    """Pad the far end of each axis that is shorter than the window."""
    missing = [
        max(0, extent - size)
        for size, extent in zip(images.shape[1:-1], window, strict=True)
    ]
    if not any(missing):
        return images
    return np.pad(images, [(0, 0), *((0, n) for n in missing), (0, 0)])
