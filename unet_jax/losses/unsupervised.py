"""Losses that compare a prediction with its image; they read no labels."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from unet_jax.losses.targets import at_least_float32


def soft_ncut_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    images: Float[ArrayLike, "batch *image"],
    intensity_sigma: float = 0.2,
    spatial_sigma: float = 4.0,
    radius: float = 5.0,
) -> Float[Array, " batch"]:
    r"""Soft normalised cut of each sample: similar, near pixels belong together.

    .. math::
        J = K - \sum_{k=1}^K \frac{\sum_u p_{uk} \sum_v w_{uv} p_{vk}}
                                  {\sum_u p_{uk} \sum_v w_{uv}}
        \qquad
        w_{uv} = e^{-\|F_u - F_v\|^2 / \sigma_I^2} e^{-\|X_u - X_v\|^2 / \sigma_X^2}
                 \text{ if } \|X_u - X_v\| < r \text{, else } 0

    with p the softmax over K clusters, F the channels of a pixel and X its position.
    The numerator is the affinity inside a cluster, the denominator the affinity to all
    pixels. An empty cluster adds 1, which is the largest value.

    Each pixel is compared with the pixels of a half disc (a half ball in 3-D), one
    shift at a time: w is symmetric, so the other half has the same numbers, and no
    matrix of pixel pairs is made. Images get no gradient.

    Args:
        logits: unnormalised cluster scores.
        images: input of the network, with 1 or more channels.
        intensity_sigma: width of the intensity weights, in units of the images. The
            paper has 10 for grey values up to 255, which is 0.2 after z-scoring an
            image with a standard deviation of 50.
        spatial_sigma: width of the spatial weights in pixels, the paper's value.
        radius: distance in pixels from which on weights are 0, the paper's value. In
            3-D the number of pairs grows with its cube: start with 3.

    Returns: Values in [0, K], float32; K - 1 for scores that are equal everywhere.
    Raises: ValueError: images and logits differ in size, or a sigma or radius is not
        above 0.
    Source: Xia and Kulis: W-Net: A Deep Model for Fully Unsupervised Image Segmentation
        (arXiv 1711.08506), section 3.2 and section 4.1 for the weights; the affinity of
        Shi and Malik: Normalized Cuts and Image Segmentation (TPAMI 2000), eq. 11.

    Example:
        >>> images = jnp.array([[[0.0], [0.0], [9.0], [9.0]]])  # two dark, two bright
        >>> logits = 50.0 * jnp.array([[[1, -1], [1, -1], [-1, 1], [-1, 1]]])
        >>> soft_ncut_loss(logits=logits, images=images).round(3)  # cut at the edge
        Array([0.], dtype=float32)
        >>> soft_ncut_loss(logits=0 * logits, images=images).round(3)  # undecided
        Array([1.], dtype=float32)
    """
    logits, images = at_least_float32(logits), at_least_float32(images)
    if logits.shape[:-1] != images.shape[:-1]:
        raise ValueError(
            f"images of shape {images.shape} for logits {logits.shape}; expected "
            f"{logits.shape[:-1]} and channels"
        )
    weights = (float(intensity_sigma), float(spatial_sigma), float(radius))
    if min(weights) <= 0:
        raise ValueError(
            "intensity_sigma, spatial_sigma and radius must be above 0; found "
            f"{intensity_sigma}, {spatial_sigma} and {radius}"
        )
    # Clusters and channels first: the inner loops then run over many pixels.
    p = jnp.moveaxis(jax.nn.softmax(logits, axis=-1), -1, 1)
    places = tuple(range(2, p.ndim))
    inside, degree = _associations(p, jnp.moveaxis(images, -1, 1), weights)
    to_all = jnp.sum(p * degree, axis=places)
    # An empty cluster is 0 / 0; the square of the divisor must not underflow.
    least = jnp.finfo(to_all.dtype).tiny ** 0.5
    return p.shape[1] - jnp.sum(inside / jnp.maximum(to_all, least), axis=1)


@functools.partial(
    jax.jit, static_argnames=("intensity_sigma", "spatial_sigma", "radius")
)
def cluster_affinities(
    *,
    probabilities: Float[ArrayLike, "batch *spatial classes"],
    images: Float[ArrayLike, "batch *image"],
    intensity_sigma: float = 0.2,
    spatial_sigma: float = 4.0,
    radius: float = 5.0,
) -> Float[Array, "classes classes"]:
    r"""Affinity between each pair of clusters, summed over a batch.

    .. math:: A_{kl} = \sum_u p_{uk} \sum_v w_{uv} p_{vl}

    with the weights w of `soft_ncut_loss`. The normalised cut of any groups of clusters
    follows from A, so that clusters can be merged by the loss they were trained with.

    Args:
        images, intensity_sigma, spatial_sigma, radius: as for `soft_ncut_loss`.
        probabilities: probability of each cluster, or 0 and 1; a pixel with zeros only
            is left out.

    Returns: A symmetric matrix, float32.
    Source: Shi and Malik: Normalized Cuts and Image Segmentation (TPAMI 2000), eq. 2.

    Example:
        >>> images = jnp.array([[[0.0], [0.0], [9.0]]])
        >>> clusters = jnp.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        >>> cluster_affinities(probabilities=clusters, images=images).round(0)
        Array([[4., 0.],
               [0., 1.]], dtype=float32)
    """
    p = jnp.moveaxis(at_least_float32(probabilities), -1, 1)
    weights = (float(intensity_sigma), float(spatial_sigma), float(radius))
    near, _ = _affinity_product(
        p, jnp.moveaxis(at_least_float32(images), -1, 1), weights
    )
    return jnp.einsum("bk...,bl...->kl", p, near)


def reconstruction_loss(
    *,
    reconstruction: Float[ArrayLike, "batch *spatial channels"],
    images: Float[ArrayLike, "batch *image"],
) -> Float[Array, " batch"]:
    r"""Mean squared error between an image and its reconstruction, for each sample.

    .. math:: J = \frac{1}{N C} \sum_{u, c} (\hat F_{uc} - F_{uc})^2

    over N pixels and C channels. The paper has the sum; the weight of the mean beside
    other losses does not depend on the size of the crops.

    Args:
        reconstruction: output of the decoder.
        images: input of the network.

    Returns: Values of 0 or more, float32.
    Raises: ValueError: the shapes differ.
    Source: Xia and Kulis (arXiv 1711.08506), eq. 1.

    Example:
        >>> images = jnp.array([[[0.0], [2.0]]])
        >>> reconstruction_loss(reconstruction=images + 3.0, images=images)
        Array([9.], dtype=float32)
    """
    made, images = at_least_float32(reconstruction), at_least_float32(images)
    if made.shape != images.shape:
        raise ValueError(
            f"reconstruction of shape {made.shape} for images {images.shape}; expected "
            "the same"
        )
    return jnp.mean(jnp.square(made - images), axis=tuple(range(1, images.ndim)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _associations(
    p: Array, images: Array, weights: tuple[float, float, float]
) -> tuple[Array, Array]:
    """Affinity inside each cluster (batch, clusters), and of each pixel to all others.

    Both arguments are (batch, clusters or channels, *spatial); the second result is
    (batch, 1, *spatial).
    """
    near, degree = _affinity_product(p, images, weights)
    return jnp.sum(p * near, axis=tuple(range(2, p.ndim))), degree


def _associations_forward(p, images, weights):
    near, degree = _affinity_product(p, images, weights)
    inside = jnp.sum(p * near, axis=tuple(range(2, p.ndim)))
    return (inside, degree), (near, images)


def _associations_backward(weights, residuals, cotangents):
    """W is symmetric: the gradient of p'Wp is 2 Wp, which the forward pass computed."""
    del weights
    near, images = residuals
    over_space = cotangents[0].reshape(*cotangents[0].shape, *(1,) * (near.ndim - 2))
    return 2 * over_space * near, jnp.zeros_like(images)


_associations.defvjp(_associations_forward, _associations_backward)


def _affinity_product(
    p: Array, images: Array, weights: tuple[float, float, float]
) -> tuple[Array, Array]:
    """Wp and W1 (one cluster), shift by shift; (batch, clusters, *spatial)."""
    intensity_sigma, spatial_sigma, radius = weights
    axes = images.ndim - 2
    shifts = _half_disc(axes, radius)
    # A plane of ones beside p: one pass gives Wp and W1.
    both = jnp.concatenate([p, jnp.ones_like(p[:, :1])], axis=1)
    if not shifts:
        return p, jnp.ones_like(p[:, :1])
    reach = max(abs(step) for shift in shifts for step in shift)
    pads = ((0, 0), (0, 0), *((reach, reach),) * axes)
    # Outside of the image the planes are 0 and add nothing.
    padded, around = jnp.pad(both, pads), jnp.pad(images, pads)
    inner = images.shape[2:]

    def part(array, shift):
        start = (0, 0, *(reach + step for step in shift))
        return jax.lax.dynamic_slice(array, start, (*array.shape[:2], *inner))

    def one_shift(total, shift_and_weight):
        shift, weight = shift_and_weight
        for sign in (1, -1):
            moved = [sign * shift[axis] for axis in range(axes)]
            squares = jnp.square(part(around, moved) - images).sum(1, keepdims=True)
            affinity = weight * jnp.exp(-squares / intensity_sigma**2)
            total = total + affinity * part(padded, moved)
        return total, None

    spatial = [math.exp(-(math.hypot(*s) ** 2) / spatial_sigma**2) for s in shifts]
    steps = (jnp.array(shifts, jnp.int32), jnp.array(spatial, p.dtype))
    # The weight of a pixel with itself is 1.
    total, _ = jax.lax.scan(one_shift, both, steps)
    return total[:, :-1], total[:, -1:]


def _half_disc(axes: int, radius: float) -> list[tuple[int, ...]]:
    """Shifts shorter than the radius, one of each opposite pair."""
    reach = math.ceil(radius) - 1
    grid = itertools.product(range(-reach, reach + 1), repeat=axes)
    return [
        shift for shift in grid if shift > (0,) * axes and math.hypot(*shift) < radius
    ]
