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
        L_c = 1 - \frac{TP\cdot TN - FP\cdot FN + s}
              {\sqrt{(TP+FP)(TP+FN)(TN+FP)(TN+FN) + s^2}}

    Numerator and root are divided by the number of pixels before the smoothing
    :math:`s` is added, so that it has the same effect in small and large images.

    Args:
        logits, labels, head, class_weights: as for `dice_loss`.
        smooth: number above 0; the loss of a class that is neither labelled nor
            predicted is then 0.

    Returns: Values in [0, 2] times the weight, float32.
    Source: Abhishek, Hamarneh: Matthews correlation coefficient loss (ISBI 2021), eq.
        6.

    Example:
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> loss = mcc_loss(logits=logits, labels=jnp.array([[1, 0]]), smooth=1e-5)
        >>> [round(float(value), 3) for value in loss[0]]
        [2.0, 2.0]
    """
    p, target, valid = probabilities_and_targets(logits, labels, head)
    p = p * valid
    axes, rest = pixel_axes(p), (1 - target) * valid
    root = jnp.sqrt(jnp.maximum(jnp.sum(target + rest, axes), 1))
    tp, fn = jnp.sum(p * target, axes), jnp.sum((1 - p) * target, axes)
    fp, tn = jnp.sum(p * rest, axes), jnp.sum((1 - p) * rest, axes)
    tp, fn, fp, tn = (each / root for each in (tp, fn, fp, tn))
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    loss = 1 - (tp * tn - fp * fn + smooth) / jnp.sqrt(product + smooth**2)
    return weighted_by_class(loss, class_weights)
