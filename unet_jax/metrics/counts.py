"""Computes scores other than Dice and IoU from the counts of `confusion_counts`.

A score is NaN where the class is absent from prediction and label. Where the class is
in only one of the two, a score whose denominator is 0 is 0, the worst value: leaving it
out would reward a missed structure. Scores are float32 for counts from
`confusion_counts`, and float64 for NumPy sums of them.
"""

from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unet_jax.metrics.overlap import ConfusionCounts, iou_from_counts, ratio

ClassValues = Float[Array, "batch classes"] | Float[np.ndarray, "batch classes"]
CaseValues = Float[Array, " batch"] | Float[np.ndarray, " batch"]


def precision_from_counts(counts: ConfusionCounts) -> ClassValues:
    """Precision (positive predictive value): ``tp / (tp + fp)``.

    Returns: Values in [0, 1]; 0 where a class is labelled and not predicted, NaN where
        it is absent from both.
    Source: van Rijsbergen 1979, "Information retrieval", chapter 7.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=3 * one, fp=one, fn=0 * one, tn=one)
        >>> precision_from_counts(counts).item()
        0.75
    """
    tp, fp, fn, _ = _floats(counts)
    return ratio(tp, tp + fp + fn * (tp + fp == 0))


def recall_from_counts(counts: ConfusionCounts) -> ClassValues:
    """Recall (sensitivity, true positive rate): ``tp / (tp + fn)``.

    Returns: Values in [0, 1]; 0 where a class is predicted and not labelled, NaN where
        it is absent from both.
    Source: van Rijsbergen 1979, "Information retrieval", chapter 7.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=one, fp=one, fn=3 * one, tn=one)
        >>> recall_from_counts(counts).item()
        0.25
    """
    tp, fp, fn, _ = _floats(counts)
    return ratio(tp, tp + fn + fp * (tp + fn == 0))


def specificity_from_counts(counts: ConfusionCounts) -> ClassValues:
    """Specificity (true negative rate): ``tn / (tn + fp)``.

    A missed structure never lowers the specificity and may raise it.

    Returns: Values in [0, 1]; NaN where a class is absent from both, or every pixel is
        labelled as it.
    Source: Altman and Bland 1994, "Diagnostic tests 1: sensitivity and specificity".

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=one, fp=one, fn=one, tn=3 * one)
        >>> specificity_from_counts(counts).item()
        0.75
    """
    tp, fp, fn, tn = _floats(counts)
    return _where(tp + fp + fn > 0, ratio(tn, tn + fp), np.nan)


def f_beta_from_counts(counts: ConfusionCounts, *, beta: SupportsFloat) -> ClassValues:
    """F-beta: ``(1 + b^2) tp / ((1 + b^2) tp + b^2 fn + fp)``.

    The weighted harmonic mean of precision and recall; recall has b times the weight of
    precision. b = 1 is Dice.

    Args:
        beta: the weight b, above 0.

    Returns: Values in [0, 1]; NaN where a class is absent from both.
    Raises: ValueError: beta is not above 0.
    Source: van Rijsbergen 1979, "Information retrieval", chapter 7.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=one, fp=0 * one, fn=one, tn=one)
        >>> round(f_beta_from_counts(counts, beta=2).item(), 6)
        0.555556
    """
    square = float(beta) ** 2
    if not float(beta) > 0:
        raise ValueError(f"found beta={beta}, expected a number above 0")
    tp, fp, fn, _ = _floats(counts)
    weighted = (1 + square) * tp
    return ratio(weighted, weighted + square * fn + fp)


def mcc_from_counts(counts: ConfusionCounts) -> ClassValues:
    """Matthews correlation coefficient of a class against the rest.

    ``(tp tn - fp fn) / sqrt((tp + fp)(tp + fn)(tn + fp)(tn + fn))``. The value is 0
    where the root is 0, but 1 where every pixel is labelled and predicted as the class.

    Returns: Values in [-1, 1]; NaN where a class is absent from both.
    Source: Matthews 1975; Chicco and Jurman 2020, "The advantages of the Matthews
        correlation coefficient", for the limits.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=3 * one, fp=one, fn=one, tn=3 * one)
        >>> mcc_from_counts(counts).item()
        0.5
    """
    tp, fp, fn, tn = _floats(counts)
    # Two roots: the product of four counts of a volume may overflow float32.
    scale = _root((tp + fp) * (tp + fn)) * _root((tn + fp) * (tn + fn))
    value = _where(scale > 0, ratio(tp * tn - fp * fn, scale), 0.0)
    value = _where((tp > 0) & (fp + fn + tn == 0), 1.0, value)
    return _where(tp + fp + fn > 0, value, np.nan)


def volume_similarity_from_counts(counts: ConfusionCounts) -> ClassValues:
    """Volume similarity: ``1 - |fn - fp| / (2 tp + fp + fn)``.

    The score compares sizes, not positions: it is 1 for disjoint volumes of equal size.

    Returns: Values in [0, 1]; NaN where a class is absent from both.
    Source: Taha and Hanbury 2015, "Metrics for evaluating 3D medical image
        segmentation", eq. 21.

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=one, fp=0 * one, fn=2 * one, tn=one)
        >>> volume_similarity_from_counts(counts).item()
        0.5
    """
    tp, fp, fn, _ = _floats(counts)
    return 1 - ratio(abs(fn - fp), 2 * tp + fp + fn)


def relative_volume_difference_from_counts(counts: ConfusionCounts) -> ClassValues:
    """Relative volume difference: ``(fp - fn) / (tp + fn)``.

    It has a sign, so errors of several cases may cancel: a missed structure and one
    that is segmented too large can average to 0.

    Returns: Values of -1 (missed) or more; NaN where a class is not labelled.
    Source: Heimann et al. 2009, "Comparison and evaluation of methods for liver
        segmentation from CT datasets".

    Example:
        >>> one = np.ones((1, 1), int)
        >>> counts = ConfusionCounts(tp=4 * one, fp=one, fn=0 * one, tn=one)
        >>> relative_volume_difference_from_counts(counts).item()
        0.25
    """
    tp, fp, fn, _ = _floats(counts)
    return _where(tp + fn > 0, ratio(fp - fn, tp + fn), np.nan)


def mean_iou_from_counts(counts: ConfusionCounts) -> CaseValues:
    """Mean IoU of each sample over the classes that are labelled or predicted.

    Args:
        counts: counts of the classes to average.

    Returns: Values in [0, 1]; NaN where no class is labelled or predicted.
    Source: Long et al. 2015, "Fully convolutional networks", section 5.

    Example:
        >>> tp, fp, fn, tn = np.array([[[1, 3]], [[1, 0]], [[0, 1]], [[3, 1]]])
        >>> counts = ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=tn)
        >>> mean_iou_from_counts(counts).item()
        0.625
    """
    tp, fp, fn, _ = _floats(counts)
    present = tp + fp + fn > 0
    values = _where(present, iou_from_counts(counts), 0.0)
    return ratio(values.sum(-1), present.sum(-1))


def frequency_weighted_iou_from_counts(counts: ConfusionCounts) -> CaseValues:
    """IoU of each sample, weighted by how often each class is labelled.

    ``sum_c t_c IoU_c / sum_c t_c`` with ``t = tp + fn``.

    Args:
        counts: counts of the classes to average.

    Returns: Values in [0, 1]; 0 where classes are predicted and none is labelled, NaN
        where no class is labelled or predicted.
    Source: Long et al. 2015, "Fully convolutional networks", section 5.

    Example:
        >>> tp, fp, fn, tn = np.array([[[1, 3]], [[1, 0]], [[0, 1]], [[3, 1]]])
        >>> counts = ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=tn)
        >>> frequency_weighted_iou_from_counts(counts).item()
        0.7
    """
    tp, fp, fn, _ = _floats(counts)
    labelled = tp + fn
    values = _where(tp + fp + fn > 0, iou_from_counts(counts), 0.0)
    total = labelled.sum(-1)
    return ratio((labelled * values).sum(-1), total + fp.sum(-1) * (total == 0))


def pixel_accuracy_from_counts(counts: ConfusionCounts) -> CaseValues:
    """Fraction of correct pixels of each sample.

    Args:
        counts: counts of *every* class, the background included.

    Returns: Values in [0, 1]; NaN where every pixel is ignored.
    Source: Long et al. 2015, "Fully convolutional networks", section 5.

    Example:
        >>> tp, fp, fn, tn = np.array([[[1, 3]], [[1, 0]], [[0, 1]], [[3, 1]]])
        >>> counts = ConfusionCounts(tp=tp, fp=fp, fn=fn, tn=tn)
        >>> pixel_accuracy_from_counts(counts).item()
        0.8
    """
    tp, _, fn, _ = _floats(counts)
    return ratio(tp.sum(-1), (tp + fn).sum(-1))


def _floats(counts: ConfusionCounts) -> tuple[Any, Any, Any, Any]:
    """Convert counts to float: products and sums of int32 counts may overflow."""
    tp, fp, fn, tn = (1.0 * count for count in counts)
    return tp, fp, fn, tn


def _where(condition: Any, chosen: Any, other: Any) -> Any:
    """Apply ``where`` of jax or NumPy, by the type of the condition."""
    numpy = jnp if isinstance(condition, jax.Array) else np
    return numpy.where(condition, chosen, other)


def _root(values: Any) -> Any:
    """Square root of arrays of jax or NumPy."""
    return values**0.5
