"""The augmentations of a training run, in order."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, Shaped

from unet_jax.augment import coordinates, intensity, resolution
from unet_jax.augment.branches import where_drawn
from unet_jax.augment.options import AugmentationOptions, resolve_options
from unet_jax.augment.sampling import sample


def augment(
    key: PRNGKeyArray,
    image: Float[Array, "*spatial channels"],
    label: Integer[Array, "*spatial"],
    **options: Any,
) -> tuple[Float[Array, "*spatial channels"], Integer[Array, "*spatial"]]:
    """Augment one example: first its place, then its values, in nnU-Net's order.

    Args:
        key: random key of this example; each augmentation has its own part of it, so
            that one left out does not change the draws of the others.
        image: picture or volume, in any floating dtype; half precision is widened
            while it is worked on.
        label: class index of every pixel, or IGNORE, in any integer dtype.
        **options: see ``AugmentationOptions``; plain Python values.

    Returns:
        Image and label in their shapes and dtypes.

    Raises:
        ValueError: an unknown option, or a value out of bounds.

    Source: the default training transforms of nnU-Net v2 (Isensee et al. 2021).
    """
    chosen = resolve_options(options)
    place_key, value_key = jax.random.split(key)
    dtype = image.dtype
    image = image.astype(jnp.promote_types(dtype, jnp.float32))
    image, label = _moved(place_key, image, label, chosen)
    return _revalued(value_key, image, chosen).astype(dtype), label


def augment_batch(
    keys: Shaped[Array, "batch ..."],
    images: Float[Array, "batch *spatial channels"],
    labels: Integer[Array, "batch *spatial"],
    **options: Any,
) -> tuple[Float[Array, "batch *spatial channels"], Integer[Array, "batch *spatial"]]:
    """Augment every example of a batch with its own key.

    Args:
        keys: one key an example, as ``draws.example_keys`` gives them.
        images: pictures or volumes.
        labels: class index of every pixel, or IGNORE.
        **options: see ``AugmentationOptions``.

    Returns:
        Images and labels in their shapes and dtypes.

    Raises:
        ValueError: an unknown option, or a value out of bounds.
    """
    return jax.vmap(lambda *example: augment(*example, **options))(keys, images, labels)


def _moved(
    key: PRNGKeyArray, image: Array, label: Array, options: AugmentationOptions
) -> tuple[Array, Array]:
    """Compose the coordinate map and read image and label at it."""
    matrix_key, points_key = jax.random.split(key)
    matrix = _drawn_matrix(matrix_key, label.ndim, image.dtype, options)
    points = None
    if options.elastic_probability:
        points = coordinates.control_points(
            points_key,
            shape=label.shape,
            probability=options.elastic_probability,
            spacing=options.elastic_spacing,
            magnitude=options.elastic_magnitude,
            dtype=image.dtype,
        )
    if matrix is None and points is None:
        return image, label  # No interpolation in the program.
    read = functools.partial(_read, spacing=options.elastic_spacing)
    return jax.lax.platform_dependent(
        (image, label),
        matrix,
        points,
        cpu=functools.partial(_mirrored_or_read, read),
        default=read,
    )


def _read(
    both: tuple[Array, Array],
    matrix: Array | None,
    points: Array | None,
    *,
    spacing: float,
) -> tuple[Array, Array]:
    """Read image and label where each pixel's place is taken to."""
    image, label = both
    shape, moved = label.shape, None
    if points is not None:
        moved = coordinates.displacement(points, shape=shape, spacing=spacing)
    places = coordinates.places(matrix, moved, shape=shape, dtype=image.dtype)
    return sample(image, label, places)


def _mirrored_or_read(
    read: Callable[..., tuple[Array, Array]],
    both: tuple[Array, Array],
    matrix: Array | None,
    points: Array | None,
) -> tuple[Array, Array]:
    """Read only what is not just mirrored: those places are pixels, to be swapped."""
    between_pixels = jnp.array(False)
    if points is not None:
        between_pixels |= jnp.any(points != 0)
    if matrix is not None:
        directions = jnp.diagonal(matrix)
        between_pixels |= jnp.any(jnp.abs(matrix) != jnp.eye(len(matrix)))
        for axis in range(len(matrix)):
            both = where_drawn(
                ~between_pixels & (directions[axis] < 0),
                functools.partial(jax.tree.map, functools.partial(jnp.flip, axis=axis)),
                both,
            )
    return where_drawn(between_pixels, read, both, matrix, points)


def _drawn_matrix(
    key: PRNGKeyArray, ndim: int, dtype: jnp.dtype, options: AugmentationOptions
) -> Array | None:
    """Multiply what mirrors, rotates and scales; None where nothing can."""
    flip_key, rotation_key, scaling_key = jax.random.split(key, 3)
    degrees = options.rotation_degrees_2d if ndim == 2 else options.rotation_degrees_3d
    matrix = None
    if options.flip_probability and options.spatial_axes_flip:
        matrix = coordinates.mirroring(
            flip_key,
            ndim=ndim,
            probability=options.flip_probability,
            axes=options.spatial_axes_flip,
            dtype=dtype,
        )
    if options.rotation_probability:
        turn = coordinates.rotation(
            rotation_key,
            ndim=ndim,
            probability=options.rotation_probability,
            degrees=degrees,
            dtype=dtype,
        )
        matrix = coordinates.then(matrix, turn)
    if options.scaling_probability:
        stretch = coordinates.scaling(
            scaling_key,
            ndim=ndim,
            probability=options.scaling_probability,
            factor=options.scaling_factor,
            dtype=dtype,
        )
        matrix = coordinates.then(matrix, stretch)
    return matrix


def _revalued(key: PRNGKeyArray, image: Array, options: AugmentationOptions) -> Array:
    """Change the values, one step after the other."""
    steps = _value_steps(options)
    for step_key, step in zip(jax.random.split(key, len(steps)), steps, strict=True):
        image = step(step_key, image)
    return image


def _value_steps(options: AugmentationOptions) -> list[Callable[..., Array]]:
    """List what changes values, in nnU-Net's order."""
    return [
        functools.partial(
            intensity.gaussian_noise,
            probability=options.noise_probability,
            deviation=options.noise_std,
        ),
        functools.partial(
            resolution.gaussian_blur,
            probability=options.blur_probability,
            channel_probability=options.blur_channel_probability,
            sigma=options.blur_sigma,
        ),
        functools.partial(
            intensity.brightness,
            probability=options.brightness_probability,
            factor=options.brightness_factor,
        ),
        functools.partial(
            intensity.contrast,
            probability=options.contrast_probability,
            factor=options.contrast_factor,
        ),
        functools.partial(
            resolution.low_resolution,
            probability=options.low_resolution_probability,
            channel_probability=options.low_resolution_channel_probability,
            scale=options.low_resolution_scale,
        ),
        functools.partial(
            intensity.gamma,
            probability=options.gamma_inverted_probability,
            exponent=options.gamma_inverted_exponent,
            invert=True,
        ),
        functools.partial(
            intensity.gamma,
            probability=options.gamma_probability,
            exponent=options.gamma_exponent,
            invert=False,
        ),
    ]
