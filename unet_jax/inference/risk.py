"""Chooses the threshold of a class that must not be missed: conformal risk control.

A pixel gets the class where its probability reaches the threshold, whatever the
likeliest class is. The threshold is the highest one that limits the fraction of the
class that a new group (patient) misses in expectation, where the new group and those
that chose the threshold are exchangeable.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from unet_jax.labels import IGNORE

_SHIFT = 16
"""Bits of a float32 that thresholds do without; they keep a precision of 0.8 %."""

_ONE = 0x3F80
_LIKELIEST = _ONE + 1
"""Level of the pixels that have the class without any threshold."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A class, and the probability from which on a pixel gets it.

    Attributes:
        index: index of the class.
        value: probability in [0, 1], before a temperature calibrates it.
    """

    index: int
    value: float

    def reached(
        self, probabilities: Float[np.ndarray, "*pixels classes"]
    ) -> Bool[np.ndarray, "*pixels"]:
        """Return the pixels whose probability of the class reaches the threshold."""
        return np.asarray(probabilities[..., self.index] >= np.float32(self.value))


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """Pixels of one group, counted by the highest threshold that marks them.

    Attributes:
        labelled: pixels of the class at each level, int64.
        beside: other pixels at each level, int64.
    """

    labelled: Integer[np.ndarray, " levels"]
    beside: Integer[np.ndarray, " levels"]

    def __add__(self, other: "Levels") -> "Levels":
        """Add the pixels of another case of the group."""
        return Levels(self.labelled + other.labelled, self.beside + other.beside)

    def packed(self) -> list[list[int]]:
        """Return the levels that have pixels and their counts, for JSON."""
        levels = np.flatnonzero(self.labelled + self.beside)
        parts = levels, self.labelled[levels], self.beside[levels]
        return [part.tolist() for part in parts]

    @classmethod
    def unpacked(cls, packed: Sequence[Sequence[int]]) -> "Levels":
        """Return what `packed` gave."""
        counts = np.zeros((2, _LIKELIEST + 1), np.int64)
        counts[:, packed[0]] = packed[1:]
        return cls(*counts)


def count_levels(
    *,
    probability: Float[np.ndarray, "*spatial"],
    prediction: Bool[np.ndarray, "*spatial"],
    labels: Integer[np.ndarray, "*spatial"],
    index: int,
) -> Levels:
    """Count the pixels of a case by the highest threshold that marks them.

    Args:
        probability: probability of the class, float32, not calibrated.
        prediction: pixels that have the class without a threshold.
        labels: class index of each pixel; IGNORE pixels are left out.
        index: index of the class.
    """
    clipped = np.clip(probability, 0, 1, dtype=np.float32)
    levels = (clipped.view(np.uint32) >> _SHIFT).astype(np.int32)
    levels[prediction] = _LIKELIEST
    return Levels(
        *(
            np.bincount(levels[mask], minlength=_LIKELIEST + 1).astype(np.int64)
            for mask in (labels == index, (labels != index) & (labels != IGNORE))
        )
    )


def level_of(threshold: float) -> int:
    """Return the first level that a threshold marks."""
    return int(np.float32(threshold).view(np.uint32)) >> _SHIFT


def groups_needed(alpha: float) -> int:
    """Return the fewest groups that can limit the risk to alpha: 1/alpha - 1.

    >>> groups_needed(0.1), groups_needed(0.05)
    (9, 19)
    """
    return math.ceil(1 / alpha - 1 - 1e-9)


class Choice(NamedTuple):
    """A threshold, and what it does to the groups that chose it.

    Attributes:
        threshold: the highest probability that limits the risk.
        groups: number of groups with the class.
        missed: mean over these groups of the fraction of the class that is missed.
        missed_without: that mean without the threshold.
        beside: pixels of all groups beside the class that get it.
        beside_without: their number without the threshold.
    """

    threshold: float
    groups: int
    missed: float
    missed_without: float
    beside: int
    beside_without: int


def choose_threshold(groups: Mapping[str, Levels], *, alpha: float) -> Choice:
    """Choose the highest threshold that limits the expected missed fraction to alpha.

    With the missed fraction ``R(t)``, averaged over n groups that have the class, it is
    the highest t with ``(n R(t) + 1) / (n + 1) <= alpha``. Then a new group misses at
    most alpha in expectation. R does not fall with t, because a pixel that a threshold
    marks is marked by every lower one.

    Args:
        groups: pixels of each group; one without the class is no part of the mean.
        alpha: limit in (0, 1).

    Raises:
        ValueError: there are fewer groups than `groups_needed`.
    Source: Angelopoulos et al. 2022, "Conformal risk control", arXiv:2208.02814, eq. 4.

    Example:
        >>> levels = count_levels(
        ...     probability=np.array([0.25, 0.5, 0.75, 0.125], np.float32),
        ...     prediction=np.array([False, False, True, False]),
        ...     labels=np.array([1, 1, 1, 0]),
        ...     index=1,
        ... )
        >>> choose_threshold({"a": levels, "b": levels}, alpha=0.6).threshold
        0.5
    """
    held = [one for one in groups.values() if one.labelled.any()]
    count = len(held)
    if count < groups_needed(alpha):
        raise ValueError(
            f"found {count} groups with the class, expected at least "
            f"{groups_needed(alpha)} for alpha {alpha}"
        )
    # missed[k]: mean fraction below level k, for which k is the threshold.
    missed = np.zeros(_LIKELIEST + 1)
    for one in held:
        missed[1:] += np.cumsum(one.labelled)[:-1] / one.labelled.sum()
    allowed = (count + 1) * alpha - 1
    level = int(np.searchsorted(missed, allowed + 1e-9, side="right")) - 1
    level = min(level, _ONE)
    beside = np.sum([one.beside for one in groups.values()], axis=0)
    value = np.uint32(level << _SHIFT).view(np.float32)
    return Choice(
        threshold=float(value),
        groups=count,
        missed=float(missed[level] / count),
        missed_without=float(missed[_LIKELIEST] / count),
        beside=int(beside[level:].sum()),
        beside_without=int(beside[_LIKELIEST]),
    )
