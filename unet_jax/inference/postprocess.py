"""What is fixed in a label map afterwards, and how to find out whether it helps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from unet_jax.labels import IGNORE

Step = tuple[str, int, int | None]
"""Name, class index, and the number of pixels where the step needs one."""

STEPS = ("largest_component", "min_size", "fill_holes")


def keep_largest(
    labels: Integer[np.ndarray, "*spatial"], *, index: int
) -> Integer[np.ndarray, "*spatial"]:
    """Keep the largest connected component of a class; the others become background.

    Args:
        labels: class indices.
        index: the class.

    Returns:
        New labels. Neighbours share a side (in pictures) or a face (in volumes).
    """
    components, count = ndimage.label(labels == index)
    if count < 2:
        return labels
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.where((components > 0) & (components != sizes.argmax()), 0, labels)


def remove_small(
    labels: Integer[np.ndarray, "*spatial"], *, index: int, min_size: int
) -> Integer[np.ndarray, "*spatial"]:
    """Turn components of a class that are smaller than a size into background.

    Args:
        labels: class indices.
        index: the class.
        min_size: pixels that a component must have to stay.

    Returns:
        New labels.
    """
    components, _ = ndimage.label(labels == index)
    small = np.bincount(components.ravel()) < min_size
    small[0] = False
    return np.where(small[components], 0, labels)


def fill_holes(
    labels: Integer[np.ndarray, "*spatial"], *, index: int
) -> Integer[np.ndarray, "*spatial"]:
    """Give background that a class encloses to that class.

    Args:
        labels: class indices.
        index: the class.

    Returns:
        New labels; other classes inside stay.
    """
    filled = ndimage.binary_fill_holes(labels == index)
    return np.where(filled & (labels == 0), index, labels)


def apply_steps(labels: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Take steps one after the other.

    Args:
        labels: ``(*spatial)`` class indices.
        steps: name, class and number of each.

    Returns:
        ``(*spatial)`` in the same dtype.

    Raises:
        ValueError: a step is unknown.
    """
    dtype = labels.dtype
    for name, index, number in steps:
        match name:
            case "largest_component":
                labels = keep_largest(labels, index=index)
            case "min_size":
                labels = remove_small(labels, index=index, min_size=number or 0)
            case "fill_holes":
                labels = fill_holes(labels, index=index)
            case _:
                raise ValueError(f"Unknown step {name!r}; expected one of {STEPS}")
    return labels.astype(dtype, copy=False)


Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
"""Prediction and label of each validation case."""


def choose_steps(
    pairs: Pairs, *, num_classes: int, min_sizes: Sequence[int] = (8, 32, 128)
) -> tuple[Step, ...]:
    """Keep the steps that raise Dice on validation cases, and no other.

    Each step is tried on top of those kept before, class by class.

    Args:
        pairs: predictions and labels.
        num_classes: background included.
        min_sizes: sizes that are tried.

    Returns:
        The steps; () where none helps.
    """
    kept: tuple[Step, ...] = ()
    best = _dice(pairs, kept, num_classes)
    for index in range(1, num_classes):
        candidates: list[Step] = [
            ("largest_component", index, None),
            *(("min_size", index, size) for size in min_sizes),
            ("fill_holes", index, None),
        ]
        for step in candidates:
            found = _dice(pairs, (*kept, step), num_classes)
            # NaN, a class that is nowhere, is never more.
            if found[index] > best[index] and np.nanmean(found) > np.nanmean(best):
                kept, best = (*kept, step), found
    return kept


def _dice(pairs: Pairs, steps: Sequence[Step], num_classes: int) -> Any:
    """Dice of each class, the mean over cases that have it; background is NaN."""
    rows = []
    for prediction, label in pairs:
        fixed = apply_steps(prediction, steps)
        row = np.full(num_classes, np.nan)
        for index in range(1, num_classes):
            one = (fixed == index) & (label != IGNORE)
            two = label == index
            both = int(one.sum()) + int(two.sum())
            if both:
                row[index] = 2 * int((one & two).sum()) / both
        rows.append(row)
    table = np.array(rows)
    count = (~np.isnan(table)).sum(axis=0)
    total = np.nansum(table, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
