"""Reduces the values of a loss to their mean over the pixels that count."""

from typing import Literal

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.labels import IGNORE
from unet_jax.losses.targets import at_least_float32

Kind = Literal["pixel", "pixel_class", "class", "sample"]
"""What a loss has one value for: each pixel, each pixel and class, each sample and
class, or each sample."""


def reduce(
    loss: Float[ArrayLike, "..."],
    labels: Integer[ArrayLike, "batch *spatial"],
    *,
    include_background: bool = True,
) -> Float[Array, ""]:
    """Mean of a loss over the pixels that are not ignored, the samples and the classes.

    Works for every loss of this package. ``loss.mean()`` is wrong for a loss that has a
    value for each pixel: it counts ignored pixels as perfect. On one device the result
    equals the loss of the training loop.

    Args:
        loss: values ``(batch, *spatial)``, ``(batch, *spatial, classes)``, ``(batch,
            classes)`` or ``(batch,)``.
        labels: class index of every pixel; IGNORE (-1) pixels are left out. Labels of
            regions, ``(batch, *spatial, classes)``, are accepted too; each pixel and
            class then counts once.
        include_background: count class 0 of a loss that has an axis of classes beside
            the axes of ``labels``.

    Returns: A float32 scalar; 0 where every pixel is ignored and the loss has a value
        for each pixel.
    Raises: ValueError: the shape of the loss does not fit the labels, or no class is
        left.

    Example:
        >>> from unet_jax.losses import cross_entropy, reduce
        >>> logits, labels = jnp.zeros((1, 3, 2)), jnp.array([[0, 1, -1]])
        >>> loss = cross_entropy(logits=logits, labels=labels)
        >>> [round(float(mean), 4) for mean in (reduce(loss, labels), loss.mean())]
        [0.6931, 0.4621]
    """
    values, labels = at_least_float32(loss), jnp.asarray(labels)
    kind = loss_kind(values.shape, labels.shape)
    values = without_ignored(values, labels)
    if kind in ("class", "pixel_class"):
        values = mean_over_classes(values, include_background=include_background)
    if kind in ("class", "sample"):
        return jnp.mean(values)
    count = jnp.sum(labels != IGNORE, dtype=values.dtype)
    return jnp.sum(values) / jnp.maximum(count, 1)


def loss_kind(shape: tuple[int, ...], labels_shape: tuple[int, ...]) -> Kind:
    """Find what a loss has one value for.

    Args:
        shape: shape of the loss.
        labels_shape: shape of the labels, ``(batch, *spatial)``.

    Returns: The kind. For images of one axis ``(batch, pixels)`` wins over ``(batch,
        classes)`` where both fit.
    Raises: ValueError: the loss has another shape.

    Example:
        >>> loss_kind((2, 8, 8), (2, 8, 8)), loss_kind((2, 3), (2, 8, 8))
        ('pixel', 'class')
    """
    if shape == labels_shape:
        return "pixel"
    if len(shape) > 1 and shape[:-1] == labels_shape:
        return "pixel_class"
    if len(shape) == 2 and shape[:1] == labels_shape[:1]:
        return "class"
    if shape == labels_shape[:1]:
        return "sample"
    batch = labels_shape[0] if labels_shape else "batch"
    raise ValueError(
        f"found a loss of shape {shape} for labels {labels_shape}; expected "
        f"{labels_shape} (a value for each pixel), the same with an axis of classes, "
        f"({batch}, classes) or ({batch},)"
    )


def without_ignored(values: Array, labels: ArrayLike) -> Array:
    """Set the values of ignored pixels to 0.

    Args:
        values: a loss of any kind; one without an axis of pixels is unchanged.
        labels: ``(batch, *spatial)``.
    """
    valid = jnp.asarray(labels) != IGNORE
    match loss_kind(values.shape, valid.shape):
        case "pixel":
            return jnp.where(valid, values, 0)
        case "pixel_class":
            return jnp.where(valid[..., None], values, 0)
    return values


def mean_over_classes(
    values: Array, *, include_background: bool, counted: Array | None = None
) -> Array:
    """Mean of ``(batch, ..., classes)`` over the last axis, with or without class 0.

    Args:
        counted: ``(batch, classes)`` bool, the classes of each sample to average; None
            for all. The mean of no class is 0.

    Raises: ValueError: no class is left.
    """
    first = 0 if include_background else 1
    values = values[..., first:]
    if not values.shape[-1]:
        raise ValueError(
            "the loss has one class and include_background=False leaves none; set "
            "include_background=True"
        )
    if counted is None:
        return jnp.mean(values, axis=-1)
    counted = counted[:, first:]
    counted = counted.reshape(len(values), *(1,) * (values.ndim - 2), -1)
    total = jnp.sum(jnp.where(counted, values, 0), axis=-1)
    return total / jnp.maximum(jnp.sum(counted, axis=-1), 1)
