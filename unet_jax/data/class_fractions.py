"""Counts the cases of a split and the fraction of each class in their pixels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unet_jax.data.case import IGNORE, Source
from unet_jax.data.labelled_classes import labelled_rows


@dataclasses.dataclass(frozen=True)
class ClassFractions:
    """Cases of a split and the fraction of each class in their labelled pixels.

    Attributes:
        counted: number of cases whose pixels were counted, spread evenly over the
            split.
        fractions: fraction of the pixels that are not ignored, by class name; empty if
            no counted case has a label.
    """

    cases: int
    counted: int
    fractions: dict[str, float]


def class_fractions(
    source: Source, class_names: Sequence[str], *, limit: int = 64
) -> ClassFractions:
    """Count the pixels of each class.

    Args:
        source: cases of a split; with a method ``class_counts(index)`` no case is read.
        limit: largest number of cases to read.

    Returns:
        The fractions; 0 for a class that no counted case has. Those of a class are
        counted in the cases in which it is labelled.
    """
    names = tuple(class_names)
    counts = np.zeros(len(names), np.int64)
    labelled_cases = 0
    labelled = labelled_rows(source, len(names))
    pixels = np.zeros(len(names), np.int64)
    count = len(source) if hasattr(source, "class_counts") else limit
    chosen = np.unique(
        np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    )
    for index in chosen:
        found = _class_counts(source, int(index), len(names))
        if found is not None:
            labelled_cases += 1
            counts += found
            pixels += found.sum() * (True if labelled is None else labelled[index])
    if not labelled_cases:
        return ClassFractions(len(source), len(chosen), {})
    fractions = counts / np.maximum(pixels, 1)
    if labelled is not None:
        # Background of a case may be of the classes that are not labelled there.
        fractions[0] = max(0.0, 1 - fractions[1:].sum())
    by_name = dict(zip(names, map(float, fractions), strict=True))
    return ClassFractions(len(source), len(chosen), by_name)


def has_class(source: Source, num_classes: int, *, first: int) -> bool:
    """Return whether a case of a source has a pixel of the class ``first`` or higher.

    Cases are read until one has; those of a source with ``class_counts`` are not read.
    """
    found = (_class_counts(source, i, num_classes) for i in range(len(source)))
    return any(counts is not None and bool(counts[first:].any()) for counts in found)


def _class_counts(source: Source, index: int, num_classes: int) -> np.ndarray | None:
    """Count the pixels of each class of one case; None if it has no label."""
    if hasattr(source, "class_counts"):
        counts: np.ndarray | None = source.class_counts(index)
        return counts
    label = source[index].label
    return None if label is None else count_classes(label, num_classes)


def count_classes(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each class in ``(*spatial)`` integers, without IGNORE."""
    return np.bincount(label[label != IGNORE], minlength=num_classes)
