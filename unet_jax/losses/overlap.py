"""Losses from the overlap of a predicted and a true region."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.labels import IGNORE


def dice_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *spatial"],
    squared: bool = True,
    smooth: float = 1e-5,
    batch_dice: bool = False,
    axis_name: str | None = None,
) -> Float[Array, "batch classes"]:
    r"""Soft Dice loss of each sample and class.

    .. math::
        L_c = 1 - \frac{2\sum_i p_{ic} y_{ic} + s}{\sum_i p_{ic}^2 + \sum_i y_{ic} + s}

    with :math:`p` the softmax of the logits, :math:`y` the 0/1 target, :math:`s` the
    smoothing, and :math:`i` over the pixels that are not ignored.

    Args:
        logits: unnormalised class scores.
        labels: class index of every pixel; IGNORE (-1) pixels count for nothing.
        squared: square the probabilities in the denominator (Milletari et al. 2016,
            eq. 2); False gives the plain sum.
        smooth: added to numerator and denominator, so that an absent class is finite.
        batch_dice: pool the sums over the batch first; every sample then has the same
            value.
        axis_name: mapped axis over which ``batch_dice`` pools too; None for one device.

    Returns:
        Values in [0, 1], float32.

    Source:
        Milletari, Navab, Ahmadi: V-Net (3DV 2016), eq. 2.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[[9.0, -9.0], [-9.0, 9.0]]])
        >>> dice_loss(logits=logits, labels=jnp.array([[0, 1]])).round(3)
        Array([[0., 0.]], dtype=float32)
        >>> dice_loss(logits=logits, labels=jnp.array([[1, 0]])).round(3)
        Array([[1., 1.]], dtype=float32)
    """
    if axis_name is not None and not batch_dice:
        raise ValueError("axis_name pools sums, so it needs batch_dice=True")
    logits, labels = _at_least_float32(jnp.asarray(logits)), jnp.asarray(labels)
    valid = (labels != IGNORE)[..., None]
    # (batch, *spatial, classes); IGNORE one-hot encodes to zeros
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    probabilities = jax.nn.softmax(logits, axis=-1) * valid
    pixels = tuple(range(1, labels.ndim))
    intersection = jnp.sum(probabilities * target, axis=pixels)
    predicted = jnp.sum(
        jnp.square(probabilities) if squared else probabilities, axis=pixels
    )
    true = jnp.sum(target, axis=pixels)
    if batch_dice:
        intersection, predicted, true = (
            _pooled(sums, axis_name) for sums in (intersection, predicted, true)
        )
    return 1 - (2 * intersection + smooth) / (predicted + true + smooth)


def _pooled(sums: Array, axis_name: str | None) -> Array:
    """Sum over the global batch, repeated for each sample."""
    total = jnp.sum(sums, axis=0, keepdims=True)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return jnp.broadcast_to(total, sums.shape)


def _at_least_float32(logits: Array) -> Array:
    """Sums over many pixels need more than the eight bits of a bfloat16."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
