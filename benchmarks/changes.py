"""Measures what augmentation changes on average, to compare both sides."""

import itertools
from collections.abc import Iterable

import numpy as np


def describe(
    original: np.ndarray, drawn: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Average over many draws of one example.

    Args:
        original: image ``(*spatial)`` before augmentation.
        drawn: images and labels ``(*spatial)`` after augmentation.

    Returns:
        The mean over the draws of each image's mean (``mean``), of its standard
        deviation (``std``), and of the fraction of its label that is not 0
        (``labelled``); and the fraction of draws that are neither the original nor a
        mirror image of it (``changed``).
    """
    axes = range(original.ndim)
    mirrored = [
        np.flip(original, chosen)
        for count in range(original.ndim + 1)
        for chosen in itertools.combinations(axes, count)
    ]
    rows = [
        (
            image.mean(),
            image.std(),
            (label != 0).mean(),
            all(np.abs(image - same).max() > 1e-5 for same in mirrored),
        )
        for image, label in drawn
    ]
    means = np.mean(np.array(rows, np.float64), axis=0)
    return dict(zip(("mean", "std", "labelled", "changed"), means, strict=True))


def crop_statistics(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Average over batches of crops.

    Args:
        batches: images and labels ``(batch, *patch)``.

    Returns:
        ``mean`` and ``std`` of the images, and the fraction of pixels that are
        ``labelled``, averaged over the batches.
    """
    rows = [(image.mean(), image.std(), (label > 0).mean()) for image, label in batches]
    means = np.mean(np.array(rows, np.float64), axis=0)
    return dict(zip(("mean", "std", "labelled"), means, strict=True))
