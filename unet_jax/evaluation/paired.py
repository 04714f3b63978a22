"""Compares two methods on the same cases by the difference of their mean scores."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from unet_jax.evaluation.bootstrap import (
    MIN_GROUPS,
    class_values,
    draw_groups,
    expanded_interval,
    expansion,
    groups_of_rarest_class,
    mean_of_present,
)

DRAWS = 2000
"""Number of bootstrap samples."""

Scores = Float[np.ndarray, "runs cases classes"]
"""Scores of one method; NaN where a class is absent from label and prediction."""


class Comparison(NamedTuple):
    """Difference of two means.

    Attributes:
        difference: mean of the first method minus mean of the second; None where one
            of them has no score.
        ci95: its interval; None for too few groups.
        p: p value of no difference; None for too few groups.
    """

    difference: float | None
    ci95: list[float] | None
    p: float | None


def mean_scores(scores: Scores) -> Float[np.ndarray, " runs"]:
    """Mean score of each run: over the cases with a score, then over classes.

    Returns: The mean of each run; NaN for a run without a score.

    Example:
        >>> mean_scores(np.array([[[0.5, np.nan], [0.7, 0.2]]]))
        array([0.4])
    """
    return mean_of_present(mean_of_present(scores.swapaxes(1, 2)))


def compare_means(
    one: Scores, two: Scores, groups: Sequence[str], *, seed: int = 0
) -> Comparison:
    """Compare the mean scores of two methods on the same cases.

    A case counts for a method where the method has a score. A false alarm on a case
    without the class is a score of 0, and a correct empty prediction is none, so the
    cases of the two methods differ. The bootstrap draws whole groups and computes both
    means again; its interval is that of `expanded_interval`. p is the level at which
    the interval begins to exclude 0.

    Args:
        one, two: scores of the methods; each has runs of its own.
        groups: group of each case, such as its patient.
        seed: seed of the draws.

    Returns: The difference of the means over the runs of each method. Interval and p
        are None where fewer than `MIN_GROUPS` groups have a score of some class.
    """
    place = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    rows = [place[group] for group in groups]
    sums = _sums(one, rows), _sums(two, rows)
    first, second = (float(mean_of_present(mean_scores(each))) for each in (one, two))
    if math.isnan(first) or math.isnan(second):
        return Comparison(None, None, None)
    present = np.any([counts.any(axis=1) for _, counts in sums], axis=0)
    count = groups_of_rarest_class(present)
    if count < MIN_GROUPS:
        return Comparison(first - second, None, None)
    draws = draw_groups(len(place), samples=DRAWS, seed=seed)
    drawn = np.subtract(*(mean_of_present(_means(draws, each)) for each in sums))
    ci95, p = _interval_and_p(drawn[~np.isnan(drawn)], count)
    return Comparison(first - second, ci95, p)


def _sums(scores: Scores, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the scores of each group, ``(groups, runs, classes)``."""
    by_case = scores.swapaxes(0, 1)
    present = ~np.isnan(by_case)
    total, counts = np.zeros((2, max(rows) + 1, *by_case.shape[1:]))
    np.add.at(total, np.asarray(rows), np.where(present, by_case, 0))
    np.add.at(counts, np.asarray(rows), present)
    return total, counts


def _means(weights: np.ndarray, sums: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Mean of each sample and run over cases, then classes, ``(samples, runs)``."""
    return mean_of_present(class_values(weights, *sums))


def _interval_and_p(drawn: np.ndarray, groups: int) -> tuple[list[float], float]:
    """Expanded percentile interval, and the level at which it begins to exclude 0."""
    beyond = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    tail = min((beyond + 1) / (len(drawn) + 1), 0.5)
    p = 2 * special.stdtr(groups - 1, special.ndtri(tail) / expansion(groups))
    return list(expanded_interval(drawn, groups)), float(p)
