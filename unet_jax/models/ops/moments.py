"""Means and variances, put together from parts."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the values in float32 or better, for statistics."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def group_size(channels: int, groups: int) -> int:
    """Return the number of channels in each group.

    Raises:
        ValueError: the channels do not divide into the groups.
    """
    if channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    return channels // groups


def pool_moments(
    means: Float[Array, "*parts"], variances: Float[Array, "*parts"], *, axis: int
) -> tuple[Float[Array, "*_"], Float[Array, "*_"]]:
    """Return the moments of the union of equally large parts along an axis."""
    mean = means.mean(axis, keepdims=True)
    variance = (variances + jnp.square(means - mean)).mean(axis)
    return jnp.squeeze(mean, axis), variance


def group_moments(
    means: Float[Array, "batch channels"],
    variances: Float[Array, "batch channels"],
    *,
    groups: int,
) -> dict[str, Float[Array, "batch channels"]]:
    """Return the ``mean`` and ``variance`` of the group of each channel."""
    size = group_size(means.shape[-1], groups)
    parts = (part.reshape(-1, groups, size) for part in (means, variances))
    mean, variance = pool_moments(*parts, axis=-1)
    return {
        "mean": jnp.repeat(mean, size, axis=-1),
        "variance": jnp.repeat(variance, size, axis=-1),
    }


def synchronised(
    mean: Float[Array, " channels"],
    variance: Float[Array, " channels"],
    *,
    axis_name: str | None,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return the moments of the whole batch, of which devices hold equal parts.

    ``axis_name`` is the mapped axis of the devices; None for one device.
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
    """Reshape values of channels so that they broadcast over space with ``x``."""
    return values.reshape(*values.shape[:-1], *(1,) * (x.ndim - 2), values.shape[-1])
