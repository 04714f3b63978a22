"""Makes a row of the table of losses from a function of the user's own module."""

import dataclasses
import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unet_jax.errors import InputError
from unet_jax.losses.parameters import Anything
from unet_jax.losses.reduction import Kind, loss_kind, without_ignored
from unet_jax.losses.table import Loss
from unet_jax.losses.targets import at_least_float32


def user_loss(name: str, function: Callable[..., typing.Any]) -> Loss:
    """Make the row of a loss that a config names by its module.

    Args:
        name: ``"package.module:function"``.
        function: the loss. It takes ``logits`` and ``labels`` by keyword, and returns a
            value for each pixel, each pixel and class, each sample and class, or each
            sample. Other arguments are its parameters. An attribute ``kind`` says
            which of the four it returns; without it the shape tells.

    Returns: The row. Its function gives float32 and 0 at ignored pixels.
    Raises: InputError: the function is no loss.
    """
    kind = getattr(function, "kind", None)
    if kind not in (None, *typing.get_args(Kind)):
        raise InputError(
            f"loss: {name!r}: found the attribute kind={kind!r}, expected one of "
            f"{', '.join(map(repr, typing.get_args(Kind)))}"
        )
    loss = Loss(name, _with_ignored_at_0(function), kind)
    try:
        options, reads = loss.options, loss.reads
    except (TypeError, ValueError):
        options, reads = (), ()
    if not {"logits", "images", "reconstruction"} & set(reads):
        raise InputError(
            f"loss: {name!r} has no argument 'logits'; expected a function such as "
            "def my_loss(*, logits, labels)"
        )
    return dataclasses.replace(loss, parameters=dict.fromkeys(options, Anything()))


def found_kind(
    loss: Loss,
    function: Callable[..., Array],
    *,
    patch_size: tuple[int, ...],
    num_classes: int,
) -> Kind | None:
    """Find what a loss has one value for from the shape that it returns.

    Args:
        loss: row of the table.
        function: its function with its parameters.
        patch_size: spatial size of the training crops.
        num_classes: number of classes.

    Returns: The kind; None for a loss that reads images, whose channels are not known.
    Raises: InputError: the function fails, or returns another shape.
    """
    if not set(loss.reads) <= {"logits", "labels", "include_background"}:
        return None
    labels = jax.ShapeDtypeStruct((2, *patch_size), jnp.int32)
    logits = jax.ShapeDtypeStruct((*labels.shape, num_classes), jnp.float32)
    given = {"logits": logits, "labels": labels}
    try:
        values = jax.eval_shape(
            function, **{key: given[key] for key in loss.reads if key in given}
        )
        return loss_kind(values.shape, labels.shape)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"loss: {loss.name!r} fails for logits {logits.shape} and labels "
            f"{labels.shape}: {type(error).__name__}: {reason}"
        ) from error


def _with_ignored_at_0(function: Callable[..., Array]) -> Callable[..., Array]:
    """Keep what a loss gives for ignored pixels out of its sum."""

    @functools.wraps(function)
    def loss(**given: typing.Any) -> Array:
        values = at_least_float32(function(**given))
        labels = given.get("labels")
        return values if labels is None else without_ignored(values, labels)

    return loss
