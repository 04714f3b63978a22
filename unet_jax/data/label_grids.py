"""Brings labels to another grid: the class with the largest area in a pixel wins.

A new pixel covers old pixels, wholly or in part. IGNORE wins only where it covers more
than half of the new pixel; elsewhere the class of the largest area wins.

Classes of equal area take turns. No fixed rule can do better: where an edge runs
through the middle of a pixel, any rule prefers one class or one side. So the place of
the new pixel decides whether the tied class wins that comes first in it, or the one
that comes last; the indices of the classes have no influence. Along rows, columns and
diagonals both happen equally often, to within two or three pixels: areas and centroids
stay, and a line of one pixel is lost as often as it is widened. The same labels always
give the same result.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_jax.labels import IGNORE

_TURN_STEPS = (41607, 33705, 16131)
"""Steps (modulo 2**16) from a pixel to the next, along each axis.

Sums and differences of any of them are far from multiples of 2**16, so that turns are
spread evenly along rows, columns and diagonals.
"""

_AT_ONCE = 2**22
"""Elements of the largest temporary array of `resample_labels`, about."""


@dataclasses.dataclass(frozen=True)
class Cover:
    """The old pixels that each new pixel covers, along one axis.

    Attributes:
        indices: ``(new, most)`` old pixels.
        weights: ``(new, most)`` lengths that are covered, in a unit that makes them
            integers; 0 where a new pixel covers fewer old ones than others.
    """

    indices: np.ndarray
    weights: np.ndarray


def stretched(old: int, new: int) -> Cover:
    """Cover an axis of ``old`` pixels by ``new`` ones of equal length."""
    unit = math.gcd(old, new)
    return _cover(old, new, old // unit, new // unit)


def strided(old: int, stride: int) -> Cover:
    """Cover an axis by pixels of ``stride`` old ones; the last may stick out."""
    return _cover(old, -(-old // stride), stride, 1)


def _cover(old: int, new: int, new_length: int, old_length: int) -> Cover:
    """Cover pixels of one length by pixels of another one; both begin at 0."""
    starts = np.arange(new)[:, None] * new_length
    most = -(-(new_length - 1) // old_length) + 1
    indices = starts // old_length + np.arange(most)
    ends = np.minimum(starts + new_length, (indices + 1) * old_length)
    weights = ends - np.maximum(starts, indices * old_length)
    weights = np.where(indices < old, np.maximum(weights, 0), 0)
    used = weights.any(axis=0)
    return Cover(np.minimum(indices, old - 1)[:, used], weights[:, used])


def first_wins(places: Sequence[Any]) -> Any:
    """Tell in which new pixels the first of the tied classes wins, not the last.

    Args:
        places: index of the pixels on each axis, arrays that broadcast together.
    """
    steps = zip(places, _TURN_STEPS, strict=False)
    turn = functools.reduce(lambda a, b: a + b, (place * step for place, step in steps))
    return turn % 2**16 < 2**15


@dataclasses.dataclass(frozen=True)
class Contest:
    """Finds the class with the largest area in each new pixel, one class at a time.

    Attributes:
        values: ``(places, *pixels)`` labels of the old pixels that a new one covers.
        weights: area of each old pixel, integers that broadcast with ``values``.
        first: from `first_wins`; broadcasts with ``(*pixels)``.
        xp: ``numpy`` or ``jax.numpy``.
    """

    values: Any
    weights: Any
    first: Any
    xp: Any

    def start(self) -> tuple[Any, Any, Any]:
        """Return area, place and label of no class yet."""
        zeros = self.xp.zeros(self.values.shape[1:], self.weights.dtype)
        return zeros, zeros, zeros + IGNORE

    def challenge(self, best: tuple[Any, Any, Any], label: Any) -> tuple[Any, Any, Any]:
        """Let one more class, not IGNORE, win where its area is larger."""
        xp, (area, place, winner) = self.xp, best
        hits = self.values == label
        own = xp.where(hits, self.weights, 0).sum(axis=0, dtype=area.dtype)
        count = len(self.values)
        order = xp.arange(1, count + 1).reshape(-1, *(1,) * (self.values.ndim - 1))
        # The place of the class: of its first old pixel, from the side that wins ties.
        least = xp.where(hits & (self.weights > 0), order, count + 1).min(axis=0)
        least = xp.where(self.first, least, -least).astype(place.dtype)
        wins = (own > area) | ((own == area) & (own > 0) & (least < place))
        return (
            xp.where(wins, own, area),
            xp.where(wins, least, place),
            xp.where(wins, label, winner).astype(winner.dtype),
        )

    def end(self, best: tuple[Any, Any, Any]) -> Any:
        """Return the winners, or IGNORE where it covers more than half."""
        known = self.xp.where(self.values == IGNORE, 0, self.weights).sum(axis=0)
        total = self.weights.sum(axis=0)
        winner = self.xp.where(2 * known < total, IGNORE, best[2])
        return winner.astype(self.values.dtype)


def resample_labels(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring labels to another grid of the same extent, finer or coarser.

    Args:
        labels: ``(*spatial)`` integers; IGNORE has no class.

    Returns:
        ``(*shape)`` in the same dtype.
    """
    if labels.shape == shape:
        return labels
    covers = [stretched(old, new) for old, new in zip(labels.shape, shape, strict=True)]
    low = high = labels
    for axis, cover in enumerate(covers):
        columns = cover.indices.T
        low = functools.reduce(np.minimum, (low.take(c, axis) for c in columns))
        high = functools.reduce(np.maximum, (high.take(c, axis) for c in columns))
    # Where all covered pixels agree, there is nothing to count.
    result = np.ascontiguousarray(low)
    mixed = np.nonzero(low != high)
    classes = np.unique(labels)
    step = max(1, _AT_ONCE // math.prod(cover.indices.shape[1] for cover in covers))
    for start in range(0, len(mixed[0]), step):
        pixels = tuple(places[start : start + step] for places in mixed)
        values, weights = _covered(labels, covers, pixels)
        contest = Contest(values, weights, first_wins(pixels), np)
        known = classes[classes != IGNORE]
        result[pixels] = contest.end(
            functools.reduce(contest.challenge, known, contest.start())
        )
    return result


def _covered(
    labels: np.ndarray, covers: Sequence[Cover], pixels: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and areas ``(places, pixels)`` of what new pixels cover."""
    count = len(pixels[0])
    flat, areas = np.zeros((1, count), np.int64), np.ones((1, count), np.int64)
    for cover, places, size in zip(covers, pixels, labels.shape, strict=True):
        index, weight = cover.indices[places].T, cover.weights[places].T
        flat = (flat[:, None] * size + index).reshape(-1, count)
        areas = (areas[:, None] * weight).reshape(-1, count)
    return labels.ravel()[flat], areas
