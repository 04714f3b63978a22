"""A network with a fixed input size applied to images of any size.

Windows of one size, laid over the image with overlap, go through the network in fixed
batches (so it is compiled once for all image sizes); their scores are blended with
weights that fall off towards the window's border, where the network sees least. Rows of
windows follow each other along the first axis, and what no later row touches leaves at
once: the memory for scores is that of one row, however long the image is.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Forward = Callable[[np.ndarray, int], np.ndarray]
"""``(windows, *input_window, channels) -> (windows, *window, classes)`` scores.

The number says how many of the windows are wanted: the others fill the batch up, and
their scores are not read.
"""


@runtime_checkable
class Image(Protocol):
    """What windows are cut from: an array, or what makes its regions when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)``."""
        ...

    def __getitem__(self, region: Any, /) -> np.ndarray:
        """Return the pixels of a slice an axis, with all channels."""
        ...

    def __array__(self) -> np.ndarray:
        """Return all pixels, for an image that has to be padded."""
        ...


def window_starts(
    size: int, window: int, overlap: float, *, multiple: int = 1
) -> tuple[int, ...]:
    """Where the windows of one axis start.

    Args:
        size: pixels of the axis.
        window: pixels of a window.
        overlap: share of a window that its neighbour covers too, in [0, 1).
        multiple: number that every start is a multiple of: a network without padding
            gives the same scores in every window only if its coarse grids coincide.

    Returns:
        Evenly spread starts: the first is 0, neighbours overlap by at least
        ``overlap`` where ``multiple`` allows it, and the last window ends at the axis'
        end, or behind it where the axis is shorter or no multiple fits.

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
    step = max(1, int(window * (1 - overlap) / multiple))
    count = math.ceil(last / step) + 1
    if count == 1:
        return (0,)
    return tuple(round(i * last / (count - 1)) * multiple for i in range(count))


def importance_map(
    window: Sequence[int], *, sigma: float = 0.125
) -> Float[np.ndarray, "*window"]:
    """Gaussian weights of a window's pixels.

    Args:
        window: pixels an axis.
        sigma: standard deviation as a share of the window (1/8 in nnU-Net).

    Returns:
        float32 weights, 1 at most and above 0; the product of one line an axis.
    """
    weights = np.ones((), np.float64)
    for size in window:
        weights = np.multiply.outer(weights, _line(size, sigma))
    return weights.astype(np.float32)


def _line(size: int, sigma: float = 0.125) -> np.ndarray:
    """Gaussian weights along one axis."""
    position = np.arange(size) - (size - 1) / 2
    line = np.exp(-0.5 * (position / (sigma * size)) ** 2)
    return line / line.max()


def stream_bands(
    forward: Forward,
    image: Image,
    *,
    window: Sequence[int],
    num_classes: int,
    overlap: float,
    batch_size: int,
    margin: Sequence[int] | None = None,
    multiple: Sequence[int] | None = None,
) -> Iterator[tuple[int, Float[np.ndarray, "planes *rest classes"]]]:
    """Blend the network's scores over an image, band by band along the first axis.

    Args:
        forward: the network, always called with ``batch_size`` windows.
        image: ``(*spatial, channels)`` of any size. It is padded with zeros up to one
            window, or, where there is a margin, with its mirror image.
        window: pixels an axis that the network gives scores for.
        num_classes: of the network.
        overlap: share of a window that its neighbour covers too.
        batch_size: windows in one call of ``forward``.
        margin: pixels an axis that the network needs on each side beyond the window.
        multiple: number an axis that every start is a multiple of.

    Yields:
        The first plane of a band, and its scores, float32 weighted means. The bands
        come in order and cover the image. A band is valid until the next is asked for.
    """
    axes = len(window)
    window = tuple(window)
    margin = tuple(margin or (0,) * axes)
    spatial = image.shape[:-1]
    starts = [
        window_starts(size, extent, overlap, multiple=step)
        for size, extent, step in zip(
            spatial, window, multiple or (1,) * axes, strict=True
        )
    ]
    extents = [line[-1] + size for line, size in zip(starts, window, strict=True)]
    image = _padded(image, extents, margin)
    inputs = tuple(size + 2 * lost for size, lost in zip(window, margin, strict=True))
    groups = _row_groups(starts, batch_size)
    depth = max(rows[-1] - rows[0] for rows in groups) + window[0]
    ring = _Ring((depth, *extents[1:], num_classes), spatial, starts, window)
    importance = importance_map(window)[..., None]
    weighted = np.empty((*window, num_classes), np.float32)
    for rows in groups:
        yield from ring.finished(rows[0])
        places = list(itertools.product(rows, *starts[1:]))
        for first in range(0, len(places), batch_size):
            batch = places[first : first + batch_size]
            # The last batch is filled up with its own first window: one shape for all.
            filled = batch + [batch[0]] * (batch_size - len(batch))
            regions = (_region(place, inputs) for place in filled)
            windows = np.stack([image[region] for region in regions])
            scores = np.asarray(forward(windows, len(batch)))
            for place, score in zip(batch, scores, strict=False):
                ring.add(place, np.multiply(importance, score, out=weighted))
    yield from ring.finished(extents[0])


def _row_groups(
    starts: Sequence[Sequence[int]], batch_size: int
) -> list[tuple[int, ...]]:
    """Join rows of windows where one alone would not fill a batch."""
    in_a_row = math.prod(len(line) for line in starts[1:])
    joined = max(1, batch_size // in_a_row)
    rows = starts[0]
    return [
        tuple(rows[first : first + joined]) for first in range(0, len(rows), joined)
    ]


def _region(place: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """Index of one window."""
    return tuple(slice(at, at + n) for at, n in zip(place, sizes, strict=True))


def _padded(image: Image, extents: Sequence[int], margin: Sequence[int]) -> Image:
    """Pad an image to what the windows cover, and by the margin."""
    missing = [
        max(0, extent - size)
        for size, extent in zip(image.shape[:-1], extents, strict=True)
    ]
    if any(margin):
        pads = [(lost, lost + more) for lost, more in zip(margin, missing, strict=True)]
        return np.pad(np.asarray(image), [*pads, (0, 0)], mode="reflect")
    if any(missing):
        return np.pad(np.asarray(image), [*((0, more) for more in missing), (0, 0)])
    return image


class _Ring:
    """Sums of weighted scores; planes come round again when they are finished."""

    def __init__(
        self,
        shape: tuple[int, ...],
        spatial: Sequence[int],
        starts: Sequence[Sequence[int]],
        window: Sequence[int],
    ) -> None:
        """Begin with the first plane and no scores."""
        self._sums = np.zeros(shape, np.float32)
        self._window = window
        self._spatial = spatial
        self._next = 0
        # The weights of all windows are a product of lines too.
        self._weights = [
            _weights(line, size) for line, size in zip(starts, window, strict=True)
        ]

    def add(self, place: Sequence[int], scores: np.ndarray) -> None:
        """Add one window."""
        rest = _region(place[1:], self._window[1:])
        for planes, part in self._segments(place[0], place[0] + self._window[0]):
            self._sums[planes][:, *rest] += scores[part]

    def finished(self, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Give the planes before ``stop``, and make room."""
        rest = np.ones((), np.float64)
        for line in self._weights[1:]:
            rest = np.multiply.outer(rest, line)
        inside = tuple(slice(size) for size in self._spatial[1:])
        first = self._next
        for planes, part in self._segments(first, stop):
            band = self._sums[planes]
            for offset, plane in enumerate(band):
                weight = self._weights[0][first + part.start + offset] * rest
                plane /= weight[..., None].astype(np.float32)
            begin = first + part.start
            count = min(len(band), self._spatial[0] - begin)
            if count > 0:
                yield begin, band[:count][:, *inside]
            band[...] = 0
        self._next = stop

    def _segments(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Cut a run of planes where the ring closes: place in it, and in the run."""
        depth, at = len(self._sums), start
        while at < stop:
            place = at % depth
            count = min(stop - at, depth - place)
            yield slice(place, place + count), slice(at - start, at - start + count)
            at += count


def _weights(starts: Sequence[int], size: int) -> np.ndarray:
    """Sum of the weights of all windows along one axis."""
    line = _line(size)
    total = np.zeros(starts[-1] + size)
    for start in starts:
        total[start : start + size] += line
    return total
