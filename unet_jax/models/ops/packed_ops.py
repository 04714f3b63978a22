"""The operations of `face` on packed arrays.

A convolution of the pixels is one of the blocks, whose kernel holds each weight once
for every pixel of a block that reads it, and zeros elsewhere.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import xla
from unet_jax.models.ops.block_kernels import (
    convolution_axis,
    embed,
    upsampling_axis,
)
from unet_jax.models.ops.cpu import larger
from unet_jax.models.ops.moments import group_moments, pool_moments, wide
from unet_jax.models.ops.packing import (
    BlockLayout,
    Packed,
    as_packed,
    keep_inside,
    layout_for,
    pack,
    spread,
    unpack,
)


def convolve(
    inputs: Sequence[Packed],
    kernel: Float[Array, "*window channels features"],
    *,
    layout: BlockLayout,
    strides: tuple[int, ...] | None = None,
    centred: bool = False,
) -> Packed:
    """Convolve with zero padding, as if the channels of the inputs stood side by side.

    The inputs stand in one layout, the result in ``layout``. The kernel is float32 or
    better; it is rounded to the dtype of the inputs, which is also that of the result.
    The padding is ``"SAME"``, or ``"CENTRED"`` with ``centred``.
    """
    window = kernel.shape[:-2]
    strides = tuple(strides) if strides is not None else (1,) * len(window)
    inputs = [_dividing(x, layout, strides) for x in inputs]
    source = inputs[0].layout
    axes = [
        convolution_axis(source, layout, axis, window[axis], strides[axis], centred)
        for axis in range(len(window))
    ]
    places = [place for place, _, _ in axes]
    starts = np.cumsum([0, *(x.channels for x in inputs)])
    parts = []
    for start, x in zip(starts, inputs, strict=False):
        part = embed(kernel[..., start : start + x.channels, :], places)
        y = _convolve_blocks(
            x.values,
            part.astype(x.values.dtype),
            tuple(step for _, step, _ in axes),
            tuple(pads for _, _, pads in axes),
        )
        parts.append(y)
    # A sum of convolutions: side by side the inputs would first have to be copied.
    return keep_inside(Packed(functools.reduce(jnp.add, parts), layout))


def result_layout(
    source: BlockLayout, shape: Sequence[int], strides: Sequence[int], *, followed: bool
) -> BlockLayout:
    """Choose the layout of a convolution's result; see `face.convolve`."""
    *window, _, features = shape
    if math.prod(window) == math.prod(strides) == 1 and source.apart is None:
        return source  # heads and gates: pixels stay where they are
    size = [-(-n // step) for n, step in zip(source.size, strides, strict=True)]
    layout = layout_for(size, features)
    if not followed:
        return layout
    # Where blocks begin as much earlier as the kernel reaches back, a block reads two
    # blocks along an axis, and not three; and so does the convolution after it.
    return layout.shifted(
        [
            (taps - 1) // 2 if factor > 1 else 0
            for taps, factor in zip(window, layout.factors, strict=True)
        ]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_blocks(x, kernel, strides, pads):
    """The same, whose kernel's gradient takes the larger array for the image.

    By itself it takes the result for a kernel. Where that is the larger one, the
    compiler turns the two around, and to do so writes all of it out backwards.
    """
    return xla.convolve(x, kernel, strides, pads)


def _convolve_blocks_backward(strides, pads, saved, gradient):
    x, kernel = saved
    to_x, to_kernel = jax.vjp(
        lambda x, kernel: xla.convolve(x, kernel, strides, pads), x, kernel
    )[1](gradient)
    if math.prod(gradient.shape[1:-1]) > math.prod(x.shape[1:-1]) and max(strides) == 1:
        window = kernel.shape[:-2]
        outer = [
            (size - 1 - low, size - 1 - high)
            for size, (low, high) in zip(window, pads, strict=True)
        ]
        to_kernel = _summed_over_batch(gradient, x, outer, steps=strides)
        to_kernel = jnp.flip(to_kernel, range(len(window)))
    return to_x, to_kernel


_convolve_blocks.defvjp(
    lambda x, kernel, strides, pads: (
        xla.convolve(x, kernel, strides, pads),
        (x, kernel),
    ),
    _convolve_blocks_backward,
)


@jax.custom_vjp
def _up_convolve_blocks(x, kernel):
    """A transposed convolution whose kernel's gradient does so, too."""
    return xla.up_convolve(x, kernel)


def _up_convolve_blocks_backward(saved, gradient):
    x, kernel = saved
    to_x, _ = jax.vjp(xla.up_convolve, x, kernel)[1](gradient)
    steps = kernel.shape[:-2]
    none = [(0, 0)] * len(steps)
    return to_x, _summed_over_batch(gradient, x, none, steps=steps)


_up_convolve_blocks.defvjp(
    lambda x, kernel: (xla.up_convolve(x, kernel), (x, kernel)),
    _up_convolve_blocks_backward,
)


def _summed_over_batch(gradient, x, pads, *, steps):
    """The products of two arrays at each displacement: (*window, channels, features).

    The second array is laid over the first, with these steps between its pixels.
    """
    spatial = "DHW"[-len(steps) :]
    numbers = (f"C{spatial}N", f"I{spatial}O", f"{spatial}NC")
    products = lax.conv_general_dilated(
        gradient,
        x,
        (1,) * len(steps),
        pads,
        rhs_dilation=steps,
        dimension_numbers=numbers,
    )
    return products.swapaxes(-1, -2)


def _dividing(x: Packed, layout: BlockLayout, strides: Sequence[int]) -> Packed:
    """The input, unpacked if blocks of the result begin in the middle of its blocks."""
    whole = all(
        step * made % read == 0
        for step, made, read in zip(
            strides, layout.factors, x.layout.factors, strict=True
        )
    )
    return x if whole else as_packed(unpack(x))


def max_pool(x: Packed, *, window: Sequence[int]) -> Packed:
    """Pool an array that is not shifted, of a size that the windows divide.

    In blocks of as many places each window's largest value stays in the place of its
    first pixel: the result is apart.
    """
    layout = x.layout
    rank, factors = len(layout.size), layout.factors
    if any(factor % step for factor, step in zip(factors, window, strict=True)):
        plain = as_packed(xla.max_pool(unpack(x), window=window))
        # Not None: the next convolution chooses the blocks, whatever its kernel size.
        return Packed(
            plain.values, dataclasses.replace(plain.layout, apart=(1,) * rank)
        )
    left = [factor // step for factor, step in zip(factors, window, strict=True)]
    pooled = BlockLayout(
        tuple(size // step for size, step in zip(layout.size, window, strict=True)),
        tuple(left),
        (0,) * rank,
    )
    values = x.values
    # The last axis first: of equal values the first in row order takes the gradient.
    for axis in reversed(range(rank)):
        others = [_displaced(values, x, axis, by) for by in range(1, window[axis])]
        values = functools.reduce(larger, others, values)
    return Packed(values, dataclasses.replace(pooled, apart=tuple(window)))


def average_pool(x: Packed, *, window: Sequence[int]) -> Packed:
    """Take the mean of windows; the result is not packed.

    Where blocks do not straddle windows, the pixels of a block are added up first.
    """
    layout = x.layout
    rank = len(layout.size)
    values, left = x.values, tuple(window)
    whole = not any(
        step % factor for step, factor in zip(window, layout.factors, strict=True)
    )
    if whole and layout.apart is None and not any(layout.shifts):
        left = tuple(
            step // factor for step, factor in zip(window, layout.factors, strict=True)
        )
        values = wide(values).reshape(*values.shape[:-1], layout.phases, x.channels)
        values = values.mean(-2)
    else:
        values = unpack(x)
    plain = as_packed(xla.average_pool(values, window=left).astype(x.dtype))
    # Not None: see `max_pool`.
    return Packed(plain.values, dataclasses.replace(plain.layout, apart=(1,) * rank))


def _displaced(values: Array, x: Packed, axis: int, by: int) -> Array:
    """Bring each pixel of a block to the place so much earlier along an axis.

    By a product with zeros and ones: exact, and cheaper than moving lanes.
    """
    places = np.arange(x.layout.phases).reshape(x.layout.places)
    order = np.roll(places, -by, axis).ravel()
    matrix = np.kron(np.eye(x.layout.phases)[:, order], np.eye(x.channels))
    return jnp.matmul(
        values, matrix.astype(values.dtype), precision=lax.Precision.HIGHEST
    )


def up_convolve(
    x: Packed,
    kernel: Float[Array, "*strides channels features"],
    *,
    layout: BlockLayout,
) -> Packed:
    """Upsample by a transposed convolution; see `face.up_convolve`."""
    strides = kernel.shape[:-2]
    whole = all(
        step * read % made == 0
        for step, read, made in zip(
            strides, x.layout.factors, layout.factors, strict=True
        )
    )
    if not whole:
        kernel = kernel.astype(x.values.dtype)
        return pack(xla.up_convolve(unpack(x), kernel), layout)
    places = [
        upsampling_axis(read, made, step)
        for read, made, step in zip(
            x.layout.factors, layout.factors, strides, strict=True
        )
    ]
    kernel = embed(kernel, places).astype(x.values.dtype)
    return Packed(_up_convolve_blocks(x.values, kernel), layout)


def group_norm(
    x: Packed,
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    *,
    groups: int,
    epsilon: float = 1e-5,
) -> Packed:
    """Group norm of packed pixels; see `face.group_norm`."""
    moments = group_moments(*_channel_moments(x), groups=groups)
    return standardise(x, **moments, scale=scale, bias=bias, epsilon=epsilon)


def batch_moments(
    x: Packed,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and variance of each channel, of this device."""
    return pool_moments(*_channel_moments(x), axis=0)


def standardise(
    x: Packed,
    *,
    mean: Float[Array, "*sample channels"],
    variance: Float[Array, "*sample channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float = 1e-5,
) -> Packed:
    """One factor and one shift of each channel; see `face.standardise`."""
    factor = lax.rsqrt(variance + epsilon) * scale
    shift = bias - mean * factor
    values = wide(x.values) * spread(factor, x.layout) + spread(shift, x.layout)
    return keep_inside(x.with_values(values.astype(x.values.dtype)))


def _channel_moments(x):
    """Mean and variance over space, each (batch, channels).

    Of bfloat16 in one pass, which the compiler makes part of the convolution before it:
    the mean square minus the squared mean loses fewer digits than bfloat16 lacks.
    """
    count = math.prod(x.layout.size)

    def mean_of(values):
        totals = values.sum(tuple(range(1, values.ndim - 1)))
        totals = totals.reshape(values.shape[0], x.layout.phases, x.channels)
        return totals.sum(1) / count

    values = wide(x.values)
    mean = mean_of(values)
    if x.values.dtype == jnp.bfloat16:
        variance = mean_of(jnp.square(values)) - jnp.square(mean)
        return mean, jnp.maximum(variance, 0.0)
    centred = keep_inside(x.with_values(values - spread(mean, x.layout)))
    return mean, mean_of(jnp.square(centred.values))


def add_bias(x: Packed, bias: Float[Array, " channels"]) -> Packed:
    """Add a number to each channel."""
    values = x.values + spread(bias, x.layout).astype(x.values.dtype)
    return keep_inside(x.with_values(values))


def scale_channels(x: Packed, factors: Float[Array, "batch channels"]) -> Packed:
    """Multiply each channel of each sample by a number."""
    factors = spread(factors, x.layout).astype(x.values.dtype)
    return x.with_values(x.values * factors)


def weigh_pixels(x: Packed, weights: Packed) -> Packed:
    """Multiply all channels of each pixel by a number, in one layout."""
    return x.with_values(x.values * jnp.repeat(weights.values, x.channels, axis=-1))
