"""The operations as XLA has names for them; see `face` for what they do."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops.moments import group_size, over_space, wide

Padding = str | Sequence[tuple[int, int]]
"""``"SAME"``, ``"VALID"``, or the zeros before and behind each axis."""


def dimension_numbers(axes: int) -> tuple[str, str, str]:
    """Return the layout of a convolution's input, kernel and result."""
    spatial = "DHW"[-axes:]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def convolve(
    x: Array, kernel: Array, strides: Sequence[int], padding: Padding
) -> Array:
    """XLA's convolution."""
    numbers = dimension_numbers(x.ndim - 2)
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=numbers
    )


def max_pool(x: Array, *, window: Sequence[int]) -> Array:
    """XLA's reduction over windows."""
    dimensions = (1, *window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, dimensions, dimensions, "VALID")


def average_pool(x: Array, *, window: Sequence[int]) -> Array:
    """The mean over a reshaped array, in float32 or better."""
    counts = [size // step for size, step in zip(x.shape[1:-1], window, strict=True)]
    # (batch, out_0, window_0, out_1, window_1, ..., channels)
    split = itertools.chain(*zip(counts, window, strict=True))
    values = wide(x).reshape(x.shape[0], *split, x.shape[-1])
    return values.mean(tuple(range(2, values.ndim - 1, 2))).astype(x.dtype)


def up_convolve(x: Array, kernel: Array) -> Array:
    """XLA's transposed convolution."""
    strides = kernel.shape[:-2]
    # lax.conv_transpose reads the kernel backwards.
    return lax.conv_transpose(
        x,
        jnp.flip(kernel, range(len(strides))),
        strides,
        "VALID",
        dimension_numbers=dimension_numbers(len(strides)),
    )


def resize_up(x: Array, *, factors: Sequence[int]) -> Array:
    """JAX's linear resizing."""
    grown = [n * step for n, step in zip(x.shape[1:-1], factors, strict=True)]
    return jax.image.resize(x, (x.shape[0], *grown, x.shape[-1]), "linear")


def group_norm(
    x: Array, scale: Array, bias: Array, *, groups: int, epsilon: float
) -> Array:
    """Group norm in two passes."""
    channels = x.shape[-1]
    values = wide(x).reshape(*x.shape[:-1], groups, group_size(channels, groups))
    axes = (*range(1, x.ndim - 1), x.ndim)
    mean = values.mean(axes, keepdims=True)
    variance = values.var(axes, keepdims=True)
    values = (values - mean) * lax.rsqrt(variance + epsilon)
    return (values.reshape(x.shape) * scale + bias).astype(x.dtype)


def batch_moments(
    x: Array,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and variance of each channel, of this device."""
    axes = tuple(range(x.ndim - 1))
    return wide(x).mean(axes), wide(x).var(axes)


def standardise(
    x: Array, *, mean: Array, variance: Array, scale: Array, bias: Array, epsilon: float
) -> Array:
    """Subtract the mean, divide, scale and shift."""
    factor = lax.rsqrt(variance + epsilon)
    values = (wide(x) - over_space(mean, x)) * over_space(factor, x)
    return (values * scale + bias).astype(x.dtype)
