"""Reads an image and its label at the places of one coordinate map."""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from unet_jax.augment.branches import kept


def sample(
    image: Float[Array, "*spatial channels"],
    label: Integer[Array, "*spatial"],
    places: list[Float[Array, "..."]],
) -> tuple[Float[Array, "*crop channels"], Integer[Array, "*crop"]]:
    """Read the image linearly and the label at the nearest pixel, at the same places.

    Beyond the border both are mirrored about the outermost pixel (scipy's "mirror").
    The places, one array for each axis, come from `coordinates.places`. Image and label
    get the shape of the places, and keep their dtypes.
    """
    shape = jnp.broadcast_shapes(*(place.shape for place in places))
    positions = kept(
        [
            jnp.broadcast_to(_mirrored(place, size), shape)
            for place, size in zip(places, label.shape, strict=True)
        ]
    )
    return _linear(image, positions), _nearest(label, positions)


def _mirrored(position: Array, size: int) -> Array:
    """Fold a position on an axis back into [0, size - 1]."""
    if size == 1:
        return jnp.zeros_like(position)
    period = 2.0 * (size - 1)
    # floor, since mod is slow on a CPU. What lies inside stays the same to the bit.
    position = position - period * jnp.floor(position / period)
    return jnp.clip(jnp.minimum(position, period - position), 0.0, size - 1.0)


def _linear(image: Array, positions: list[Array]) -> Array:
    """Interpolate between the 2 ** axes pixels around each position."""
    shape, channels = image.shape[:-1], image.shape[-1]
    neighbours = []
    for position, size in zip(positions, shape, strict=True):
        left = jnp.minimum(jnp.floor(position), max(size - 2, 0))
        weight = position - left
        index = left.astype(jnp.int32)
        neighbours.append(
            ((index, 1.0 - weight), (jnp.minimum(index + 1, size - 1), weight))
        )
    pixels = image.reshape(-1, channels)
    result = jnp.zeros((), positions[0].dtype)
    for corner in itertools.product(*neighbours):
        weight = jnp.ones((), positions[0].dtype)
        for _, part in corner:
            weight = weight * part
        values = _at(pixels, [index for index, _ in corner], shape)
        result = result + weight[..., None] * values
    return result.astype(image.dtype)


def _nearest(label: Array, positions: list[Array]) -> Array:
    """Take the pixel whose centre is nearest to each position."""
    indices = [jnp.floor(position + 0.5).astype(jnp.int32) for position in positions]
    return _at(label.reshape(-1), indices, label.shape)


def _at(pixels: Array, indices: list[Array], shape: tuple[int, ...]) -> Array:
    """Take pixels by their index on each axis, which must lie inside ``shape``."""
    flat = jnp.zeros((), jnp.int32)
    for index, size in zip(indices, shape, strict=True):
        flat = flat * size + index
    return pixels.at[flat].get(mode="promise_in_bounds")
