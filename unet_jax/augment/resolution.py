"""Augmentations that make an image less sharp: blur and coarser sampling."""

import dataclasses
import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unet_jax.augment import draws
from unet_jax.augment.branches import kept, where_drawn
from unet_jax.augment.draws import Draw
from unet_jax.augment.kinds import Value
from unet_jax.augment.option import Limits, Probability, Within

_TRUNCATE = 4.0  # The kernel ends at this many standard deviations, as scipy's does.


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianBlur(Value):
    """Blurs with a Gaussian of its own width on every axis and channel.

    Beyond its border the image is mirrored about the outermost pixel.

    Attributes:
        probability: fraction of examples.
        channel_probability: fraction of the channels of a blurred example.
        sigma: limits of the Gaussian's standard deviation, in pixels; the upper one
            sets the kernel size.

    Source: ``GaussianBlurTransform`` of nnU-Net v2.
    """

    probability: Probability = 0.2
    channel_probability: Probability = 0.5
    sigma: Annotated[Limits, Within(0.0, 100.0)] = (0.5, 1.0)

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number, and for each channel one and another for each axis."""
        return 1 + len(image_shape) * image_shape[-1]

    def change(self, draw: Draw, image: Array) -> Array:
        """Blur the channels that are drawn."""
        shape = (image.ndim, image.shape[-1])
        applied, uniform = draw.decide_by_channel(self.probability, shape)
        applied &= uniform[0] < self.channel_probability
        sigmas = draws.between(uniform[1:], self.sigma)
        radius = math.floor(_TRUNCATE * self.sigma[1] + 0.5)
        offset = jnp.arange(radius + 1, dtype=image.dtype)
        # The smallest positive width keeps a sigma of 0 at the identity, not at 0 / 0.
        sigmas = jnp.maximum(sigmas, 1e-3)[:, None]
        weights = jnp.exp(-0.5 * (offset[:, None] / sigmas) ** 2)
        weights /= 2.0 * weights.sum(1, keepdims=True) - weights[:, :1]
        return where_drawn(applied.any(), _blurred, image, weights, applied)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowResolution(Value):
    """Samples the image on a coarser grid (nearest) and brings it back (linear).

    Attributes:
        probability: fraction of examples.
        channel_probability: fraction of the channels of such an example.
        scale: limits of the coarse grid's size as a fraction of the image's, in (0, 1];
            one value for each channel, the same for all axes.

    Source: ``SimulateLowResolutionTransform`` of nnU-Net v2.
    """

    probability: Probability = 0.25
    channel_probability: Probability = 0.5
    scale: Annotated[Limits, Within(0.01, 1.0)] = (0.5, 1.0)

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number, and two for each channel."""
        return 1 + 2 * image_shape[-1]

    def change(self, draw: Draw, image: Array) -> Array:
        """Coarsen the channels that are drawn."""
        shape = (2, image.shape[-1])
        applied, uniform = draw.decide_by_channel(self.probability, shape)
        applied &= uniform[0] < self.channel_probability
        scales = draws.between(uniform[1], self.scale)
        return where_drawn(applied.any(), _coarsened, image, scales, applied)


def _blurred(image: Array, weights: Array, applied: Array) -> Array:
    """Filter the axes of the channels that are changed."""
    blurred = image
    for axis in range(image.ndim - 1):
        blurred = kept(_symmetric_filter(blurred, weights[axis], axis))
    return jnp.where(applied, blurred, image)


def _symmetric_filter(image: Array, weights: Array, axis: int) -> Array:
    """Filter one axis with ``weights`` (radius + 1, channels), the centre first."""
    radius, size = weights.shape[0] - 1, image.shape[axis]
    pad_width = [(0, 0)] * image.ndim
    pad_width[axis] = (radius, radius)
    padded = kept(jnp.pad(image, pad_width, mode="reflect"))

    def shifted(offset: int) -> Array:
        return jax.lax.slice_in_dim(
            padded, radius + offset, radius + offset + size, axis=axis
        )

    result = weights[0] * image
    for offset in range(1, radius + 1):
        result += weights[offset] * (shifted(offset) + shifted(-offset))
    return result


def _coarsened(image: Array, scales: Array, applied: Array) -> Array:
    """Sample channels on their coarser grids and bring them back, where applied."""
    coarse = image
    for axis in range(image.ndim - 1):
        # Reading pixels is less work than a product, but a TPU does products only well.
        coarse = jax.lax.platform_dependent(
            coarse,
            scales,
            cpu=functools.partial(_coarsened_by_reading, axis=axis),
            default=functools.partial(_coarsened_by_product, axis=axis),
        )
    return jnp.where(applied, coarse, image)


def _coarsened_by_product(image: Array, scales: Array, *, axis: int) -> Array:
    """Multiply one axis of each channel by its matrix."""
    size = image.shape[axis]

    def matrix(scale: Array) -> Array:
        left, right, weight = _there_and_back(scale, size)
        first, second = (
            source[:, None] == jnp.arange(size) for source in (left, right)
        )
        return (1.0 - weight[:, None]) * first + weight[:, None] * second

    # Full precision: a TPU would otherwise round the image to bfloat16 here.
    coarse = jnp.einsum(
        "cij,j...c->i...c",
        jax.vmap(matrix)(scales),
        jnp.moveaxis(image, axis, 0),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(coarse, 0, axis)


def _coarsened_by_reading(image: Array, scales: Array, *, axis: int) -> Array:
    """Read the two pixels that each pixel of one axis comes from."""

    def channel(values: Array, scale: Array) -> Array:
        left, right, weight = _there_and_back(scale, values.shape[axis])
        before = (slice(None),) * axis
        weight = weight.reshape(-1, *[1] * (values.ndim - axis - 1))
        first, second = (
            values.at[(*before, source)].get(mode="promise_in_bounds")
            for source in (left, right)
        )
        return (1.0 - weight) * first + weight * second

    return kept(jax.vmap(channel, (-1, 0), -1)(image, scales))


def _there_and_back(scale: Array, size: int) -> tuple[Array, Array, Array]:
    """Coarsen one axis by nearest and refine it linearly.

    Returns the two pixels that each comes from, and the weight of the second.
    """
    coarse_size = jnp.maximum(jnp.round(size * scale), 1.0)
    ratio = size / coarse_size
    pixel = jnp.arange(size, dtype=scale.dtype)
    position = jnp.clip((pixel + 0.5) / ratio - 0.5, 0.0, coarse_size - 1.0)
    left = jnp.floor(position)
    right = jnp.minimum(left + 1.0, coarse_size - 1.0)

    def source(coarse_pixel: Array) -> Array:
        place = jnp.minimum(jnp.floor((coarse_pixel + 0.5) * ratio), size - 1.0)
        return place.astype(jnp.int32)

    return kept((source(left), source(right), position - left))
