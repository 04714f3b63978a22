"""What a scanner makes of intensities: blur, thick slices, bias, noise, its view."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from unet_jax.augment.regions import smooth_field

BIAS_NODES = 4
"""Nodes on each axis of the coarse grid of a bias field."""

_RADIUS = 3  # pixels of the kernel of a blur on each side
_CUT = 0.4  # of an axis that may be cut off on each side


def bias_field(
    uniform: Float[Array, " count"], shape: tuple[int, ...], *, strength: float
) -> Float[Array, "*spatial"]:
    """Make a smooth field of factors, whose logarithm is at most ``strength`` or so."""
    nodes = uniform.reshape([BIAS_NODES] * len(shape))
    return jnp.exp(strength * smooth_field(nodes, shape))


def blurred(
    image: Float[Array, "*spatial channels"], sigma: Float[Array, ""]
) -> Float[Array, "*spatial channels"]:
    """Blur with a Gaussian whose standard deviation is in pixels: partial volume."""
    offset = jnp.arange(-_RADIUS, _RADIUS + 1)
    weights = jnp.exp(-0.5 * (offset / sigma) ** 2)
    weights /= weights.sum()
    for axis, size in enumerate(image.shape[:-1]):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (_RADIUS, _RADIUS)
        padded = jnp.pad(image, pad, mode="edge")
        image = sum(
            weight * lax.slice_in_dim(padded, start, start + size, axis=axis)
            for start, weight in enumerate(weights)
        )
    return image


def coarsened(
    image: Float[Array, "*spatial channels"],
    factor: Float[Array, ""],
    *,
    axis_draw: Float[Array, ""],
) -> Float[Array, "*spatial channels"]:
    """Average over pixels ``factor`` times as large, and interpolate linearly.

    ``axis_draw`` from [0, 1) chooses one axis, as thick slices have, or all axes.
    """
    axes = image.ndim - 1
    chosen = jnp.floor(axis_draw * (axes + 1))
    for axis in range(axes):
        used = jnp.where((chosen == axis) | (chosen == axes), factor, 1.0)
        matrix = _coarse_matrix(image.shape[axis], used).astype(image.dtype)
        image = jnp.moveaxis(jnp.tensordot(matrix, image, (1, axis)), 0, axis)
    return image


def _coarse_matrix(size: int, factor: Array) -> Array:
    """Return the matrix that averages over wide pixels and interpolates."""
    place = jnp.arange(size)
    start = place * factor
    stop = jnp.minimum(start + factor, size)
    overlap = jnp.minimum(stop[:, None], place + 1.0)
    overlap = jnp.maximum(overlap - jnp.maximum(start[:, None], place), 0.0)
    average = overlap / jnp.maximum(overlap.sum(1, keepdims=True), 1e-6)
    last = jnp.ceil(size / factor) - 1
    read = jnp.clip((place + 0.5) / factor - 0.5, 0.0, last)
    return jnp.maximum(1.0 - jnp.abs(read[:, None] - place), 0.0) @ average


def with_noise(
    image: Float[Array, "*spatial channels"],
    strength: Float[Array, ""],
    noise: Float[Array, "2 *spatial channels"],
    *,
    rician: Bool[Array, ""],
) -> Float[Array, "*spatial channels"]:
    """Add normal noise to the real part, or to both parts of what has a magnitude.

    Source: Gudbjartsson and Patz 1995, for the Rician noise of MR magnitudes.
    """
    real, imaginary = image + strength * noise[0], strength * noise[1]
    return jnp.where(rician, jnp.hypot(real, imaginary), real)


def field_of_view(
    uniform: Float[Array, " count"], shape: tuple[int, ...]
) -> Bool[Array, "*spatial"]:
    """Return the pixels of a box that a scan may be cut to; two numbers an axis."""
    seen = jnp.ones(shape, bool)
    for axis, size in enumerate(shape):
        start = _CUT * size * uniform[2 * axis]
        stop = size - _CUT * size * uniform[2 * axis + 1]
        place = lax.broadcasted_iota(jnp.float32, shape, axis)
        seen &= (place >= start) & (place < stop)
    return seen


def normalised(
    image: Float[Array, "*spatial channels"], *, zero_outside: bool
) -> Float[Array, "*spatial channels"]:
    """Scale each channel as preprocessing does, by pixels brighter than background.

    Here they are brighter than a tenth of the brightest pixel.
    """
    axes = tuple(range(image.ndim - 1))
    bright = image > 0.1 * image.max(axes)
    count = jnp.maximum(bright.sum(axes), 1)
    mean = jnp.where(bright, image, 0.0).sum(axes) / count
    variance = jnp.where(bright, (image - mean) ** 2, 0.0).sum(axes) / count
    scaled = (image - mean) / jnp.maximum(jnp.sqrt(variance), 0.02)
    if not zero_outside:
        return scaled
    return jnp.where(jnp.any(image != 0, -1, keepdims=True), scaled, 0.0)
