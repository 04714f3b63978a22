"""Losses weighted by the distance of a pixel to the boundary of its class."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.losses.categorical import cross_entropy
from unet_jax.losses.distance import (
    boundary_distance,
    connected_components,
    two_nearest_objects,
)
from unet_jax.losses.targets import (
    Head,
    pixel_axes,
    probabilities_and_targets,
    weighted_by_class,
)


def boundary_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Boundary loss of each sample and class; use it beside an overlap loss.

    .. math:: L_c = \frac1N \sum_i p_{ic} \phi_{ic}

    with :math:`\phi` the signed distance to the true boundary, in pixels: outside the
    class the distance to the class, inside it 1 minus the distance to the outside, so
    that pixels at the boundary have 0. :math:`\phi = 0` for a class that is absent from
    a sample or fills it. The distances treat ignored pixels as background; the sum
    leaves them out.

    Args:
        logits, labels, head, class_weights: as for `dice_loss`.

    Returns: Values, below 0 for a good prediction, float32.
    Source: Kervadec et al.: Boundary loss for highly unbalanced segmentation (MIDL
        2019), eq. 5, with the distances of its code.

    Example:
        >>> labels = jnp.array([[0, 0, 1, 1, 1]])
        >>> right = 50.0 * jnp.eye(2)[labels]
        >>> boundary_loss(logits=right, labels=labels).round(3)  # -(0+1)/5, -(0+1+2)/5
        Array([[-0.2, -0.6]], dtype=float32)
    """
    p, target, valid = probabilities_and_targets(logits, labels, head)
    mask = target > 0
    distance = boundary_distance(mask)
    bounded = distance > 0
    signed = jnp.where(mask, (1 - distance) * bounded, distance)
    loss = _mean(p * signed, valid, pixel_axes(p))
    return weighted_by_class(loss, class_weights)


def hausdorff_dt_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    alpha: float = 2.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Hausdorff loss of each sample and class, from distance transforms.

    .. math:: L_c = \frac1N \sum_i (p_{ic}-y_{ic})^2
                    (d_{P,ic}^\alpha + d_{Y,ic}^\alpha)

    with :math:`d_Y` and :math:`d_P` the distance to the boundary of the label and of
    the prediction (:math:`p > 1/2`), in pixels; 0 where there is no boundary. The
    distances have no gradient. They treat ignored pixels as background; the sum leaves
    them out.

    Args:
        logits, labels, head, class_weights: as for `dice_loss`.
        alpha: exponent of the distances; larger values penalise far errors more.

    Returns: Values of 0 or more, float32.
    Source: Karimi, Salcudean: Reducing the Hausdorff distance in medical image
        segmentation (IEEE TMI 2020), eq. 8.

    Example:
        >>> labels = jnp.array([[0, 0, 1, 1]])
        >>> right = 50.0 * jnp.eye(2)[labels]
        >>> hausdorff_dt_loss(logits=right, labels=labels).round(3)
        Array([[0., 0.]], dtype=float32)
    """
    p, target, valid = probabilities_and_targets(logits, labels, head)
    distances = boundary_distance(target > 0) ** alpha
    distances += boundary_distance((p > 0.5) & valid) ** alpha
    loss = _mean(jnp.square(p - target) * distances, valid, pixel_axes(p))
    return weighted_by_class(loss, class_weights)


def unet_weighted_cross_entropy(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *spatial"],
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch *spatial"]:
    r"""Cross-entropy of the 2015 U-Net: gaps between touching cells weigh most.

    .. math:: L_i = -w_i \log p_{i y_i}, \quad
        w_i = w_{c,y_i} + w_0 \exp\Big(-\frac{(d_{1,i} + d_{2,i})^2}{2\sigma^2}\Big)

    with :math:`d_1` and :math:`d_2` the distances in pixels to the nearest and to the
    second nearest cell. Only background pixels have the second summand. Cells are the
    connected components of the classes above 0.

    Args:
        logits, labels: as for `cross_entropy`.
        w0: weight in a gap of width 0.
        sigma: width of the weights around a gap, in pixels.
        class_weights: :math:`w_c`, the weight of each class; None for ones.

    Returns: One value for each pixel, at least 0, float32.
    Source: Ronneberger, Fischer, Brox: U-Net (MICCAI 2015), eq. 1 and 2.

    Example:
        >>> labels = jnp.array([[1, 0, 1, 0, 0, 0, 0, 0]])
        >>> loss = unet_weighted_cross_entropy(
        ...     logits=jnp.zeros((1, 8, 2)), labels=labels, sigma=1.0
        ... )
        >>> loss[0, 1].round(3)  # ln 2 (1 + 10 exp(-2))
        Array(1.631, dtype=float32)
    """
    labels = jnp.asarray(labels)
    plain = cross_entropy(logits=logits, labels=labels)
    weighted = cross_entropy(logits=logits, labels=labels, class_weights=class_weights)
    first, second = two_nearest_objects(connected_components(labels > 0))
    gap = jnp.exp(-jnp.square(first + second) / (2 * sigma**2)) * (labels == 0)
    return weighted + w0 * jax.lax.stop_gradient(gap) * plain


def _mean(values: Array, valid: Array, axes: tuple[int, ...]) -> Array:
    """Mean over the pixels that are not ignored."""
    valid = jnp.broadcast_to(valid, values.shape)
    total = jnp.sum(jnp.where(valid, values, 0), axis=axes)
    return total / jnp.maximum(jnp.sum(valid, axis=axes), 1)
