"""Counts true and false positives and negatives of each slice of an image."""

import numpy as np

from unet_jax.labels import IGNORE
from unet_jax.metrics.overlap import ConfusionCounts


def slice_counts(
    prediction: np.ndarray, label: np.ndarray, *, axis: int | None, num_classes: int
) -> ConfusionCounts:
    """Count true and false positives and negatives of each slice of an image.

    Args:
        prediction: class index of every pixel.
        label: class index of every pixel, or IGNORE.
        axis: axis of the slices; None to count the image as one slice.
        num_classes: number of classes, background included.

    Returns: int64 counts ``(slices, classes)``.
    """
    return counts_of(
        confusion_tables(prediction, label, axis=axis, num_classes=num_classes)
    )


def confusion_tables(
    prediction: np.ndarray, label: np.ndarray, *, axis: int | None, num_classes: int
) -> np.ndarray:
    """Count the pixels of each labelled and predicted class in each slice.

    Args:
        prediction, label, axis, num_classes: as for `slice_counts`.

    Returns: int64 counts ``(slices, classes, classes)``: a row for each labelled class,
        a column for each predicted class.
    """
    slices = zip(
        np.moveaxis(prediction, axis or 0, 0),
        np.moveaxis(label, axis or 0, 0),
        strict=True,
    )
    tables = np.stack([_table(*pair, num_classes) for pair in slices])
    if axis is None:
        tables = tables.sum(axis=0, keepdims=True)
    return tables


def counts_of(tables: np.ndarray) -> ConfusionCounts:
    """Return the counts ``(slices, classes)`` of tables of `confusion_tables`."""
    tp = np.diagonal(tables, axis1=1, axis2=2)
    fp, fn = tables.sum(axis=1) - tp, tables.sum(axis=2) - tp
    tn = tables.sum(axis=(1, 2))[:, None] - tp - fp - fn
    return ConfusionCounts(tp, fp, fn, tn)


def _table(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each true class (rows) and predicted class (columns), int64."""
    valid = label != IGNORE
    codes = label[valid].astype(np.int64) * num_classes + prediction[valid]
    table = np.bincount(codes, minlength=num_classes**2).astype(np.int64)
    return table.reshape(num_classes, num_classes)
