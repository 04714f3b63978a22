"""Lovász losses: convex surrogates of the Jaccard loss."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.losses.targets import at_least_float32, checked_weights, targets_and_valid


def lovasz_softmax_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *spatial"],
    only_present: bool = True,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Lovász-softmax loss of each sample and class.

    .. math:: L_c = \overline{\Delta_{J_c}}(m_c), \quad
        m_{ic} = 1 - p_{ic} \text{ where } y_i = c \text{, else } p_{ic}

    with :math:`p` the softmax and :math:`\overline{\Delta_J}` the Lovász extension of
    the Jaccard loss: the errors, sorted from large to small, times the increases of the
    Jaccard loss as one pixel after another becomes wrong.

    Args:
        logits: unnormalised class scores.
        labels: class index of every pixel; IGNORE (-1) pixels are left out.
        only_present: give 0 for a class that is absent from the sample; with False its
            loss is its largest probability.
        class_weights: factor for the loss of each class; None for ones.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Berman, Triki, Blaschko: The Lovász-softmax loss (CVPR 2018), eq. 8, 9 and
        11.

    Example:
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> lovasz_softmax_loss(logits=logits, labels=jnp.array([[0, 1]])).round(3)
        Array([[0., 0.]], dtype=float32)
        >>> lovasz_softmax_loss(logits=logits, labels=jnp.array([[1, 0]])).round(3)
        Array([[1., 1.]], dtype=float32)
    """
    logits = at_least_float32(logits)
    target, valid = targets_and_valid(logits, labels)
    errors = jnp.abs(target - jax.nn.softmax(logits, axis=-1))
    loss = _lovasz(errors, target, valid)
    if only_present:
        present = jnp.sum(_by_pixel(target), axis=1) > 0
        loss = jnp.where(present, loss, 0)
    return loss * checked_weights(class_weights, logits.shape[-1])


def lovasz_hinge_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Lovász hinge loss of each sample and class, each class against the rest.

    .. math:: L_c = \overline{\Delta_{J_c}}(\max(0, 1 - z_{ic}(2 y_{ic} - 1)))

    with :math:`z` the logits and the extension of `lovasz_softmax_loss`.

    Args:
        logits: a score for each class; above 0 the class is predicted.
        labels: ``(batch, *spatial)`` class index of every pixel, or
            ``(batch, *spatial, classes)`` of 0 and 1; IGNORE is left out.
        class_weights: factor for the loss of each class; None for ones.

    Returns: Values of 0 or more, float32.
    Source: Berman, Triki, Blaschko: The Lovász-softmax loss (CVPR 2018), section 3.1.

    Example:
        >>> logits = jnp.array([[[2.0, -2.0], [-2.0, 2.0]]])
        >>> lovasz_hinge_loss(logits=logits, labels=jnp.array([[0, 1]])).round(3)
        Array([[0., 0.]], dtype=float32)
    """
    logits = at_least_float32(logits)
    target, valid = targets_and_valid(logits, labels)
    errors = jax.nn.relu(1 - logits * (2 * target - 1))
    weights = checked_weights(class_weights, logits.shape[-1])
    return _lovasz(errors, target, valid) * weights


def _lovasz(errors: Array, target: Array, valid: Array) -> Array:
    """Lovász extension of the Jaccard loss at the errors, ``(batch, classes)``."""
    valid = jnp.broadcast_to(valid, target.shape)
    # Ignored pixels come last, with an error of 0.
    order = jnp.argsort(-_by_pixel(jnp.where(valid, errors, -1)), axis=1)
    ordered = jnp.take_along_axis(_by_pixel(jnp.where(valid, errors, 0)), order, 1)
    truth = jnp.take_along_axis(_by_pixel(target), order, 1)
    counted = jnp.take_along_axis(_by_pixel(valid), order, 1)
    total = jnp.sum(truth, axis=1, keepdims=True)
    intersection = total - jnp.cumsum(truth, axis=1)
    union = total + jnp.cumsum((1 - truth) * counted, axis=1)
    jaccard = 1 - intersection / jnp.maximum(union, 1)
    before = jnp.pad(jaccard, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    steps = jax.lax.stop_gradient((jaccard - before) * counted)
    return jnp.sum(ordered * steps, axis=1)


def _by_pixel(values: Array) -> Array:
    """Reshape to ``(batch, pixels, classes)``."""
    return values.reshape(values.shape[0], -1, values.shape[-1])
