"""The operations as XLA's CPU compiler runs them fastest; see `face`."""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import cpu_onednn, cpu_planes, cpu_volumes, xla
from unet_jax.models.ops.moments import group_moments, over_space, pool_moments, wide


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: xla.Padding,
    *,
    onednn: bool,
) -> Array:
    """Dense products for single pixels; otherwise the fastest form that is known."""
    window, strides = kernel.shape[:-2], tuple(strides)
    if math.prod(window) == 1:
        x = x[:, *(slice(None, None, step) for step in strides)]
        return x @ kernel.reshape(kernel.shape[-2:])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    pads = tuple(padding)
    if onednn:
        return cpu_onednn.convolve(x, kernel, strides, pads)
    if len(window) == 3:
        return cpu_volumes.convolve_volumes(x, kernel, strides, pads)
    return cpu_planes.convolve_planes(x, kernel, strides, pads)


def max_pool(x: Array, *, window: Sequence[int]) -> Array:
    """The largest of the pixels of each window, as an element-wise operation."""
    counts = [size // step for size, step in zip(x.shape[1:-1], window, strict=True)]
    x = x[:, *(slice(n * step) for n, step in zip(counts, window, strict=True))]
    # (batch, out_0, window_0, out_1, window_1, ..., channels)
    split = itertools.chain(*zip(counts, window, strict=True))
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    offsets = itertools.product(*(range(step) for step in window))
    corners = [
        x[:, *itertools.chain(*((slice(None), at) for at in offset))]
        for offset in offsets
    ]
    return functools.reduce(larger, corners)


def larger(
    first: Float[Array, "*shape"], second: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the larger of two values, NaN before all; the first if they are equal.

    ``jnp.maximum`` would halve the gradient between equal values, and constant
    background is all equal values.
    """
    return jnp.where((first >= second) | jnp.isnan(first), first, second)


def up_convolve(x: Array, kernel: Array) -> Array:
    """One dense product, and depth to space."""
    strides, (channels, features) = kernel.shape[:-2], kernel.shape[-2:]
    axes = range(len(strides))
    batch, *sizes = x.shape[:-1]
    rows = x.reshape(-1, channels) @ jnp.moveaxis(kernel, -2, 0).reshape(channels, -1)
    rows = _gather_gradient(rows)
    # (batch, *sizes, *strides, features), with each stride moved behind the size that
    # it multiplies.
    blocks = rows.reshape(batch, *sizes, *strides, features)
    order = itertools.chain(*((1 + a, 1 + len(axes) + a) for a in axes))
    blocks = blocks.transpose(0, *order, blocks.ndim - 1)
    grown = (size * step for size, step in zip(sizes, strides, strict=True))
    return blocks.reshape(batch, *grown, features)


@jax.custom_vjp
def _gather_gradient(x):
    """The identity, whose gradient is written to memory once before it is read.

    The two products that read it would each do the strided gathering for themselves.
    """
    return x


_gather_gradient.defvjp(
    lambda x: (x, None), lambda _, gradient: (lax.optimization_barrier(gradient),)
)


def resize_up(x: Array, *, factors: Sequence[int]) -> Array:
    """Linear upsampling, one axis after the other."""
    for axis, factor in enumerate(factors, start=1):
        x = _resize_axis(x, axis=axis, factor=factor)
    return x


def _resize_axis(x, *, axis, factor):
    """Linear upsampling of one axis: each phase mixes a pixel with one neighbour."""
    size = x.shape[axis]
    before = lax.slice_in_dim(x, 0, 1, axis=axis)
    before = jnp.concatenate(
        [before, lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis
    )
    after = lax.slice_in_dim(x, size - 1, size, axis=axis)
    after = jnp.concatenate([lax.slice_in_dim(x, 1, size, axis=axis), after], axis)
    shifts = [(phase + 0.5) / factor - 0.5 for phase in range(factor)]
    phases = [
        (1 - abs(shift)) * x + abs(shift) * (before if shift < 0 else after)
        for shift in shifts
    ]
    shape = (*x.shape[:axis], size * factor, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)


def group_norm(
    x: Array, scale: Array, bias: Array, *, groups: int, epsilon: float
) -> Array:
    """Group norm as one factor and one shift of each sample and channel."""
    moments = group_moments(*_channel_moments(x), groups=groups)
    return standardise(x, **moments, scale=scale, bias=bias, epsilon=epsilon)


def batch_moments(
    x: Array,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and variance of each channel, of this device."""
    return pool_moments(*_channel_moments(x), axis=0)


def standardise(
    x: Array, *, mean: Array, variance: Array, scale: Array, bias: Array, epsilon: float
) -> Array:
    """One factor and one shift of each channel."""
    factor = lax.rsqrt(variance + epsilon) * scale
    shift = bias - mean * factor
    return (wide(x) * over_space(factor, x) + over_space(shift, x)).astype(x.dtype)


def _channel_moments(x):
    """Mean and variance over space, (batch, channels), in one pass.

    The mean square minus the squared mean cancels where the mean is large, so the
    values are first shifted by one pixel of their own. The sum goes over rows, then
    along the last one: long unit-stride loops, and a shorter chain of roundings.
    """
    batch, *_, width, channels = x.shape
    count = math.prod(x.shape[1:-1])
    x = wide(x)
    pixel = lax.stop_gradient(x[:, *(slice(1),) * (x.ndim - 2)])
    rows = (x - pixel).reshape(batch, -1, width * channels)
    total, squares = (
        values.sum(1).reshape(batch, width, channels).sum(1) / count
        for values in (rows, jnp.square(rows))
    )
    variance = jnp.maximum(squares - jnp.square(total), 0.0)
    return total + pixel.reshape(batch, channels), variance
