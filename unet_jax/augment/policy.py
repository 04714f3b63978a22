"""The augmentations of a training run, in order."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, Shaped

from unet_jax.augment import coordinates, intensity, resolution
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
    matrix_key, displacement_key = jax.random.split(key)
    matrix = _drawn_matrix(matrix_key, label.ndim, image.dtype, options)
    moved = None
    if options.elastic_probability:
        moved = coordinates.displacement(
            displacement_key,
            shape=label.shape,
            probability=options.elastic_probability,
            spacing=options.elastic_spacing,
            magnitude=options.elastic_magnitude,
            dtype=image.dtype,
        )
    if matrix is None and moved is None:
        return image, label  # No interpolation in the program.
    places = coordinates.places(matrix, moved, shape=label.shape, dtype=image.dtype)
    return sample(image, label, places)


def _drawn_matrix(
    key: PRNGKeyArray, ndim: int, dtype: jnp.dtype, options: AugmentationOptions
) -> Array | None:
    """Multiply what mirrors, rotates and scales; None where nothing can."""
    keys = jax.random.split(key, 3)
    matrices = []
    if options.flip_probability and options.spatial_axes_flip:
        matrices.append(
            coordinates.mirroring(
                keys[0],
                ndim=ndim,
                probability=options.flip_probability,
                axes=options.spatial_axes_flip,
                dtype=dtype,
            )
        )
    if options.rotation_probability:
        matrices.append(
            coordinates.rotation(
                keys[1],
                ndim=ndim,
                probability=options.rotation_probability,
                degrees=(
                    options.rotation_degrees_2d
                    if ndim == 2
                    else options.rotation_degrees_3d
                ),
                dtype=dtype,
            )
        )
    if options.scaling_probability:
        matrices.append(
            coordinates.scaling(
                keys[2],
                ndim=ndim,
                probability=options.scaling_probability,
                factor=options.scaling_factor,
                dtype=dtype,
            )
        )
    if not matrices:
        return None
    return functools.reduce(
        lambda first, then: jnp.matmul(
            then, first, precision=jax.lax.Precision.HIGHEST
        ),
        matrices,
    )


def _revalued(key: PRNGKeyArray, image: Array, options: AugmentationOptions) -> Array:
    """Change the values in nnU-Net's order."""
    keys = jax.random.split(key, 7)
    image = jax.lax.optimization_barrier(image)
    image = intensity.gaussian_noise(
        keys[0],
        image,
        probability=options.noise_probability,
        deviation=options.noise_deviation,
    )
    image = jax.lax.optimization_barrier(image)
    image = resolution.gaussian_blur(
        keys[1],
        image,
        probability=options.blur_probability,
        channel_probability=options.blur_channel_probability,
        sigma=options.blur_sigma,
    )
    image = jax.lax.optimization_barrier(image)
    image = intensity.brightness(
        keys[2],
        image,
        probability=options.brightness_probability,
        factor=options.brightness_factor,
    )
    image = jax.lax.optimization_barrier(image)
    image = intensity.contrast(
        keys[3],
        image,
        probability=options.contrast_probability,
        factor=options.contrast_factor,
    )
    image = jax.lax.optimization_barrier(image)
    image = resolution.low_resolution(
        keys[4],
        image,
        probability=options.low_resolution_probability,
        channel_probability=options.low_resolution_channel_probability,
        scale=options.low_resolution_scale,
    )
    image = jax.lax.optimization_barrier(image)
    image = intensity.gamma(
        keys[5],
        image,
        probability=options.gamma_inverted_probability,
        exponent=options.gamma_inverted_exponent,
        invert=True,
    )
    image = jax.lax.optimization_barrier(image)
    return intensity.gamma(
        keys[6],
        image,
        probability=options.gamma_probability,
        exponent=options.gamma_exponent,
        invert=False,
    )
