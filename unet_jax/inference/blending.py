"""Adds up the weighted scores of overlapping windows, a few planes at a time."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float


def importance_map(
    window: Sequence[int], *, sigma: float = 0.125, centred: bool = True
) -> Float[np.ndarray, "*window"]:
    """Return Gaussian weights of the pixels of a window.

    Args:
        window: size of the window, pixels along each axis.
        sigma: standard deviation as a fraction of the window (1/8 in nnU-Net).
        centred: whether the largest weight is at the centre; without, it is at pixel
            ``size // 2``, as in nnU-Net.

    Returns:
        float32 weights in (0, 1]: the product of one Gaussian along each axis.
    """
    weights = np.ones((), np.float64)
    for size in window:
        weights = np.multiply.outer(weights, line_weights(size, sigma, centred=centred))
    return weights.astype(np.float32)


def line_weights(
    size: int, sigma: float = 0.125, *, centred: bool = True
) -> np.ndarray:
    """Return Gaussian weights along one axis."""
    position = np.arange(size) - ((size - 1) / 2 if centred else size // 2)
    line = np.exp(-0.5 * (position / (sigma * size)) ** 2)
    return line / line.max()


def summed_weights(starts: Sequence[int], size: int, *, centred: bool) -> np.ndarray:
    """Return the sum of the weights of all windows along one axis."""
    line = line_weights(size, centred=centred)
    total = np.zeros(starts[-1] + size)
    for start in starts:
        total[start : start + size] += line
    return total


class Ring:
    """Adds up weighted scores in a ring of planes; finished planes are used again."""

    def __init__(
        self,
        depth: int,
        kept: tuple[slice, ...],
        *,
        planes: tuple[int, int],
        weights: Sequence[np.ndarray],
        importance: np.ndarray,
    ) -> None:
        """Start at the first plane, without scores.

        Args:
            depth: planes that are open at the same time.
            kept: part of each plane to keep.
            planes: first plane of the image, and the one behind its last.
            weights: summed weights of all windows, which are a product of the axes too.
            importance: weights of the pixels of a window.
        """
        self._depth, self._kept, self._planes = depth, kept, planes
        self._weights, self._importance = weights, importance[..., None]
        self._sums: np.ndarray = np.zeros((), np.float32)
        self._next = 0

    def add(self, places: Sequence[tuple[int, ...]], scores: np.ndarray) -> None:
        """Add the weighted scores of windows."""
        if self._sums.ndim == 0:
            inside = tuple(part.stop - part.start for part in self._kept)
            self._sums = np.zeros((self._depth, *inside, scores.shape[-1]), np.float32)
        planes, *window = self._importance.shape[:-1]
        for place, score in zip(places, scores, strict=False):
            source, target = [], []
            for at, size, part in zip(place[1:], window, self._kept, strict=True):
                low, high = max(at, part.start), min(at + size, part.stop)
                source.append(slice(low - at, high - at))
                target.append(slice(low - part.start, high - part.start))
            for ring, part in self._segments(place[0], place[0] + planes, by_mib=1):
                weighted = self._importance[part][:, *source] * score[part][:, *source]
                self._sums[ring][:, *target] += weighted

    def finished(self, stop: int, *, copy: bool) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the planes before ``stop``, and make room."""
        rest = np.ones((), np.float64)
        for line, part in zip(self._weights[1:], self._kept, strict=True):
            rest = np.multiply.outer(rest, line[part])
        top, end = self._planes
        first = self._next
        for planes, part in self._segments(first, stop):
            band = self._sums[planes]
            for offset, plane in enumerate(band):
                weight = self._weights[0][first + part.start + offset] * rest
                plane /= weight[..., None].astype(np.float32)
            begin = first + part.start
            inside = slice(max(top - begin, 0), min(len(band), end - begin))
            if inside.start < inside.stop:
                scores = band[inside]
                yield begin + inside.start - top, scores.copy() if copy else scores
            band[...] = 0
        self._next = stop

    def _segments(
        self, start: int, stop: int, *, by_mib: int | None = None
    ) -> Iterator[tuple[slice, slice]]:
        """Split a run of planes where the ring closes: places in ring and run.

        With ``by_mib`` a part of a window has at most as many MiB, or one plane.
        """
        most, at = self._depth, start
        if by_mib is not None:
            plane = 4 * math.prod(self._importance.shape[1:]) * self._sums.shape[-1]
            most = max(1, (by_mib << 20) // plane)
        while at < stop:
            place = at % self._depth
            count = min(stop - at, self._depth - place, most)
            yield slice(place, place + count), slice(at - start, at - start + count)
            at += count
