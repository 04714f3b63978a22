"""Averages the scores of all cases and bootstraps intervals over groups."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unet_jax.evaluation.bootstrap import (
    MIN_GROUPS,
    class_values,
    draw_groups,
    expanded_interval,
    groups_of_rarest_class,
    mean_of_present,
)
from unet_jax.evaluation.case_scores import CaseScores

_MICRO = ("dice_micro", "iou_micro")


class Summary(NamedTuple):
    """Scores of all cases together.

    Attributes:
        mean: mean of each metric over the classes; None where no class is present.
        ci95: interval of each mean; None for too few groups.
        ci95_note: how the intervals were made, or why there are none.
        per_class: values of each scored class by metric.
    """

    mean: dict[str, float | None]
    ci95: dict[str, list[float | None]] | None
    ci95_note: str
    per_class: dict[str, dict[str, Any]]


def summarise(
    scored: Sequence[CaseScores],
    *,
    groups: Sequence[str],
    names: Sequence[str],
    bootstrap_samples: int,
    seed: int,
) -> Summary:
    """Average over cases, then over classes, with bootstrap intervals over groups.

    Args:
        scored: scores of each case.
        groups: group of each case.
        names: names of the scored classes.
        bootstrap_samples: number of bootstrap samples.
        seed: seed of the draws.

    Returns: Values of each class, their means, and the intervals of the means.
    """
    distinct = list(dict.fromkeys(groups))
    rows = [distinct.index(group) for group in groups]
    sums = _group_sums(scored, rows, len(distinct))
    once = np.ones((1, len(distinct)))
    of_class = {metric: class_values(once, *pair)[0] for metric, pair in sums.items()}
    counts = {"n_absent": sum(case.absent for case in scored)}
    if any(case.labelled is not None for case in scored):
        counts["n_unlabelled"] = sum(~_labelled(case) for case in scored)
    per_class = {
        name: {
            metric: number(values[i])
            for metric, values in of_class.items()
            if not _of_cases(metric, scored)
        }
        | {count: int(np.asarray(cases)[i]) for count, cases in counts.items()}
        for i, name in enumerate(names)
    }
    mean = {
        metric: number(mean_of_present(v[None])[0]) for metric, v in of_class.items()
    }
    if len(distinct) < MIN_GROUPS:
        note = f"an interval needs at least {MIN_GROUPS} groups; found {len(distinct)}"
        return Summary(mean, None, note, per_class)
    draws = draw_groups(len(distinct), samples=bootstrap_samples, seed=seed)
    ci95 = {metric: _interval(draws, *pair) for metric, pair in sums.items()}
    note = (
        f"expanded percentile bootstrap over {len(distinct)} groups, "
        f"{bootstrap_samples} samples, seed {seed}"
    )
    if any(span == [None, None] for span in ci95.values()):
        note += f"; none where fewer than {MIN_GROUPS} groups have a score of a class"
    return Summary(mean, ci95, note, per_class)


def number(value: float) -> float | None:
    """Turn a value into a JSON number: None for NaN."""
    return None if math.isnan(value) else float(value)


def _labelled(case: CaseScores) -> np.ndarray:
    """Whether each scored class was labelled in a case."""
    every = np.ones(case.counts.tp.shape[1], bool)
    return every if case.labelled is None else case.labelled


def _of_cases(metric: str, scored: Sequence[CaseScores]) -> bool:
    """Whether a metric has one value for a case, not one for each class."""
    return any(metric in case.whole for case in scored)


def _group_sums(
    scored: Sequence[CaseScores], rows: Sequence[int], count: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator ``(groups, classes)`` of each metric's class value.

    Every metric is a ratio of two sums over cases: values and their number, or counts.
    So the mean and each bootstrap sample are one weighted sum over groups. A metric
    with one value for a case has one column.
    """
    classes = scored[0].counts.tp.shape[1]
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(metric: str, row: int, numerator: Any, denominator: Any) -> None:
        shape = (count, np.size(numerator))
        above, below = sums.setdefault(metric, (np.zeros(shape), np.zeros(shape)))
        above[row] += numerator
        below[row] += denominator

    for case, row in zip(scored, rows, strict=True):
        for metric, values in (case.by_class | case.whole).items():
            present = ~np.isnan(values)
            add(metric, row, np.where(present, values, 0), present)
    shape = (count, classes)
    sums |= {metric: (np.zeros(shape), np.zeros(shape)) for metric in _MICRO}
    for case, row in zip(scored, rows, strict=True):
        tp, fp, fn, _ = (values[0] for values in case.counts)
        add("dice_micro", row, 2 * tp, 2 * tp + fp + fn)
        add("iou_micro", row, tp, tp + fp + fn)
    return sums


def _interval(
    draws: np.ndarray, numerators: np.ndarray, denominators: np.ndarray
) -> list[float | None]:
    """95 % interval from the samples in which some class is present."""
    count = groups_of_rarest_class(denominators > 0)
    if count < MIN_GROUPS:
        return [None, None]
    means = mean_of_present(class_values(draws, numerators, denominators))
    means = means[~np.isnan(means)]
    if not len(means):
        return [None, None]
    return list(expanded_interval(means, count))
