"""Losses of the overlap between a predicted and a true region."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.losses.targets import (
    Head,
    pixel_axes,
    probabilities_and_targets,
    weighted_by_class,
)


class _Sums(NamedTuple):
    """Sums over the pixels of each sample and class, ``(batch, classes)``."""

    intersection: Array
    predicted: Array
    true: Array


def dice_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    squared: bool = True,
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
    batch_dice: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch classes"]:
    r"""Soft Dice loss of each sample and class.

    .. math::
        L_c = 1 - \frac{2\sum_i p_{ic} y_{ic} + s}{\sum_i p_{ic}^2 + \sum_i y_{ic} + s}

    with :math:`p` the probabilities, :math:`y` the 0/1 target, :math:`s` the
    smoothing, and :math:`i` over the pixels that are not ignored.

    Args:
        logits: unnormalised class scores.
        labels: ``(batch, *spatial)`` class index of every pixel; IGNORE (-1) pixels
            are left out. With the sigmoid head also regions, ``(batch, *spatial,
            classes)`` of 0, 1 and IGNORE.
        head: "softmax" or "sigmoid".
        squared: square the probabilities in the denominator (Milletari et al. 2016,
            eq. 2); False gives the plain sum.
        smooth: number added to numerator and denominator, which keeps the loss of an
            absent class finite.
        class_weights: factor for the loss of each class; None for ones.
        batch_dice: pool the sums over the batch first; every sample then has the same
            value.
        axis_name: name of the mapped axis over which ``batch_dice`` pools too; None
            for one device.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Milletari, Navab, Ahmadi: V-Net (3DV 2016), eq. 2.

    Example:
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> dice_loss(logits=logits, labels=jnp.array([[0, 1]])).round(3)
        Array([[0., 0.]], dtype=float32)
        >>> dice_loss(logits=logits, labels=jnp.array([[1, 0]])).round(3)
        Array([[1., 1.]], dtype=float32)
    """
    sums = _overlap_sums(logits, labels, head, squared, batch_dice, axis_name)
    loss = 1 - (2 * sums.intersection + smooth) / (sums.predicted + sums.true + smooth)
    return weighted_by_class(loss, class_weights)


def jaccard_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
    batch_dice: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch classes"]:
    r"""Soft Jaccard (IoU) loss of each sample and class.

    .. math::
        L_c = 1 - \frac{\sum_i p_{ic} y_{ic} + s}
                       {\sum_i (p_{ic} + y_{ic} - p_{ic} y_{ic}) + s}

    with the symbols of `dice_loss`.

    Args:
        logits, labels, head, class_weights, batch_dice, axis_name: as for `dice_loss`.
        smooth: number added to numerator and denominator.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Rahman, Wang: Optimizing Intersection-Over-Union (ISVC 2016), eq. 3.

    Example:
        >>> logits, labels = jnp.zeros((1, 4, 2)), jnp.zeros((1, 4), int)
        >>> loss = jaccard_loss(logits=logits, labels=labels)
        >>> loss.round(3)  # 1 - 2/4 for the class that is present, and 1 - 0/2
        Array([[0.5, 1. ]], dtype=float32)
    """
    sums = _overlap_sums(logits, labels, head, False, batch_dice, axis_name)
    union = sums.predicted + sums.true - sums.intersection
    loss = 1 - (sums.intersection + smooth) / (union + smooth)
    return weighted_by_class(loss, class_weights)


def generalized_dice_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    smooth: float = 1e-5,
    batch_dice: bool = False,
    axis_name: str | None = None,
    include_background: bool = True,
) -> Float[Array, " batch"]:
    r"""Generalised Dice loss of each sample: small classes have large weights.

    .. math::
        L = 1 - \frac{2\sum_c w_c \sum_i p_{ic} y_{ic} + s}
                     {\sum_c w_c \sum_i (p_{ic} + y_{ic}) + s},
        \quad w_c = \Big(\sum_i y_{ic}\Big)^{-2}

    A class that is absent from a sample gets the largest weight of the present ones.

    Args:
        logits, labels, head, batch_dice, axis_name: as for `dice_loss`.
        smooth: number added to numerator and denominator.
        include_background: count class 0.

    Returns: A value in [0, 1] for each sample, float32.
    Source: Sudre et al.: Generalised Dice overlap (DLMIA 2017), eq. of section 2.

    Example:
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> generalized_dice_loss(logits=logits, labels=jnp.array([[0, 1]])).round(3)
        Array([0.], dtype=float32)
    """
    sums = _overlap_sums(logits, labels, head, False, batch_dice, axis_name)
    first = 0 if include_background else 1
    intersection, predicted, true = (each[:, first:] for each in sums)
    weights = jnp.where(true > 0, 1 / jnp.maximum(true, 1) ** 2, 0)
    largest = jnp.max(weights, axis=-1, keepdims=True)
    weights = jnp.where(true > 0, weights, jnp.where(largest > 0, largest, 1))
    above = 2 * jnp.sum(weights * intersection, axis=-1) + smooth
    return 1 - above / (jnp.sum(weights * (predicted + true), axis=-1) + smooth)


def tversky_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
    batch_dice: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch classes"]:
    r"""Tversky loss of each sample and class: Dice with a weight for each error type.

    .. math::
        L_c = 1 - \frac{TP_c + s}{TP_c + \alpha FP_c + \beta FN_c + s}

    with :math:`TP=\sum p y`, :math:`FP=\sum p(1-y)`, :math:`FN=\sum (1-p)y`.
    :math:`\alpha=\beta=1/2` is the plain Dice loss.

    Args:
        logits, labels, head, class_weights, batch_dice, axis_name: as for `dice_loss`.
        alpha, beta: weights of false positives and of false negatives.
        smooth: number added to numerator and denominator.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Salehi, Erdogmus, Gholipour: Tversky loss function (MLMI 2017), eq. 2 and 3.

    Example:
        >>> loss = tversky_loss(
        ...     logits=jnp.zeros((1, 4, 2)), labels=jnp.ones((1, 4), int), smooth=0.0
        ... )
        >>> [round(float(value), 3) for value in loss[0]]  # 1 - 2 / (2 + 0.7 * 2)
        [1.0, 0.412]
    """
    sums = _overlap_sums(logits, labels, head, False, batch_dice, axis_name)
    loss = 1 - _tversky_index(sums, alpha, beta, smooth)
    return weighted_by_class(loss, class_weights)


def focal_tversky_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
    batch_dice: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch classes"]:
    r"""Focal Tversky loss: :math:`L_c = (1 - TI_c)^{1/\gamma}`.

    :math:`TI` is the Tversky index, 1 minus `tversky_loss`. The base is kept at 1e-7
    or more, because the gradient of the power is infinite at 0.

    Args:
        logits, labels, head, class_weights, batch_dice, axis_name: as for `dice_loss`.
        alpha, beta: weights of false positives and of false negatives.
        gamma: exponent; above 1, nearly correct classes keep a larger gradient.
        smooth: number added to numerator and denominator.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Abraham, Khan: A novel focal Tversky loss (ISBI 2019), eq. 4; its code swaps
        the names alpha and beta.

    Example:
        >>> loss = focal_tversky_loss(
        ...     logits=jnp.zeros((1, 4, 2)), labels=jnp.ones((1, 4), int), smooth=0.0
        ... )
        >>> loss.round(3)
        Array([[1.   , 0.514]], dtype=float32)
    """
    sums = _overlap_sums(logits, labels, head, False, batch_dice, axis_name)
    base = jnp.maximum(1 - _tversky_index(sums, alpha, beta, smooth), 1e-7)
    return weighted_by_class(base ** (1 / gamma), class_weights)


def log_cosh_dice_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    squared: bool = True,
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
    batch_dice: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch classes"]:
    r"""Smoothed Dice loss: :math:`L_c = \log\cosh(L^{Dice}_c)`.

    Arguments: see `dice_loss`.

    Returns: Values in [0, 0.434] times the weight, float32.
    Source: Jadon: A survey of loss functions for semantic segmentation (CIBCB 2020),
        eq. 16.

    Example:
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> loss = log_cosh_dice_loss(logits=logits, labels=jnp.array([[1, 0]]))
        >>> [round(float(value), 3) for value in loss[0]]
        [0.434, 0.434]
    """
    loss = dice_loss(
        logits=logits,
        labels=labels,
        head=head,
        squared=squared,
        smooth=smooth,
        batch_dice=batch_dice,
        axis_name=axis_name,
    )
    return weighted_by_class(jnp.log(jnp.cosh(loss)), class_weights)


def _overlap_sums(
    logits: ArrayLike,
    labels: ArrayLike,
    head: Head,
    squared: bool,
    batch_dice: bool,
    axis_name: str | None,
) -> _Sums:
    """Sum intersection, prediction and target over a sample or the global batch."""
    if axis_name is not None and not batch_dice:
        raise ValueError("axis_name pools sums, so it needs batch_dice=True")
    p, target, valid = probabilities_and_targets(logits, labels, head)
    p, axes = p * valid, pixel_axes(p)
    sums = _Sums(
        jnp.sum(p * target, axis=axes),
        jnp.sum(jnp.square(p) if squared else p, axis=axes),
        jnp.sum(target, axis=axes),
    )
    if batch_dice:
        sums = _Sums(*(_pooled(each, axis_name) for each in sums))
    return sums


def _tversky_index(sums: _Sums, alpha: float, beta: float, smooth: float) -> Array:
    """Overlap with a weight for each type of error."""
    false_positives = sums.predicted - sums.intersection
    false_negatives = sums.true - sums.intersection
    errors = alpha * false_positives + beta * false_negatives
    return (sums.intersection + smooth) / (sums.intersection + errors + smooth)


def _pooled(sums: Array, axis_name: str | None) -> Array:
    """Sum over the global batch; every sample gets the sum."""
    total = jnp.sum(sums, axis=0, keepdims=True)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return jnp.broadcast_to(total, sums.shape)
