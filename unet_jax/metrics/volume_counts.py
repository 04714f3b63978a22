"""Counts an image of any size in chunks of one shape, which compiles once."""

from collections.abc import Iterator

import numpy as np

from unet_jax.labels import IGNORE
from unet_jax.metrics.overlap import ConfusionCounts, confusion_counts

_ROWS, _PIXELS = 16, 2**14
"""Shape of one chunk: an image is cut and padded to it, so that the counter compiles
once and needs little memory."""


def slice_counts(
    prediction: np.ndarray,
    label: np.ndarray,
    *,
    axis: int | None,
    num_classes: int,
) -> ConfusionCounts:
    """Count true and false positives and negatives of each slice of an image.

    Args:
        prediction: class index of every pixel.
        label: class index of every pixel, or IGNORE.
        axis: axis of the slices; None to count the image as one slice.
        num_classes: number of classes, background included.

    Returns:
        int64 counts ``(slices, classes)``.
    """
    if axis is None:
        prediction, label = prediction[None], label[None]
    else:
        prediction, label = (
            np.moveaxis(prediction, axis, 0),
            np.moveaxis(label, axis, 0),
        )
    slices = label.shape[0]
    predicted = _blocks(prediction.reshape(slices, -1), 0)
    labelled = _blocks(label.reshape(slices, -1), IGNORE)
    calls = [
        np.stack(
            confusion_counts(predictions=p, labels=y, num_classes=num_classes)
        ).astype(np.int64)
        for p, y in zip(predicted, labelled, strict=True)
    ]
    # (4, calls * rows, classes); the last rows are padding.
    rows = np.concatenate(calls, axis=1)
    per_slice = -(-label[0].size // _PIXELS)
    rows = rows[:, : slices * per_slice].reshape(4, slices, per_slice, num_classes)
    return ConfusionCounts(*rows.sum(axis=2))


def _blocks(pixels: np.ndarray, fill: int) -> Iterator[np.ndarray]:
    """Cut ``(slices, pixels)`` into int32 ``(_ROWS, _PIXELS)``, padded, one by one."""
    parts = [
        line[first : first + _PIXELS]
        for line in pixels
        for first in range(0, len(line), _PIXELS)
    ]
    for first in range(0, len(parts), _ROWS):
        block = np.full((_ROWS, _PIXELS), fill, np.int32)
        for row, part in zip(block, parts[first : first + _ROWS], strict=False):
            row[: len(part)] = part
        yield block
