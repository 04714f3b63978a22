"""Says which classes were labelled in each case, where not all were in every case."""

from collections.abc import Sequence

import numpy as np

from unet_jax.data.case import Source
from unet_jax.data.subset import Subset
from unet_jax.labels import IGNORE


def labelled_rows(source: Source, num_classes: int) -> np.ndarray | None:
    """Return which classes are labelled in each case of a source.

    Returns:
        ``(cases, classes)`` bool; None where every case has all classes labelled.

    Example:
        >>> labelled_rows(["a case without such a method"], 3) is None
        True
    """
    if not hasattr(source, "labelled_classes"):
        return None
    found = [source.labelled_classes(index) for index in range(len(source))]
    if all(one is None for one in found):
        return None
    every = tuple(range(num_classes))
    return np.stack([labelled_row(one or every, num_classes) for one in found])


def labelled_row(labelled: Sequence[int], num_classes: int) -> np.ndarray:
    """Return which classes ``(classes)`` are labelled; the background always is.

    Example:
        >>> labelled_row((2,), 4).tolist()
        [True, False, True, False]
    """
    row = np.isin(np.arange(num_classes), labelled)
    row[0] = True
    return row


def with_background(labels: np.ndarray, labelled: Sequence[int] | None) -> np.ndarray:
    """Return labels in which every class that is not labelled is background.

    Args:
        labels: ``(*spatial)`` class indices, or ``IGNORE``.
        labelled: classes that are labelled in this case; None for all.

    Example:
        >>> with_background(np.array([0, 1, 2, -1]), (1,)).tolist()
        [0, 1, 0, -1]
    """
    if labelled is None:
        return labels
    return np.where(np.isin(labels, (*labelled, IGNORE)), labels, labels.dtype.type(0))


def merged_probabilities(
    probabilities: np.ndarray, labelled: Sequence[int] | None
) -> np.ndarray:
    """Add the probabilities of classes that are not labelled to the background's.

    Args:
        probabilities: ``(*spatial, classes)``.
        labelled: classes that are labelled in this case; None for all.

    Example:
        >>> merged_probabilities(np.array([0.25, 0.5, 0.25]), (1,)).tolist()
        [0.5, 0.5, 0.0]
    """
    if labelled is None:
        return probabilities
    row = labelled_row(labelled, probabilities.shape[-1])
    found = np.where(row, probabilities, 0)
    others = probabilities[..., ~row].sum(axis=-1)
    # Those of sigmoids do not add up to 1.
    found[..., 0] = np.minimum(found[..., 0] + others, 1)
    return found


def with_all_labelled(source: Source) -> Source:
    """Return the cases of a source in which all classes are labelled."""
    if not hasattr(source, "labelled_classes"):
        return source
    cases = range(len(source))
    whole = tuple(i for i in cases if source.labelled_classes(i) is None)
    return source if len(whole) == len(source) else Subset(source, whole)
