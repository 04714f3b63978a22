"""Scores the detection and the outlines of lesions."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import ndimage


class LesionScores(NamedTuple):
    """Scores and counts from `lesion_scores`.

    Attributes:
        f1: F1 score of the detection of lesions.
        dice: mean Dice over the lesions and the false alarms.
        labelled: number of lesions in the label.
        found: number of labelled lesions that the prediction overlaps.
        false_alarms: number of predicted lesions that overlap no labelled lesion.
    """

    f1: float
    dice: float
    labelled: int
    found: int
    false_alarms: int


def lesion_scores(
    *, prediction: Bool[np.ndarray, "*spatial"], label: Bool[np.ndarray, "*spatial"]
) -> LesionScores:
    """Detection F1 and lesion-wise Dice of two masks.

    A lesion is a connected component; pixels that touch at a corner are connected (8
    neighbours in 2-D, 26 in 3-D). A labelled lesion is found if at least one of its
    pixels is predicted; it is matched with *all* predicted lesions that overlap it. A
    predicted lesion that overlaps no labelled lesion is a false alarm. With F found of
    N labelled lesions, and A false alarms:

    ``F1 = 2 F / (2 F + (N - F) + A) = 2 F / (F + N + A)``

    ``lesion Dice = (sum over labelled lesions of Dice(lesion, its matches)) / (N + A)``

    A missed lesion and a false alarm have Dice 0 each, whatever their size. Nearby
    lesions are not merged first (the BraTS challenge dilates them).

    Args:
        prediction: predicted mask.
        label: true mask.

    Returns: Scores in [0, 1] and counts; 0 where one mask is empty, NaN where both are.
    Source: Saluja et al. 2023, BraTS 2023 lesion-wise metrics, for the matching and the
        Dice; Carass et al. 2017, "Longitudinal multiple sclerosis lesion segmentation",
        for detection by one shared voxel.

    Example:
        >>> label = np.array([[1, 1, 0, 0, 0, 1, 1, 0, 0]], bool)
        >>> prediction = np.array([[1, 0, 0, 1, 0, 0, 0, 0, 0]], bool)
        >>> scores = lesion_scores(prediction=prediction, label=label)
        >>> scores.f1, round(scores.dice, 4), scores.false_alarms
        (0.5, 0.2222, 1)
    """
    neighbours = np.ones((3,) * label.ndim, bool)
    of_label, labelled = ndimage.label(label, neighbours)
    of_prediction, predicted = ndimage.label(prediction, neighbours)
    if labelled + predicted == 0:
        return LesionScores(math.nan, math.nan, 0, 0, 0)
    shared = label & prediction
    # Pairs of overlapping lesions, and the number of common pixels of each.
    pairs = of_label[shared].astype(np.int64) * (predicted + 1) + of_prediction[shared]
    keys, pixels = np.unique(pairs, return_counts=True)
    lesion, match = keys // (predicted + 1), keys % (predicted + 1)
    label_sizes = np.bincount(of_label[label], minlength=labelled + 1)
    prediction_sizes = np.bincount(of_prediction[prediction], minlength=predicted + 1)
    both = np.bincount(lesion, pixels, labelled + 1)[1:]
    matched = np.bincount(lesion, prediction_sizes[match], labelled + 1)[1:]
    dice = 2 * both / (label_sizes[1:] + matched)
    found = int((both > 0).sum())
    false_alarms = predicted - len(np.unique(match))
    return LesionScores(
        f1=2 * found / (found + labelled + false_alarms),
        dice=float(dice.sum() / (labelled + false_alarms)),
        labelled=labelled,
        found=found,
        false_alarms=false_alarms,
    )
