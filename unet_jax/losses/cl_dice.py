"""Centreline Dice: overlap of each skeleton with the other mask."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.losses.targets import (
    Head,
    pixel_axes,
    probabilities_and_targets,
    weighted_by_class,
)


def cl_dice_loss(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *labels"],
    head: Head = "softmax",
    iterations: int = 3,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch classes"]:
    r"""Centreline Dice loss of each sample and class, in 2-D or 3-D.

    .. math::
        L_c = 1 - 2\frac{T_p T_s}{T_p + T_s}, \quad
        T_p = \frac{\sum S(p) y + s}{\sum S(p) + s}, \quad
        T_s = \frac{\sum S(y) p + s}{\sum S(y) + s}

    with :math:`S` the `soft_skeleton`. Use it beside an overlap loss, which measures
    the thickness of a structure. Skeletons treat ignored pixels as background.

    Args:
        logits, labels, head, class_weights: as for `dice_loss`.
        iterations: steps of thinning, at least the largest radius in pixels.
        smooth: number added to numerators and denominators.

    Returns: Values in [0, 1] times the weight, float32.
    Source: Shit et al.: clDice (CVPR 2021), eq. 1 to 3 and algorithm 1.

    Example:
        >>> labels = jnp.array([[[0, 0, 0], [1, 1, 1], [0, 0, 0]]])
        >>> cl_dice_loss(logits=50.0 * jnp.eye(2)[labels], labels=labels).round(3)
        Array([[0., 0.]], dtype=float32)
    """
    p, target, valid = probabilities_and_targets(logits, labels, head)
    p, axes = p * valid, pixel_axes(p)
    thin_p, thin_y = soft_skeleton(p, iterations), soft_skeleton(target, iterations)

    def fraction(thin: Array, whole: Array) -> Array:
        inside = jnp.sum(thin * whole, axis=axes)
        return (inside + smooth) / (jnp.sum(thin, axis=axes) + smooth)

    precision, sensitivity = fraction(thin_p, target), fraction(thin_y, p)
    loss = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return weighted_by_class(loss, class_weights)


def soft_skeleton(
    values: Float[Array, "batch *spatial classes"], iterations: int
) -> Float[Array, "batch *spatial classes"]:
    """Thin soft masks to their centrelines by pooling.

    Args:
        values: soft masks in [0, 1].
        iterations: steps of thinning, at least the largest radius in pixels.

    Returns: Soft masks of the centrelines, in [0, 1].
    Source: Shit et al.: clDice (CVPR 2021), algorithm 1.

    Example:
        >>> bar = jnp.ones((1, 3, 5, 1))
        >>> soft_skeleton(jnp.pad(bar, ((0, 0), (1, 1), (1, 1), (0, 0))), 2)[0, :, 3, 0]
        Array([0., 0., 1., 0., 0.], dtype=float32)
    """
    skeleton = jax.nn.relu(values - _opened(values))
    for _ in range(iterations):
        values = _eroded(values)
        added = jax.nn.relu(values - _opened(values))
        skeleton = skeleton + jax.nn.relu(added - skeleton * added)
    return skeleton


def _opened(values: Array) -> Array:
    """Erosion, then dilation."""
    return _pool(_eroded(values), range(1, values.ndim - 1))


def _eroded(values: Array) -> Array:
    """Minimum over the neighbours along the axes."""
    axes = range(1, values.ndim - 1)
    lowest = -_pool(-values, [1])
    for axis in axes[1:]:
        lowest = jnp.minimum(lowest, -_pool(-values, [axis]))
    return lowest


def _pool(values: Array, axes: Sequence[int]) -> Array:
    """Maximum over three pixels along some axes; padding is -inf."""
    window = [3 if axis in axes else 1 for axis in range(values.ndim)]
    return jax.lax.reduce_window(
        values, -jnp.inf, jax.lax.max, window, (1,) * values.ndim, "SAME"
    )
