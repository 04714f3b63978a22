"""Ranks cases by their mean Dice, and chooses those that a person should look at."""

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple


class RankedCase(NamedTuple):
    """A case and its place among all cases.

    Attributes:
        place: index of the case in the split.
        id: name of the case.
        dice: mean over the classes that are in label or prediction.
        per_class: Dice of each class; None where it has none.
        rank: 1 for the best case.
        roles: any of "best", "median" and "worst".
    """

    place: int
    id: str
    dice: float
    per_class: dict[str, float | None]
    rank: int
    roles: tuple[str, ...]


def ranked_cases(results: Mapping[str, Any]) -> list[RankedCase]:
    """Rank the cases that have a Dice of any class.

    Args:
        results: results of ``evaluate``.

    Returns: Cases, the best one first; equal ones in the order of the split. The median
        is the lower one of an even number.
    """
    by_case: dict[str, dict[str, float | None]] = {}
    for row in results["per_case"]:
        by_case.setdefault(row["id"], {})[row["class"]] = row["dice"]
    means = []
    for index, (name, per_class) in enumerate(by_case.items()):
        values = [value for value in per_class.values() if value is not None]
        if values:
            means.append((-statistics.fmean(values), index, name, per_class))
    means.sort(key=lambda one: one[:2])
    places = {"best": 1, "median": len(means) // 2 + 1, "worst": len(means)}
    return [
        RankedCase(
            index,
            name,
            -mean,
            per_class,
            rank,
            tuple(role for role, place in places.items() if place == rank),
        )
        for rank, (mean, index, name, per_class) in enumerate(means, start=1)
    ]


def chosen_cases(ranked: list[RankedCase], count: int) -> list[RankedCase]:
    """Choose the worst, the best, the median case, then further ones from the worst on.

    Args:
        ranked: all cases, the best one first.
        count: number of cases.

    Returns: At most ``count`` cases, the best one first.
    """
    wanted = ["worst", "best", "median"]

    def urgency(case: RankedCase) -> tuple[int, int]:
        first = min((wanted.index(role) for role in case.roles), default=len(wanted))
        return first, -case.rank

    chosen = sorted(ranked, key=urgency)[:count]
    return sorted(chosen, key=lambda case: case.rank)
