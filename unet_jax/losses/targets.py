"""What every loss begins with: targets, valid pixels and probabilities of a head."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from unet_jax.labels import IGNORE

Head = Literal["softmax", "sigmoid"]
"""How scores become probabilities: of classes that exclude each other, or each class
against the rest."""


def at_least_float32(logits: ArrayLike) -> Array:
    """Widen scores: sums over many pixels need more than the bits of a bfloat16.

    Args:
        logits: of any float dtype.

    Returns:
        The same in float32, or float64 if they were.
    """
    logits = jnp.asarray(logits)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def targets_and_valid(logits: Array, labels: ArrayLike) -> tuple[Array, Array]:
    """Turn labels into 0/1 targets, and say which of them count.

    Args:
        logits: ``(batch, *spatial, classes)``, for their shape and dtype.
        labels: ``(batch, *spatial)`` class indices or IGNORE, or
            ``(batch, *spatial, classes)`` of 0, 1 or IGNORE: regions that may overlap.

    Returns:
        Targets, 0 at what is ignored, and True where a target counts; the latter
        broadcasts to the former.

    Raises:
        ValueError: labels of another shape.
    """
    labels = jnp.asarray(labels)
    if labels.shape == logits.shape:
        return (labels == 1).astype(logits.dtype), labels != IGNORE
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels of shape {labels.shape} for logits {logits.shape}; expected "
            f"{logits.shape[:-1]}, or {logits.shape} for regions"
        )
    # IGNORE one-hot encodes to zeros.
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return target, (labels != IGNORE)[..., None]


def head_probabilities(logits: Array, head: Head) -> Array:
    """Turn scores into probabilities.

    Args:
        logits: ``(..., classes)``.
        head: "softmax" over the classes, or a "sigmoid" of each.

    Returns:
        Values in [0, 1] of the same shape.

    Raises:
        ValueError: an unknown head.

    Example:
        >>> head_probabilities(jnp.array([0.0, 0.0]), "softmax").tolist()
        [0.5, 0.5]
    """
    match head:
        case "softmax":
            return jax.nn.softmax(logits, axis=-1)
        case "sigmoid":
            return jax.nn.sigmoid(logits)
    raise ValueError(f"Unknown head {head!r}; expected one of 'softmax', 'sigmoid'")


def checked_weights(
    weights: Sequence[float] | None, classes: int
) -> Float[Array, " classes"]:
    """Return the weight of each class.

    Args:
        weights: one a class, or None for ones.
        classes: their number.

    Returns:
        float32 weights.

    Raises:
        ValueError: another number of weights.
    """
    if weights is None:
        return jnp.ones(classes, jnp.float32)
    if len(weights) != classes:
        raise ValueError(
            f"class_weights: {len(weights)} values, expected {classes}, one a class"
        )
    return jnp.asarray(weights, jnp.float32)


def pixel_axes(logits: Array) -> tuple[int, ...]:
    """Axes of the pixels of ``(batch, *spatial, classes)``.

    Args:
        logits: for their number of axes.

    Returns:
        All but the first and the last.
    """
    return tuple(range(1, logits.ndim - 1))
