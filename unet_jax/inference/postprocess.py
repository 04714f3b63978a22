"""Postprocesses label maps, and chooses the steps that help on validation cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from unet_jax.labels import IGNORE

Step = tuple[str, int, int | None]
"""Name of a step, class index, and a number of pixels where the step takes one."""

STEPS = ("largest_component", "min_size", "fill_holes")


def keep_largest(
    labels: Integer[np.ndarray, "*spatial"], *, index: int
) -> Integer[np.ndarray, "*spatial"]:
    """Keep the largest connected component of a class; the others become background.

    Neighbours touch at a side (pictures) or a face (volumes).
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
    """Turn components of a class below ``min_size`` pixels into background."""
    components, _ = ndimage.label(labels == index)
    small = np.bincount(components.ravel()) < min_size
    small[0] = False
    return np.where(small[components], 0, labels)


def fill_holes(
    labels: Integer[np.ndarray, "*spatial"], *, index: int
) -> Integer[np.ndarray, "*spatial"]:
    """Turn background that a class encloses into that class.

    Other classes inside the hole stay.
    """
    filled = ndimage.binary_fill_holes(labels == index)
    return np.where(filled & (labels == 0), index, labels)


def apply_steps(labels: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Apply steps one after the other; the labels keep their dtype.

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
    """Choose the steps that raise the Dice of validation cases; () where none helps.

    Each step is tried on top of the steps chosen before, class by class. ``min_sizes``
    are the minimum component sizes to try, in pixels.
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
            # A class without pixels has NaN, which is never greater.
            if found[index] > best[index] and np.nanmean(found) > np.nanmean(best):
                kept, best = (*kept, step), found
    return kept


def _dice(pairs: Pairs, steps: Sequence[Step], num_classes: int) -> Any:
    """Return the Dice of each class, averaged over cases; background is NaN."""
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
