"""Augmentations that change the intensities of an image."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from unet_jax.augment import draws
from unet_jax.augment.branches import kept, where_drawn
from unet_jax.augment.draws import Draw
from unet_jax.augment.kinds import Value
from unet_jax.augment.option import Limits, Probability, Within

_SMALLEST = 1e-7  # A range or std below this is that of a constant image.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PerChannel(Value):
    """A change with one drawn number for each channel."""

    def count(self, image_shape: tuple[int, ...]) -> int:
        """One number for the decision, and one for each channel."""
        return 1 + image_shape[-1]

    def decide(
        self, draw: Draw, image: Array
    ) -> tuple[Bool[Array, ""], Float[Array, " channels"]]:
        """Return whether an image is changed, and a draw for each channel."""
        return draw.decide_by_channel(self.probability, image.shape[-1:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNoise(_PerChannel):
    """Adds normal noise, of one strength for each channel.

    Attributes:
        probability: fraction of examples.
        std: limits of the noise's standard deviation, in units of the normalised image.

    Source: ``GaussianNoiseTransform`` of nnU-Net v2, which draws what it calls the
    variance and uses it as the standard deviation; here it has its true name.
    """

    probability: Probability = 0.1
    std: Annotated[Limits, Within(0.0, 1e6)] = (0.0, 0.1)

    def change(self, draw: Draw, image: Array) -> Array:
        """Add the noise."""
        applied, uniform = self.decide(draw, image)
        strength = draws.between(uniform, self.std)
        return where_drawn(applied, _with_noise, image, strength, draw.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brightness(_PerChannel):
    """Multiplies each channel by a factor.

    Attributes:
        probability: fraction of examples.
        factor: limits of the factor, which is as often below 1 as above.

    Source: ``MultiplicativeBrightnessTransform`` of nnU-Net v2.
    """

    probability: Probability = 0.15
    factor: Annotated[Limits, Within(0.0, 1e6)] = (0.75, 1.25)

    def change(self, draw: Draw, image: Array) -> Array:
        """Multiply each channel."""
        applied, uniform = self.decide(draw, image)
        factors = draws.around_one(uniform, self.factor)
        return where_drawn(applied, jnp.multiply, image, factors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast(_PerChannel):
    """Stretches each channel about its mean, clipped to the range that it had.

    Attributes:
        probability: fraction of examples.
        factor: limits of the factor on the distance from the mean, which is as often
            below 1 as above.

    Source: ``ContrastTransform`` of nnU-Net v2 with its range preserved.
    """

    probability: Probability = 0.15
    factor: Annotated[Limits, Within(0.0, 1e6)] = (0.75, 1.25)

    def change(self, draw: Draw, image: Array) -> Array:
        """Stretch each channel."""
        applied, uniform = self.decide(draw, image)
        factors = draws.around_one(uniform, self.factor)
        return where_drawn(applied, _stretched, image, factors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gamma(_PerChannel):
    """Raises each channel, within its range, to a power; mean and std are kept.

    Attributes:
        probability: fraction of examples.
        exponent: limits of the exponent, which is as often below 1 as above.

    Source: ``GammaTransform`` of nnU-Net v2 with its statistics retained.
    """

    probability: Probability = 0.3
    exponent: Annotated[Limits, Within(0.01, 100.0)] = (0.7, 1.5)

    inverted: ClassVar[bool] = False

    def change(self, draw: Draw, image: Array) -> Array:
        """Raise each channel to its power."""
        applied, uniform = self.decide(draw, image)
        power = draws.around_one(uniform, self.exponent)
        bend = functools.partial(_bent, invert=self.inverted)
        return where_drawn(applied, bend, image, power)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GammaInverted(Gamma):
    """Gamma of the negative image: it bends the bright end instead of the dark one.

    Attributes:
        probability: fraction of examples.
    """

    probability: Probability = 0.1

    inverted: ClassVar[bool] = True


def _with_noise(image: Array, strength: Array, key: PRNGKeyArray) -> Array:
    """Add noise of one strength for each channel."""
    return image + strength * jax.random.normal(key, image.shape, image.dtype)


def _stretched(image: Array, slope: Array) -> Array:
    """Stretch about the mean, within the range."""
    offset = _mean(image) * (1.0 - slope)
    low, high = _over_pixels(jnp.min, image), _over_pixels(jnp.max, image)
    return jnp.clip(image * slope + offset, low, high)


def _bent(image: Array, power: Array, *, invert: bool) -> Array:
    """Raise to a power within the range; mean and std stay."""
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
