"""Draws groups with replacement and averages scores over the drawn ones."""

import functools
import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

MIN_GROUPS = 5
"""Fewest groups for an interval; fewer say nothing about the spread between groups."""


@functools.lru_cache(maxsize=1)  # metrics and methods are compared on the same draws
def draw_groups(
    count: int, *, samples: int, seed: int
) -> Float[np.ndarray, "samples groups"]:
    """Return how often each group is drawn in each bootstrap sample.

    Args:
        count: number of groups; each sample draws this number of them.
        samples: number of bootstrap samples.
        seed: seed of the draws.

    Example:
        >>> draw_groups(3, samples=2, seed=0).sum(axis=1)
        array([3., 3.])
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples)
    weights = drawn.astype(np.float64)
    weights.flags.writeable = False
    return weights


def class_values(
    weights: Float[np.ndarray, "samples groups"],
    numerators: Float[np.ndarray, "groups *columns"],
    denominators: Float[np.ndarray, "groups *columns"],
) -> Float[np.ndarray, "samples *columns"]:
    """Divide two sums over groups in each sample; 0/0 is NaN.

    Args:
        weights: weight of each group, such as `draw_groups` gives.
        numerators, denominators: summands of each group, by class.
    """
    # einsum, not a BLAS product: its order of summation does not change with threads.
    above = np.einsum("sg,g...->s...", weights, numerators)
    below = np.einsum("sg,g...->s...", weights, denominators)
    with np.errstate(invalid="ignore"):
        return np.asarray(above / below)


def expansion(groups: int) -> float:
    """Factor by which few groups widen an interval of percentiles.

    Example:
        >>> round(expansion(5), 3)
        1.118
    """
    return math.sqrt(groups / (groups - 1))


def expanded_interval(
    drawn: Float[np.ndarray, " samples"], groups: int
) -> tuple[float, float]:
    """Return the 95 % interval of bootstrap means, for few groups too.

    Its percentiles are those of Student's t with the number of groups, since plain
    percentiles are too narrow for few groups.

    Args:
        drawn: mean of each bootstrap sample.
        groups: number of groups that were drawn.

    Source: Hesterberg 2015, "What teachers should know about the bootstrap", section
        "Expanding the percentile interval".
    """
    level = special.ndtr(special.stdtrit(groups - 1, 0.025) * expansion(groups))
    low, high = np.quantile(drawn, (level, 1 - level))
    return float(low), float(high)


def groups_of_rarest_class(present: Bool[np.ndarray, "groups classes"]) -> int:
    """Return the fewest groups with a score of a class, over the classes with a score.

    Draws of many groups of which few have a class know only those few.

    Example:
        >>> groups_of_rarest_class(np.array([[True, False], [True, False]]))
        2
    """
    of_class = present.sum(axis=0)
    return int(of_class[of_class > 0].min(initial=len(present)))


def mean_of_present(values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Mean over the last axis without NaN; NaN, without a warning, if all are NaN.

    Example:
        >>> mean_of_present(np.array([[1.0, np.nan, 3.0], [np.nan] * 3]))
        array([ 2., nan])
    """
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, values, 0).sum(-1) / present.sum(-1))
