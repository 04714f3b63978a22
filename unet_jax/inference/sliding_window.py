"""Applies a network with a fixed input size to images of any size.

Windows of one size cover the image with overlap. They go through the network in batches
of one size, so that it is compiled once for all image sizes. Their scores are blended
with weights that fall off towards the border of a window, where the network sees least.
`sliding_window` returns the scores of an image as an array. `stream_bands` yields them
band by band along the first axis: its memory is that of one row of windows, however
long the image is; with a ``region`` that of a part of the row.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from unet_jax.data.adjacent_slices import AdjacentSlices
from unet_jax.inference.blending import Ring, importance_map, summed_weights

Forward = Callable[[np.ndarray, int], np.ndarray]
"""``(windows, *input_window, channels), wanted -> (windows, *window, classes)`` scores.

``wanted`` is the number of windows whose scores are read; the others fill the batch.
"""


@runtime_checkable
class Image(Protocol):
    """An array, or an object that computes its regions when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)``."""
        ...

    def __getitem__(self, region: Any, /) -> np.ndarray:
        """Return the pixels of a region, one slice an axis, with all channels."""
        ...

    def __array__(self) -> np.ndarray:
        """Return all pixels; an image that has to be padded is read whole."""
        ...


def window_starts(
    size: int, window: int, overlap: float, *, multiple: int = 1, whole: bool = True
) -> tuple[int, ...]:
    """Return where the windows along one axis start.

    Args:
        size: pixels of the axis.
        window: pixels of a window.
        overlap: fraction of a window that its neighbour covers too, in [0, 1).
        multiple: number that divides every start. A network without padding gives the
            same scores in every window only if its coarse grids coincide.
        whole: whether neighbours overlap by whole pixels and at least ``overlap``;
            without, a window of 7 moves by 3.5 pixels on average, as nnU-Net's does.

    Returns:
        Evenly spaced starts. The first is 0. Neighbours overlap by at least
        ``overlap`` where ``multiple`` allows it. The last window ends at the end of the
        axis, or behind it where the axis is shorter or no multiple fits.

    Raises:
        ValueError: the overlap is out of range, or the windows would leave gaps.

    Example:
        >>> window_starts(10, 4, 0.5)
        (0, 2, 4, 6)
        >>> window_starts(4, 4, 0.5)
        (0,)
        >>> window_starts(700, 388, 0.0, multiple=16)
        (0, 320)
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: found {overlap}, expected 0 <= overlap < 1")
    if size > window < multiple:
        raise ValueError(
            f"multiple: windows of {window} at multiples of {multiple} leave gaps in "
            f"{size} pixels; expected a multiple of at most {window}"
        )
    last = max(0, math.ceil((size - window) / multiple))
    step = max(1.0, window * (1 - overlap) / multiple)
    if whole:
        step = math.floor(step)
    count = math.ceil(last / step) + 1
    if count == 1:
        return (0,)
    return tuple(round(i * last / (count - 1)) * multiple for i in range(count))


def sliding_window(
    forward: Callable[[np.ndarray], Any],
    image: Any,
    *,
    window: Sequence[int],
    overlap: float = 0.5,
    batch_size: int = 4,
) -> Float[np.ndarray, "*spatial classes"]:
    """Apply a network to windows of an image and blend their scores.

    Args:
        forward: function ``(batch_size, *window, channels) -> (batch_size, *window,
            classes)``, such as a jitted network. It is always called with
            ``batch_size`` windows; the last batch is filled with copies of a window.
        image: array ``(*spatial, channels)`` of any size. It is padded with zeros up
            to one window.
        window: size of the window, pixels along each spatial axis.
        overlap: fraction of a window that its neighbour covers too, in [0, 1).
        batch_size: number of windows in one call of ``forward``.

    Returns:
        Scores ``(*spatial, classes)``, float32: in each pixel the mean over all windows
        that cover it, weighted by `importance_map`.

    Raises:
        ValueError: the window does not have one size for each spatial axis, the overlap
            is out of range, or the batch size is below 1.

    Example:
        >>> image = np.arange(20, dtype=np.float32).reshape(4, 5, 1)
        >>> def forward(windows):
        ...     return np.concatenate([windows, -windows], axis=-1)
        >>> scores = sliding_window(forward, image, window=(2, 2))
        >>> scores.shape
        (4, 5, 2)
        >>> bool(np.allclose(scores[..., 1], -image[..., 0]))
        True
    """
    image = np.asarray(image)
    if image.ndim != len(window) + 1:
        raise ValueError(
            f"image: found the shape {image.shape}, expected (*spatial, channels) with "
            f"{len(window)} spatial axes, as window {tuple(window)} has"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}, expected 1 or more")
    scores: np.ndarray | None = None
    for first, band in stream_bands(
        lambda windows, _: forward(windows),
        image,
        window=window,
        overlap=overlap,
        batch_size=batch_size,
        copy=False,
    ):
        if scores is None:
            scores = np.empty((*image.shape[:-1], band.shape[-1]), np.float32)
        scores[first : first + len(band)] = band
    assert scores is not None, "an image has at least one window"
    return scores


def stream_bands(
    forward: Forward,
    image: Image,
    *,
    window: Sequence[int],
    overlap: float,
    batch_size: int,
    margin: Sequence[int] | None = None,
    multiple: Sequence[int] | None = None,
    neighbours: tuple[int, int] | None = None,
    copy: bool = True,
    as_nnunet: bool = False,
    region: Sequence[tuple[int, int]] | None = None,
) -> Iterator[tuple[int, Float[np.ndarray, "planes *rest classes"]]]:
    """Blend the scores of a network over an image, band by band along the first axis.

    Arguments that are not named here are those of `sliding_window`.

    Args:
        image: image of any size, padded by reflection where there is a margin.
        window: pixels along each axis that the network gives scores for.
        margin: pixels along each axis that the network needs on each side beyond the
            window; None for none.
        multiple: number along each axis that divides every start; None for 1.
        neighbours: an axis, and the number of neighbours on each side along it that a
            window has as further channels (`AdjacentSlices`); None for none.
        copy: yield copies. Without, a band is overwritten when the next is asked for,
            and no memory is needed for it.
        as_nnunet: place windows, weights and the border of a small image as nnU-Net
            2.8 does: `window_starts` without ``whole``, `importance_map` without
            ``centred``, and half of the border before the image. It computes in
            float16 where this is float32.
        region: (start, stop) of the part to yield along each axis but the first; None
            for all. Only the windows that reach into it are computed, and the scores
            are those that the whole image has there.

    Yields:
        First plane of a band, and the scores of the band ``(planes, *region,
        classes)``, float32 weighted means. The bands come in order, to the last plane.

    Raises:
        ValueError: see `window_starts`.
    """
    axes = len(window)
    window = tuple(window)
    margin = tuple(margin or (0,) * axes)
    spatial = image.shape[:-1]
    starts = [
        window_starts(size, extent, overlap, multiple=step, whole=not as_nnunet)
        for size, extent, step in zip(
            spatial, window, multiple or (1,) * axes, strict=True
        )
    ]
    extents = [line[-1] + size for line, size in zip(starts, window, strict=True)]
    before = tuple(
        (extent - size) // 2 if as_nnunet and not any(margin) else 0
        for extent, size in zip(extents, spatial, strict=True)
    )
    image = _padded(image, extents, margin, before)
    if neighbours is not None:
        image = AdjacentSlices(image, *neighbours)
    inputs = tuple(size + 2 * lost for size, lost in zip(window, margin, strict=True))
    kept = tuple(
        slice(start + first, stop + first)
        for first, (start, stop) in zip(
            before[1:], region or [(0, size) for size in spatial[1:]], strict=True
        )
    )
    reaching = [
        reaching_windows(line, size, (part.start, part.stop))
        for line, size, part in zip(starts[1:], window[1:], kept, strict=True)
    ]
    groups = _row_groups([starts[0], *reaching], batch_size)
    depth = max(rows[-1] - rows[0] for rows in groups) + window[0]
    weights = [
        summed_weights(line, size, centred=not as_nnunet)
        for line, size in zip(starts, window, strict=True)
    ]
    ring = Ring(
        depth,
        kept,
        planes=(before[0], before[0] + spatial[0]),
        weights=weights,
        importance=importance_map(window, centred=not as_nnunet),
    )
    for rows in groups:
        yield from ring.finished(rows[0], copy=copy)
        places = list(itertools.product(rows, *reaching))
        for first in range(0, len(places), batch_size):
            batch = places[first : first + batch_size]
            # The last batch is filled with its own first window: one shape for all.
            filled = batch + [batch[0]] * (batch_size - len(batch))
            regions = (_region(place, inputs) for place in filled)
            windows = np.stack([image[one] for one in regions])
            ring.add(batch, np.asarray(forward(windows, len(batch))))
    yield from ring.finished(extents[0], copy=copy)


def reaching_windows(
    starts: Sequence[int], window: int, part: tuple[int, int]
) -> tuple[int, ...]:
    """Return the starts of the windows that reach into a part of their axis.

    Args:
        starts: starts of all windows, from `window_starts`.
        window: pixels of a window.
        part: first pixel of the part, and the one behind its last.

    Example:
        >>> reaching_windows((0, 2, 4, 6), 4, (4, 6))
        (2, 4)
    """
    return tuple(at for at in starts if at + window > part[0] and at < part[1])


def _row_groups(
    starts: Sequence[Sequence[int]], batch_size: int
) -> list[tuple[int, ...]]:
    """Join rows of windows where one row would not fill a batch."""
    in_a_row = math.prod(len(line) for line in starts[1:])
    joined = max(1, batch_size // in_a_row)
    rows = starts[0]
    return [
        tuple(rows[first : first + joined]) for first in range(0, len(rows), joined)
    ]


def _region(place: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of one window."""
    return tuple(slice(at, at + n) for at, n in zip(place, sizes, strict=True))


def _padded(
    image: Image,
    extents: Sequence[int],
    margin: Sequence[int],
    before: Sequence[int],
) -> Image:
    """Pad an image to the size that the windows cover, and by the margin."""
    missing = [
        max(0, extent - size)
        for size, extent in zip(image.shape[:-1], extents, strict=True)
    ]
    if any(margin):
        pads = [(lost, lost + more) for lost, more in zip(margin, missing, strict=True)]
        return np.pad(np.asarray(image), [*pads, (0, 0)], mode="reflect")
    if any(missing):
        pads = [(n, more - n) for n, more in zip(before, missing, strict=True)]
        return np.pad(np.asarray(image), [*pads, (0, 0)])
    return image
