"""Augmentations that change the values of an image and leave every pixel in place.

What changes an image is folded into a few numbers a channel first, neutral ones where
the augmentation does not happen; then the pixels are passed over once.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from unet_jax.augment import draws
from unet_jax.augment.branches import kept, where_drawn

_SMALLEST = 1e-7  # A range or deviation below this is that of a constant image.


def gaussian_noise(
    key: PRNGKeyArray,
    image: Float[Array, "*spatial channels"],
    *,
    probability: float,
    deviation: tuple[float, float],
) -> Float[Array, "*spatial channels"]:
    """Add normal noise, of one strength a channel.

    Args:
        key: random key.
        image: float32 or wider.
        probability: share of images that are changed.
        deviation: limits of the noise's standard deviation, in units of the image.

    Returns:
        The image, in its dtype.

    Source: ``GaussianNoiseTransform`` of nnU-Net v2, which draws what it calls the
    variance and uses it as the standard deviation; here it has its true name.
    """
    if probability == 0:
        return image
    decision_key, noise_key = jax.random.split(key)
    applied, shares = _decide_per_channel(decision_key, image, probability)
    strength = draws.between(shares, deviation)
    return where_drawn(applied, _with_noise, image, strength, noise_key)


def brightness(
    key: PRNGKeyArray,
    image: Float[Array, "*spatial channels"],
    *,
    probability: float,
    factor: tuple[float, float],
) -> Float[Array, "*spatial channels"]:
    """Multiply each channel by a factor around 1.

    Args:
        key: random key.
        image: float32 or wider.
        probability: share of images that are changed.
        factor: limits of the factor, which is as often below 1 as above.

    Returns:
        The image, in its dtype.

    Source: ``MultiplicativeBrightnessTransform`` of nnU-Net v2.
    """
    if probability == 0:
        return image
    applied, shares = _decide_per_channel(key, image, probability)
    factors = draws.around_one(shares, factor)
    return where_drawn(applied, jnp.multiply, image, factors)


def contrast(
    key: PRNGKeyArray,
    image: Float[Array, "*spatial channels"],
    *,
    probability: float,
    factor: tuple[float, float],
) -> Float[Array, "*spatial channels"]:
    """Stretch each channel about its mean, clipped to the range that it had.

    Args:
        key: random key.
        image: float32 or wider.
        probability: share of images that are changed.
        factor: limits of the factor, which is as often below 1 as above.

    Returns:
        The image, in its dtype.

    Source: ``ContrastTransform`` of nnU-Net v2 with its range preserved.
    """
    if probability == 0:
        return image
    applied, shares = _decide_per_channel(key, image, probability)
    factors = draws.around_one(shares, factor)
    return where_drawn(applied, _stretched, image, factors)


def gamma(
    key: PRNGKeyArray,
    image: Float[Array, "*spatial channels"],
    *,
    probability: float,
    exponent: tuple[float, float],
    invert: bool,
) -> Float[Array, "*spatial channels"]:
    """Raise each channel, within its own range, to a power; mean and deviation stay.

    Args:
        key: random key.
        image: float32 or wider.
        probability: share of images that are changed.
        exponent: limits of the exponent, which is as often below 1 as above.
        invert: work on the negative image, so that the bright end is bent instead of
            the dark one.

    Returns:
        The image, in its dtype.

    Source: ``GammaTransform`` of nnU-Net v2 with its statistics retained.
    """
    if probability == 0:
        return image
    applied, shares = _decide_per_channel(key, image, probability)
    power = draws.around_one(shares, exponent)
    bend = functools.partial(_bent, invert=invert)
    return where_drawn(applied, bend, image, power)


def _decide_per_channel(
    key: PRNGKeyArray, image: Array, probability: float
) -> tuple[Bool[Array, ""], Float[Array, " channels"]]:
    """Draw whether an image is changed, and a number in [0, 1) for each channel."""
    return draws.decide(
        key, probability=probability, shape=image.shape[-1:], dtype=image.dtype
    )


def _with_noise(image: Array, strength: Array, key: PRNGKeyArray) -> Array:
    """Add noise of one strength a channel."""
    return image + strength * jax.random.normal(key, image.shape, image.dtype)


def _stretched(image: Array, slope: Array) -> Array:
    """Stretch about the mean, within the range."""
    offset = _mean(image) * (1.0 - slope)
    low, high = _over_pixels(jnp.min, image), _over_pixels(jnp.max, image)
    return jnp.clip(image * slope + offset, low, high)


def _bent(image: Array, power: Array, *, invert: bool) -> Array:
    """Raise to a power within the range; mean and deviation stay."""
    low, high = _over_pixels(jnp.min, image), _over_pixels(jnp.max, image)
    start, direction = (high, -1.0) if invert else (low, 1.0)
    slope = direction / jnp.maximum(high - low, _SMALLEST)
    # A power by exp and log costs half of pow on a CPU; exp(-inf) is the right 0.
    bent = kept(jnp.exp(power * jnp.log((image - start) * slope)))
    # The range itself cancels: only the shape of the curve survives the next lines.
    mean, bent_mean = _mean(image), _mean(bent)
    spread = jnp.sqrt(_mean((image - mean) ** 2))
    bent_spread = jnp.sqrt(_mean((bent - bent_mean) ** 2))
    ratio = direction * spread / jnp.maximum(bent_spread, _SMALLEST)
    return bent * ratio + (mean - bent_mean * ratio)


def _mean(image: Array) -> Array:
    """Mean of each channel."""
    return _over_pixels(jnp.sum, image) / (image.size // image.shape[-1])


def _over_pixels(reduce: Callable[..., Array], image: Array) -> Array:
    """Reduce each channel, rows first: a CPU takes many pixels of a row at once."""
    row = kept(reduce(image.reshape(image.shape[0], -1), axis=0))
    return reduce(row.reshape(-1, image.shape[-1]), axis=0)
