"""Means and variances, put together from parts."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the values in float32 or better, for statistics.

    Args:
        x: values in any dtype.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def group_size(channels: int, groups: int) -> int:
    """Return the number of channels in each group.

    Args:
        channels: number of channels of the array.
        groups: number of groups.

    Raises:
        ValueError: the channels do not divide into the groups.
    """
    if channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    return channels // groups


def pool_moments(
    means: Float[Array, "*parts"], variances: Float[Array, "*parts"], *, axis: int
) -> tuple[Float[Array, "*_"], Float[Array, "*_"]]:
    """Return the moments of the union of equally large parts.

    Args:
        means: mean of each part.
        variances: variance of each part.
        axis: axis along which the parts lie.
    """
    mean = means.mean(axis, keepdims=True)
    variance = (variances + jnp.square(means - mean)).mean(axis)
    return jnp.squeeze(mean, axis), variance


def synchronised(
    mean: Float[Array, " channels"],
    variance: Float[Array, " channels"],
    *,
    axis_name: str | None,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return the moments of the whole batch.

    Args:
        mean: mean of this device's part of the batch.
        variance: variance of this device's part.
        axis_name: mapped axis whose devices hold equal parts; None for one device.
    """
    if axis_name is None:
        return mean, variance
    devices = lax.psum(1, axis_name)
    pooled = lax.psum(mean, axis_name) / devices
    spread = lax.psum(variance + jnp.square(mean - pooled), axis_name)
    return pooled, spread / devices


def over_space(
    values: Float[Array, "*sample channels"], x: Float[Array, "batch *spatial channels"]
) -> Float[Array, "*_ channels"]:
    """Reshape values of channels so that they broadcast over space.

    Args:
        values: ``(channels)`` or ``(batch, channels)``.
        x: array that they go with.
    """
    return values.reshape(*values.shape[:-1], *(1,) * (x.ndim - 2), values.shape[-1])
