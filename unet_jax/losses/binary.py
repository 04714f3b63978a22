"""Binary losses: each class against the rest, by the sigmoid of its score."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.losses.targets import (
    Head,
    at_least_float32,
    checked_weights,
    pixel_axes,
    targets_and_valid,
)


def bce(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch *spatial classes"]:
    r"""Binary cross-entropy of each pixel and class.

    .. math:: L_{ic} = -(y_{ic}\log p_{ic} + (1-y_{ic})\log(1-p_{ic}))

    with :math:`p` the sigmoid of the logits and :math:`y` the 0/1 target.

    Args:
        logits: a score for each class.
        labels: ``(batch, *spatial)`` class index of every pixel, or
            ``(batch, *spatial, classes)`` of 0 and 1; IGNORE (-1) has the loss 0.
        class_weights: factor for the loss of each class; None for ones.

    Returns: One value for each pixel and class, at least 0, float32.
    Source: Bishop: Pattern Recognition and Machine Learning (2006), eq. 4.90.

    Example:
        >>> bce(logits=jnp.zeros((1, 1, 2)), labels=jnp.array([[1]])).round(4)
        Array([[[0.6931, 0.6931]]], dtype=float32)
    """
    return _balanced(logits, labels, 1.0, 1.0, class_weights)


def weighted_bce(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    beta: float,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch *spatial classes"]:
    r"""Binary cross-entropy with a weight on the positive pixels.

    .. math:: L_{ic} = -(\beta y_{ic}\log p_{ic} + (1-y_{ic})\log(1-p_{ic}))

    At prevalence :math:`q` the best constant prediction is
    :math:`\beta q / (\beta q + 1 - q)`.

    Args:
        logits, labels, class_weights: as for `bce`.
        beta: above 1 for fewer false negatives, below 1 for fewer false positives.

    Returns: One value for each pixel and class, at least 0, float32.
    Source: Pihur, Datta, Datta: Weighted rank aggregation (2007), as named in Jadon: A
        survey of loss functions for semantic segmentation (CIBCB 2020), eq. 2.

    Example:
        >>> labels = jnp.array([[1]])
        >>> weighted_bce(logits=jnp.zeros((1, 1, 2)), labels=labels, beta=2.0).round(4)
        Array([[[0.6931, 1.3863]]], dtype=float32)
    """
    return _balanced(logits, labels, beta, 1.0, class_weights)


def balanced_bce(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    beta: float | Sequence[float] | None = None,
    class_weights: Sequence[float] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "batch *spatial classes"]:
    r"""Binary cross-entropy with equal total weight of positives and negatives.

    .. math::
        L_{ic} = -(\beta_c y_{ic}\log p_{ic} + (1-\beta_c)(1-y_{ic})\log(1-p_{ic}))

    Args:
        logits, labels, class_weights: as for `bce`.
        beta: fraction of negative pixels, one for all classes or one for each; None
            takes the fractions of the batch.
        axis_name: name of the mapped axis over which the batch extends; None for one
            device.

    Returns: One value for each pixel and class, at least 0, float32.
    Source: Xie, Tu: Holistically-nested edge detection (ICCV 2015), eq. 2.

    Example:
        >>> logits, labels = jnp.zeros((1, 4, 2)), jnp.array([[1, 0, 0, 0]])
        >>> loss = balanced_bce(logits=logits, labels=labels)
        >>> [round(float(value), 3) for value in loss[0, :, 1]]
        [0.52, 0.173, 0.173, 0.173]
    """
    logits = at_least_float32(logits)
    if beta is None:
        negatives = _fraction_of_negatives(logits, labels, axis_name)
    else:
        negatives = jnp.asarray(beta, jnp.float32)
    return _balanced(logits, labels, negatives, 1 - negatives, class_weights)


def focal_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch ..."]:
    r"""Focal loss: pixels that are already correct have a small weight.

    .. math:: L = -\alpha_t (1-p_t)^\gamma \log p_t

    With the sigmoid head :math:`p_t` and :math:`\alpha_t` are :math:`p` and
    :math:`\alpha` in the class, :math:`1-p` and :math:`1-\alpha` elsewhere. With the
    softmax head :math:`p_t` is the probability of the true class and :math:`\alpha_t`
    its weight. :math:`\gamma=0` gives the cross-entropy weighted by alpha.

    Args:
        logits, labels, class_weights: as for `bce`.
        head: "softmax" or "sigmoid".
        gamma: exponent, at least 0; larger values reduce the weight of correct pixels.
        alpha: weight of the positives, one for all classes (sigmoid head only) or one
            for each; None for no weights.

    Returns: ``(batch, *spatial, classes)`` with the sigmoid head, ``(batch, *spatial)``
        with the softmax head, at least 0, float32.
    Raises: ValueError: one alpha for all classes with the softmax head, where it would
        only be a factor of the loss.
    Source: Lin et al.: Focal loss for dense object detection (ICCV 2017), eq. 5.

    Example:
        >>> logits, labels = jnp.zeros((1, 1, 2)), jnp.array([[1]])
        >>> focal_loss(logits=logits, labels=labels, gamma=2.0).round(4)  # ln 2 / 4
        Array([[0.1733]], dtype=float32)
    """
    logits = at_least_float32(logits)
    match head:
        case "softmax":
            return _focal_softmax(logits, labels, gamma, alpha, class_weights)
        case "sigmoid":
            return _focal_sigmoid(logits, labels, gamma, alpha, class_weights)
    raise ValueError(f"Unknown head {head!r}; expected one of 'softmax', 'sigmoid'")


def combo_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1e-5,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Sum of balanced cross-entropy and Dice loss, for each sample and class.

    .. math::
        L_c = \alpha\,\frac1N\sum_i -(\beta y\log p + (1-\beta)(1-y)\log(1-p))
            + (1-\alpha)\Big(1 - \frac{2\sum_i p y + s}{\sum_i p + \sum_i y + s}\Big)

    over the N pixels that are not ignored. The paper subtracts Dice, which differs by a
    constant.

    Args:
        logits, labels, class_weights: as for `bce`.
        alpha: weight of the cross-entropy; Dice has the weight 1 - alpha.
        beta: weight of the positives; the negatives have the weight 1 - beta.
        smooth: number added to numerator and denominator of Dice.

    Returns: Values of 0 or more, float32.
    Source: Taghanaki et al.: Combo loss (Computerized Medical Imaging and Graphics
        2019), eq. 3.

    Example:
        >>> loss = combo_loss(logits=jnp.zeros((1, 4, 2)), labels=jnp.ones((1, 4), int))
        >>> [round(float(value), 3) for value in loss[0]]  # ln 2 / 4 + (1 - Dice) / 2
        [0.673, 0.34]
    """
    logits = at_least_float32(logits)
    entropy = _balanced(logits, labels, beta, 1 - beta, None)
    target, valid = targets_and_valid(logits, labels)
    p = jax.nn.sigmoid(logits) * valid
    axes = pixel_axes(logits)
    pixels = jnp.sum(jnp.broadcast_to(valid, target.shape), axis=axes)
    mean = jnp.sum(entropy, axis=axes) / jnp.maximum(pixels, 1)
    true, predicted = jnp.sum(target, axis=axes), jnp.sum(p, axis=axes)
    overlap = 2 * jnp.sum(p * target, axis=axes) + smooth
    dice = overlap / (predicted + true + smooth)
    loss = alpha * mean + (1 - alpha) * (1 - dice)
    return loss * checked_weights(class_weights, logits.shape[-1])


def _balanced(
    logits: ArrayLike,
    labels: ArrayLike,
    positive: ArrayLike,
    negative: ArrayLike,
    class_weights: Sequence[float] | None,
) -> Array:
    """Binary cross-entropy with weights for positive and negative pixels."""
    logits = at_least_float32(logits)
    target, valid = targets_and_valid(logits, labels)
    entropy = -(
        positive * target * jax.nn.log_sigmoid(logits)
        + negative * (1 - target) * jax.nn.log_sigmoid(-logits)
    )
    entropy = jnp.where(valid, entropy, 0)
    return entropy * checked_weights(class_weights, logits.shape[-1])


def _fraction_of_negatives(
    logits: Array, labels: ArrayLike, axis_name: str | None
) -> Array:
    """Fraction of negatives of each class in the valid pixels of the global batch."""
    target, valid = targets_and_valid(logits, labels)
    axes = tuple(range(target.ndim - 1))
    positives = jnp.sum(target, axis=axes)
    pixels = jnp.sum(
        jnp.broadcast_to(valid, target.shape), axis=axes, dtype=jnp.float32
    )
    if axis_name is not None:
        positives, pixels = jax.lax.psum((positives, pixels), axis_name)
    return 1 - positives / jnp.maximum(pixels, 1)


def _focal_sigmoid(
    logits: Array,
    labels: ArrayLike,
    gamma: float,
    alpha: float | Sequence[float] | None,
    class_weights: Sequence[float] | None,
) -> Array:
    """One class against the rest; powers of logarithms, whose gradients are finite."""
    target, valid = targets_and_valid(logits, labels)
    signed = jnp.where(target > 0, logits, -logits)
    focus = jnp.exp(gamma * jax.nn.log_sigmoid(-signed))
    loss = -focus * jax.nn.log_sigmoid(signed)
    if alpha is not None:
        of_class = jnp.asarray(alpha, jnp.float32)
        loss = loss * jnp.where(target > 0, of_class, 1 - of_class)
    loss = jnp.where(valid, loss, 0)
    return loss * checked_weights(class_weights, logits.shape[-1])


def _focal_softmax(
    logits: Array,
    labels: ArrayLike,
    gamma: float,
    alpha: float | Sequence[float] | None,
    class_weights: Sequence[float] | None,
) -> Array:
    """The true class against all others."""
    if isinstance(alpha, float | int):
        raise ValueError(
            f"alpha: found {alpha}, expected one value for each class with the softmax "
            "head; use the weight of the loss for a common factor"
        )
    classes = logits.shape[-1]
    target, _ = targets_and_valid(logits, labels)
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    log_true = jnp.sum(target * log_probabilities, axis=-1)
    others = jnp.where(target > 0, -jnp.inf, log_probabilities)
    focus = jnp.exp(gamma * jax.nn.logsumexp(others, axis=-1))
    weights = checked_weights(class_weights, classes)
    if alpha is not None:
        weights = weights * jnp.asarray(alpha, jnp.float32)
    return -jnp.sum(target * weights, axis=-1) * focus * log_true
