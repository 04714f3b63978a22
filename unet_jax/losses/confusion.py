"""Losses of correct and wrong pixels, with true negatives among them."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.losses.targets import (
    Head,
    pixel_axes,
    probabilities_and_targets,
    weighted_by_class,
)


def sensitivity_specificity_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    sensitivity_weight: float = 0.05,
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Mean squared error on the pixels of a class and on all others, weighted.

    .. math::
        L_c = r\frac{\sum_i (p_{ic}-y_{ic})^2 y_{ic}}{\sum_i y_{ic} + s}
            + (1-r)\frac{\sum_i (p_{ic}-y_{ic})^2 (1-y_{ic})}{\sum_i (1-y_{ic}) + s}

    Args:
        logits, labels, head, class_weights: as for `dice_loss`.
        sensitivity_weight: :math:`r`, the weight of the pixels of the class.
        smooth: number added to the denominators.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Brosch et al.: Deep convolutional encoder networks for multiple sclerosis
        lesion segmentation (MICCAI 2015), eq. 4.

    Example:
        >>> logits, labels = jnp.zeros((1, 4, 2)), jnp.ones((1, 4), int)
        >>> sensitivity_specificity_loss(logits=logits, labels=labels).round(4)
        Array([[0.2375, 0.0125]], dtype=float32)
    """
    p, target, valid = probabilities_and_targets(logits, labels, head)
    error = jnp.square(p - target) * valid
    axes, rest = pixel_axes(p), (1 - target) * valid
    missed = jnp.sum(error * target, axes) / (jnp.sum(target, axes) + smooth)
    wrong = jnp.sum(error * rest, axes) / (jnp.sum(rest, axes) + smooth)
    loss = sensitivity_weight * missed + (1 - sensitivity_weight) * wrong
    return weighted_by_class(loss, class_weights)


def mcc_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""One minus the soft Matthews correlation of each sample and class.

    .. math::
        L_c = 1 - \frac{TP\cdot TN - FP\cdot FN}
              {\sqrt{(TP+FP)(TP+FN)(TN+FP)(TN+FN)}}

    with :math:`TP=s+\sum p y`, :math:`TN=s+\sum (1-p)(1-y)`,
    :math:`FP=\sum p(1-y)` and :math:`FN=\sum (1-p)y`. The summand :math:`s` is 1e-6 of
    a pixel: missing all of a class costs at least 0.999, however small the class is.
    The correlation is not defined for a class that has no pixel of a sample, or all of
    them; there :math:`s` is ``smooth``, so that a class that is neither labelled nor
    predicted costs 0, and one that is predicted costs more with every pixel.

    Args:
        logits, labels, head, class_weights: as for `dice_loss`.
        smooth: pixels added to :math:`TP` and :math:`TN` of a class that has no pixel
            of a sample, or all of them.

    Returns: Values in [0, 2] times the weight, float32.
    Source: Abhishek, Hamarneh: Matthews correlation coefficient loss (ISBI 2021), eq.
        6.

    Example:
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> loss = mcc_loss(logits=logits, labels=jnp.array([[1, 0]]))
        >>> [round(float(value), 3) for value in loss[0]]
        [2.0, 2.0]
        >>> nothing = jnp.array([[[9.0, -9.0], [9.0, -9.0]]])
        >>> loss = mcc_loss(logits=nothing, labels=jnp.array([[1, 0]]))
        >>> [round(float(value), 2) for value in loss[0]]
        [1.0, 1.0]
    """
    p, target, valid = probabilities_and_targets(logits, labels, head)
    p = p * valid
    axes, rest = pixel_axes(p), (1 - target) * valid
    positives, negatives = jnp.sum(target, axes), jnp.sum(rest, axes)
    defined = (positives > 0) & (negatives > 0)
    added = jnp.where(defined, 1e-6, smooth)
    tp, fn = jnp.sum(p * target, axes) + added, jnp.sum((1 - p) * target, axes)
    fp, tn = jnp.sum(p * rest, axes), jnp.sum((1 - p) * rest, axes) + added
    # Two roots: the product of four counts of a volume may overflow float32.
    root = jnp.sqrt((tp + fp) * (tp + fn)) * jnp.sqrt((tn + fp) * (tn + fn))
    return weighted_by_class(1 - (tp * tn - fp * fn) / root, class_weights)
