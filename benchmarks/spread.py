"""Summarises repeats: median, quartiles and ratio."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeats of one measurement.

    Attributes:
        median: median of the repeats.
        low: first quartile.
        high: third quartile.
        values: repeats in the order they were made.
    """

    median: float
    low: float
    high: float
    values: tuple[float, ...]


def spread(values: Sequence[float]) -> Spread:
    """Summarise repeats.

    Args:
        values: repeats, at least one.

    Returns:
        Median and quartiles, interpolated linearly between repeats.
    """
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high), tuple(values))


def ratio(*, ours: Sequence[float], peer: Sequence[float]) -> Spread:
    """Divide the peer's values by ours; above 1, ours is better.

    Args:
        ours: repeats of our side.
        peer: repeats of the peer, each from the same round as ours.

    Returns:
        The ratio of the medians, with the quartiles of the ratios of the rounds: other
        work on the machine slows both sides of a round.
    """
    rounds = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    median = float(np.median(peer) / np.median(ours))
    return dataclasses.replace(spread(rounds), median=median)
