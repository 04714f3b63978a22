"""Counts true and false positives and negatives; computes Dice and IoU from them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from unet_jax.labels import IGNORE


class ConfusionCounts(NamedTuple):
    """Pixels of each sample and class, ``(batch, classes)`` integers.

    Counts of replicas or cases are added before they are divided, because the mean of
    the Dice of each replica is not the Dice of all.

    Attributes:
        tp: predicted as the class and labelled so.
        fp: predicted as the class, labelled otherwise.
        fn: labelled as the class, predicted otherwise.
        tn: neither predicted nor labelled as the class.
    """

    tp: Integer[Array, "batch classes"] | Integer[np.ndarray, "batch classes"]
    fp: Integer[Array, "batch classes"] | Integer[np.ndarray, "batch classes"]
    fn: Integer[Array, "batch classes"] | Integer[np.ndarray, "batch classes"]
    tn: Integer[Array, "batch classes"] | Integer[np.ndarray, "batch classes"]


@functools.partial(jax.jit, static_argnames="num_classes")
def confusion_counts(
    *,
    predictions: Integer[Array, "batch *spatial"]
    | Integer[np.ndarray, "batch *spatial"],
    labels: Integer[Array, "batch *spatial"] | Integer[np.ndarray, "batch *spatial"],
    num_classes: int,
) -> ConfusionCounts:
    """Count true and false positives and negatives of each sample and class.

    With p and y the 0/1 prediction and label of a class, summed over the pixels of a
    sample whose label is not IGNORE: ``tp = sum(p*y)``, ``fp = sum(p*(1-y))``,
    ``fn = sum((1-p)*y)``, ``tn = sum((1-p)*(1-y))``.

    Args:
        predictions: class index of every pixel.
        labels: class index of every pixel; IGNORE pixels are left out.
        num_classes: number of classes, background included.

    Returns: Exact int32 counts, each ``(batch, classes)``.
    Raises: ValueError: a sample has more pixels than int32 can count.

    Example:
        >>> counts = confusion_counts(
        ...     predictions=jnp.array([[0, 1, 1, 0]]),
        ...     labels=jnp.array([[0, 1, 0, -1]]),
        ...     num_classes=2,
        ... )
        >>> counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()
        ([[1, 1]], [[0, 1]], [[1, 0]])
    """
    batch = labels.shape[0]
    pixels = int(np.prod(labels.shape[1:], dtype=np.int64))
    if pixels > np.iinfo(np.int32).max:
        raise ValueError(
            f"found a sample of {pixels} pixels, more than int32 can count; split it "
            "and add the counts"
        )
    # Convert to int32 first: uint8 has no -1.
    labels = labels.astype(jnp.int32).reshape(batch, pixels)
    predictions = predictions.astype(jnp.int32).reshape(batch, pixels)
    valid = labels != IGNORE

    def count_class(index):
        predicted, labelled = (predictions == index) & valid, labels == index
        return _count(predicted & labelled), _count(predicted), _count(labelled)

    # Classes one by one: a one-hot array of a volume may not fit in memory.
    each = jax.lax.map(count_class, jnp.arange(num_classes, dtype=jnp.int32))
    tp, predicted, labelled = (jnp.swapaxes(counts, 0, 1) for counts in each)
    tn = _count(valid)[:, None] - predicted - labelled + tp
    return ConfusionCounts(tp=tp, fp=predicted - tp, fn=labelled - tp, tn=tn)


def dice_from_counts(
    counts: ConfusionCounts,
) -> Float[Array, "batch classes"] | Float[np.ndarray, "batch classes"]:
    """Dice coefficient (F1) of each sample and class: ``2*tp / (2*tp + fp + fn)``.

    Args:
        counts: counts from `confusion_counts`, or NumPy sums of them.

    Returns: Values in [0, 1], float32 for jax counts and float64 for NumPy counts; NaN
        where a class is absent from both prediction and label.
    Source: Dice 1945, "Measures of the amount of ecologic association between species".

    Example:
        >>> one = np.ones((1, 1), int)
        >>> dice_from_counts(ConfusionCounts(tp=one, fp=one, fn=0 * one, tn=one)).item()
        0.6666666666666666
    """
    # Convert to float first: twice an int32 count may overflow.
    intersection = 2.0 * counts.tp
    return ratio(intersection, intersection + counts.fp + counts.fn)


def iou_from_counts(
    counts: ConfusionCounts,
) -> Float[Array, "batch classes"] | Float[np.ndarray, "batch classes"]:
    """Intersection over union of each sample and class: ``tp / (tp + fp + fn)``.

    Args:
        counts: counts from `confusion_counts`, or NumPy sums of them.

    Returns: Values in [0, 1], float32 for jax counts and float64 for NumPy counts; NaN
        where a class is absent from both prediction and label.
    Source: Jaccard 1912, "The distribution of the flora in the alpine zone".

    Example:
        >>> one = np.ones((1, 1), int)
        >>> iou_from_counts(ConfusionCounts(tp=one, fp=one, fn=0 * one, tn=one)).item()
        0.5
    """
    intersection = 1.0 * counts.tp
    return ratio(intersection, intersection + counts.fp + counts.fn)


@functools.partial(jax.jit, static_argnames="squared")
def dice_score(
    *,
    probabilities: Float[Array, "batch *spatial classes"],
    labels: Integer[Array, "batch *spatial"],
    squared: bool = True,
) -> Float[Array, "batch classes"]:
    """Soft Dice coefficient of each sample and class.

    ``2*sum(p*y) / (sum(p^2) + sum(y^2))`` with p the probability and y the 0/1 label
    of a class, summed over the pixels of a sample whose label is not IGNORE. With
    ``squared=False`` the denominator is ``sum(p) + sum(y)``. For one-hot probabilities
    both equal `dice_from_counts`.

    Args:
        probabilities: class probabilities in [0, 1].
        labels: class index of every pixel; IGNORE pixels are left out.
        squared: square the terms of the denominator (Milletari et al. 2016, eq. 2).

    Returns: Values in [0, 1]; NaN where a class is absent from prediction and label.
    Source: Milletari et al. 2016, "V-Net", section 3.

    Example:
        >>> probabilities = jnp.array([[[0.5, 0.5], [0.0, 1.0]]])
        >>> score = dice_score(probabilities=probabilities, labels=jnp.array([[1, 1]]))
        >>> [round(value, 4) for value in score[0].tolist()]
        [0.0, 0.9231]
    """
    p, y = _masked(probabilities, labels)
    if squared:
        denominator = _pixel_sum(p**2) + _pixel_sum(y**2)
    else:
        denominator = _pixel_sum(p) + _pixel_sum(y)
    return ratio(2.0 * _pixel_sum(p * y), denominator)


@jax.jit
def iou_score(
    *,
    probabilities: Float[Array, "batch *spatial classes"],
    labels: Integer[Array, "batch *spatial"],
) -> Float[Array, "batch classes"]:
    """Soft intersection over union of each sample and class.

    ``sum(p*y) / (sum(p) + sum(y) - sum(p*y))`` with p the probability and y the 0/1
    label of a class, summed over the pixels of a sample whose label is not IGNORE. For
    one-hot probabilities it equals `iou_from_counts`.

    Args:
        probabilities: class probabilities in [0, 1].
        labels: class index of every pixel; IGNORE pixels are left out.

    Returns: Values in [0, 1]; NaN where a class is absent from prediction and label.
    Source: Rahman and Wang 2016, "Optimizing intersection-over-union in deep neural
        networks for image segmentation", eq. 3.

    Example:
        >>> probabilities = jnp.array([[[0.5, 0.5], [0.0, 1.0]]])
        >>> iou_score(probabilities=probabilities, labels=jnp.array([[1, 1]])).tolist()
        [[0.0, 0.75]]
    """
    p, y = _masked(probabilities, labels)
    intersection = _pixel_sum(p * y)
    return ratio(intersection, _pixel_sum(p) + _pixel_sum(y) - intersection)


def _count(mask: Bool[Array, "batch pixels"]) -> Integer[Array, " batch"]:
    """Sum in int32: float32 sums are not exact above 2^24 pixels."""
    return jnp.sum(mask, axis=-1, dtype=jnp.int32)


def _masked(
    probabilities: Float[Array, "batch *spatial classes"],
    labels: Integer[Array, "batch *spatial"],
) -> tuple[Float[Array, "batch pixels classes"], Float[Array, "batch pixels classes"]]:
    """Probabilities and one-hot labels in float32 at least, both 0 where ignored."""
    batch, num_classes = labels.shape[0], probabilities.shape[-1]
    dtype = jnp.promote_types(probabilities.dtype, jnp.float32)
    labels = labels.astype(jnp.int32).reshape(batch, -1)
    # one_hot gives zeros for an index outside the classes, such as IGNORE.
    y = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    p = probabilities.astype(dtype).reshape(batch, -1, num_classes)
    # where, not a product: it also removes a NaN at an ignored pixel.
    return jnp.where((labels != IGNORE)[..., None], p, 0), y


def _pixel_sum(
    values: Float[Array, "batch pixels classes"],
) -> Float[Array, "batch classes"]:
    """Sum over the pixels of a sample."""
    return jnp.sum(values, axis=1)


def ratio(numerator: Any, denominator: Any) -> Any:
    """Divide arrays of jax or NumPy without warnings; 0/0 is NaN on purpose."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return numerator / denominator
