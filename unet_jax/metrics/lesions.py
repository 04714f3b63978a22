"""Scores that count lesions, not pixels."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import ndimage


class LesionScores(NamedTuple):
    """What `lesion_scores` gives.

    Attributes:
        f1: of the detection of lesions.
        dice: mean Dice over the lesions and the false alarms.
        labelled: number of lesions in the label.
        found: how many of them the prediction touches.
        false_alarms: number of predicted lesions that touch no labelled one.
    """

    f1: float
    dice: float
    labelled: int
    found: int
    false_alarms: int


def lesion_scores(
    *,
    prediction: Bool[np.ndarray, "*spatial"],
    label: Bool[np.ndarray, "*spatial"],
) -> LesionScores:
    """Detection F1 and lesion-wise Dice of two masks.

    A lesion is a connected component; pixels are connected through corners too (8
    neighbours in 2-D, 26 in 3-D). The matching rule: a labelled lesion is found if it
    shares at least one pixel with the prediction, and it is matched with *all* the
    predicted lesions that it shares a pixel with; a predicted lesion that shares none
    with any is a false alarm. With F found of N labelled lesions, and A false alarms:

    ``F1 = 2 F / (2 F + (N - F) + A) = 2 F / (F + N + A)``

    ``lesion Dice = (sum over labelled lesions of Dice(lesion, its matches)) / (N + A)``

    so a missed lesion and a false alarm count as Dice 0 each, whatever their size.
    Lesions that lie close are not merged first (the BraTS challenge dilates them).

    Args:
        prediction: the predicted mask.
        label: the true mask.

    Returns:
        Scores in [0, 1] and counts; 0 where one mask is empty, NaN where both are.

    Source: Saluja et al. 2023, BraTS 2023 lesion-wise metrics, for the matching and the
    Dice; Carass et al. 2017, "Longitudinal multiple sclerosis lesion segmentation", for
    detection by one shared voxel.

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
    # A row a pair of lesions that meet, and how many pixels they share.
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
