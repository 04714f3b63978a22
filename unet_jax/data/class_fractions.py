"""What a split holds: how many cases, and how much of each class."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unet_jax.data.case import IGNORE, Source


@dataclasses.dataclass(frozen=True)
class ClassShares:
    """Cases of a split and the share of each class in their labelled pixels.

    Attributes:
        cases: number of cases.
        counted: cases that were read for the shares, spread evenly over the split.
        shares: share of the pixels that are not ignored, by class name; empty where no
            case that was read has a label.
    """

    cases: int
    counted: int
    shares: dict[str, float]


def class_fractions(
    source: Source, class_names: Sequence[str], *, limit: int = 64
) -> ClassShares:
    """Count the pixels of each class.

    Args:
        source: the cases of a split.
        class_names: name of each class.
        limit: largest number of cases to read.

    Returns:
        The shares; 0 for a class that no case read has.
    """
    counts = np.zeros(len(class_names), np.int64)
    labelled_cases = 0
    chosen = np.unique(
        np.linspace(0, len(source) - 1, min(limit, len(source))).astype(int)
    )
    for index in chosen:
        label = source[int(index)].label
        if label is not None:
            labelled_cases += 1
            labelled = label[label != IGNORE]
            counts += np.bincount(labelled, minlength=len(class_names))
    if not labelled_cases:
        return ClassShares(len(source), len(chosen), {})
    total = max(int(counts.sum()), 1)
    shares = {
        name: float(n / total) for name, n in zip(class_names, counts, strict=True)
    }
    return ClassShares(len(source), len(chosen), shares)
