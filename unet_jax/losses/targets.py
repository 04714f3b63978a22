"""Makes targets, masks of valid pixels and probabilities for the losses."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from unet_jax.labels import IGNORE

Head = Literal["softmax", "sigmoid"]
"""How scores become probabilities: softmax for classes that exclude each other, sigmoid
for each class against the rest."""


def at_least_float32(logits: ArrayLike) -> Array:
    """Convert scores of any float dtype to float32; float64 stays.

    Sums over many pixels need more than bfloat16.
    """
    logits = jnp.asarray(logits)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def targets_and_valid(logits: Array, labels: ArrayLike) -> tuple[Array, Array]:
    """Turn labels into 0/1 targets and a mask of the valid ones.

    Args:
        logits: ``(batch, *spatial, classes)``; shape and dtype of the targets.
        labels: ``(batch, *spatial)`` class indices or IGNORE, or
            ``(batch, *spatial, classes)`` of 0, 1 or IGNORE: regions that may overlap.

    Returns: Targets, 0 at ignored pixels, and a mask that is True where a target is not
        ignored and that broadcasts to the targets.
    Raises: ValueError: the labels have another shape.
    """
    labels = jnp.asarray(labels)
    if labels.shape == logits.shape:
        return (labels == 1).astype(logits.dtype), labels != IGNORE
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels of shape {labels.shape} for logits {logits.shape}; expected "
            f"{logits.shape[:-1]}, or {logits.shape} for regions"
        )
    # The one-hot encoding of IGNORE is all zeros.
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return target, (labels != IGNORE)[..., None]


def head_probabilities(logits: Array, head: Head) -> Array:
    """Turn scores ``(..., classes)`` into probabilities in [0, 1], by `Head`.

    Raises: ValueError: an unknown head.

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
    """Return the weight of each class in float32; ones for None.

    Raises: ValueError: the number of weights is not the number of classes.
    """
    if weights is None:
        return jnp.ones(classes, jnp.float32)
    if len(weights) != classes:
        raise ValueError(
            f"class_weights: {len(weights)} values; expected {classes}, one per class"
        )
    return jnp.asarray(weights, jnp.float32)


def probabilities_and_targets(
    logits: ArrayLike, labels: ArrayLike, head: Head
) -> tuple[Array, Array, Array]:
    """Return `head_probabilities` of scores in float32, and `targets_and_valid`."""
    logits = at_least_float32(logits)
    return head_probabilities(logits, head), *targets_and_valid(logits, labels)


def weighted_by_class(loss: Array, class_weights: Sequence[float] | None) -> Array:
    """Multiply a loss ``(..., classes)`` by the weight of each class; None for ones."""
    return loss * checked_weights(class_weights, loss.shape[-1])


def pixel_axes(logits: Array) -> tuple[int, ...]:
    """Return the spatial axes of ``(batch, *spatial, classes)``."""
    return tuple(range(1, logits.ndim - 1))
