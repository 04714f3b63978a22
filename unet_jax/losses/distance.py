"""Computes exact Euclidean distances and connected components inside jit.

Distances are computed axis by axis: the squared distance along one axis plus the result
for the previous axes, minimised over all places of a line. A line of n pixels takes n^2
sums; only a few lines are computed at once, so that the memory stays small.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

_FAR = 1e12
"""Squared distance where nothing is near; finite, so that sums stay finite."""

_SUMS = 2**22
"""Largest number of sums in memory at once."""


def squared_distance(
    mask: Bool[Array, "batch *spatial classes"],
) -> Float[Array, "batch *spatial classes"]:
    """Squared distance of each pixel to the nearest pixel of a mask.

    Returns: float32, in squared pixels; at least 1e12 for an empty mask. It has no
        gradient.
    Source: Felzenszwalb, Huttenlocher: Distance transforms of sampled functions (2012);
        the minimum is taken over all places, which vector units do fast.

    Example:
        >>> line = jnp.array([True, False, False, False])[None, :, None]
        >>> squared_distance(line)[0, :, 0].tolist()
        [0.0, 1.0, 4.0, 9.0]
    """
    squared = jnp.where(mask, 0.0, _FAR).astype(jnp.float32)
    for axis in range(1, mask.ndim - 1):
        squared = _over_lines(_nearest_on_line, squared, axis)
    return jax.lax.stop_gradient(squared)


def boundary_distance(
    mask: Bool[Array, "batch *spatial classes"],
) -> Float[Array, "batch *spatial classes"]:
    """Distance of each pixel to the other side of the boundary of a mask.

    Returns: float32, in pixels: outside the mask the distance to it, inside the
        distance to its complement; 0 where the mask is empty or full.
    """
    axes = tuple(range(1, mask.ndim - 1))
    bounded = jnp.any(mask, axes, keepdims=True) & ~jnp.all(mask, axes, keepdims=True)
    squared = squared_distance(mask) + squared_distance(~mask)
    return jnp.where(bounded, jnp.sqrt(squared), 0)


def connected_components(
    mask: Bool[Array, "batch *spatial"],
) -> Integer[Array, "batch *spatial"]:
    """Number the objects of a mask; pixels that touch at a corner are connected.

    Numbers spread by one pixel in each iteration, until none changes.

    Returns: int32: 0 outside; inside a number above 0, unique to the object in its
        sample.

    Example:
        >>> mask = jnp.array([True, True, False, True])[None]
        >>> connected_components(mask).tolist()
        [[2, 2, 0, 4]]
    """
    size = mask[0].size
    own = 1 + jnp.arange(size, dtype=jnp.int32).reshape(1, *mask.shape[1:])
    first = jnp.where(mask, own, 0)

    window = (1, *(3 for _ in mask.shape[1:]))

    def spread(numbers: Array) -> Array:
        """Give each pixel the largest number among its neighbours."""
        around = jax.lax.reduce_window(
            numbers, jnp.int32(0), jax.lax.max, window, (1,) * mask.ndim, "SAME"
        )
        return jnp.where(mask, around, 0)

    def changed(pair: tuple[Array, Array]) -> Array:
        return jnp.any(pair[0] != pair[1])

    def step(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        return pair[1], spread(pair[1])

    return jax.lax.while_loop(changed, step, (jnp.zeros_like(first), first))[1]


def two_nearest_objects(
    objects: Integer[Array, "batch *spatial"],
) -> tuple[Float[Array, "batch *spatial"], Float[Array, "batch *spatial"]]:
    """Distances of each pixel to the nearest and to the second nearest object.

    Args:
        objects: number of the object of each pixel; 0 outside of all objects.

    Returns: Both distances in pixels, float32; 1e6 where a sample has fewer objects.

    Example:
        >>> first, second = two_nearest_objects(jnp.array([[1, 0, 0, 2]]))
        >>> first.tolist(), second.tolist()
        ([[0.0, 1.0, 1.0, 0.0]], [[3.0, 2.0, 2.0, 3.0]])
    """
    near = jnp.where(objects > 0, 0.0, _FAR).astype(jnp.float32)
    none = jnp.zeros_like(objects)
    # (..., 2): the two nearest different objects along the axes done so far.
    squared = jnp.stack([near, jnp.full_like(near, _FAR)], axis=-1)
    number = jnp.stack([objects, none], axis=-1).astype(jnp.float32)
    state = jnp.concatenate([squared, number], axis=-1)
    for axis in range(1, objects.ndim):
        state = _over_lines(_two_nearest_on_line, state, axis)
    distance = jnp.sqrt(jnp.minimum(state[..., :2], _FAR))
    return distance[..., 0], distance[..., 1]


def _over_lines(function, values: Array, axis: int) -> Array:
    """Apply a function of ``(n, features)`` to each line along an axis."""
    moved = jnp.moveaxis(values, axis, -2)
    lines = moved.reshape(-1, *moved.shape[-2:])
    at_once = max(1, _SUMS // (lines.shape[1] ** 2 * lines.shape[2]))
    done = jax.lax.map(function, lines, batch_size=min(at_once, len(lines)))
    return jnp.moveaxis(done.reshape(moved.shape), -2, axis)


def _squares(size: int) -> Array:
    """Squared distance between the places of a line, ``(n, n)``."""
    place = jnp.arange(size, dtype=jnp.float32)
    return jnp.square(place[:, None] - place)


def _nearest_on_line(line: Array) -> Array:
    """Minimum over all places of a line, for each class."""
    return jnp.min(_squares(len(line))[..., None] + line, axis=1)


def _two_nearest_on_line(line: Array) -> Array:
    """The two nearest different numbers; ``line`` is (n, 2 distances + 2 numbers)."""
    size = len(line)
    costs = (_squares(size)[..., None] + line[:, :2]).reshape(size, -1)
    numbers = jnp.broadcast_to(line[:, 2:].reshape(1, -1), costs.shape)
    first = jnp.argmin(costs, axis=1, keepdims=True)
    number = jnp.take_along_axis(numbers, first, axis=1)
    others = jnp.where(numbers == number, _FAR, costs)
    second = jnp.argmin(others, axis=1, keepdims=True)
    chosen = [
        jnp.take_along_axis(costs, first, axis=1),
        jnp.minimum(jnp.take_along_axis(others, second, axis=1), _FAR),
        number,
        jnp.take_along_axis(numbers, second, axis=1),
    ]
    return jnp.concatenate(chosen, axis=1)
