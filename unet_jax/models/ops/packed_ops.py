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
from jaxtyping import Array, Bool, Float

from unet_jax.models.ops import xla
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
        _convolution_axis(source, layout, axis, window[axis], strides[axis], centred)
        for axis in range(len(window))
    ]
    places = [place for place, _, _ in axes]
    starts = np.cumsum([0, *(x.channels for x in inputs)])
    parts = []
    for start, x in zip(starts, inputs, strict=False):
        part = _embed(kernel[..., start : start + x.channels, :], places)
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


def _convolution_axis(
    source: BlockLayout,
    layout: BlockLayout,
    axis: int,
    window: int,
    stride: int,
    centred: bool,
) -> tuple[Bool[np.ndarray, "taps weights read made"], int, tuple[int, int]]:
    """What a convolution of the blocks does along one axis.

    Returns where each weight goes (taps of the blocks' kernel, weights of the pixels',
    pixels of the block that is read, pixels of the block that is made), the stride of
    the blocks, and their padding.
    """
    read, made = source.factors[axis], layout.factors[axis]
    size, outputs = source.size[axis], layout.size[axis]
    low = max(0, (outputs - 1) * stride + window - size) // 2
    if centred:
        low = (window - 1) // 2
    # The first block that is made reads from this place on in the blocks that are read.
    start = source.shifts[axis] - stride * layout.shifts[axis] - low
    first, lead = start // read, start % read
    taps = -(-(lead + window + stride * (made - 1)) // read)
    rows = np.arange(taps * read).reshape(taps, 1, read, 1)
    weights = np.arange(window).reshape(1, window, 1, 1)
    place = rows == lead + weights + stride * np.arange(made)
    # The places between pixels that are apart get no weight.
    spread_out = np.zeros((taps, window, source.places[axis], made), bool)
    spread_out[:, :, :: source.steps[axis]] = place
    step = stride * made // read
    high = (layout.blocks[axis] - 1) * step + first + taps - source.blocks[axis]
    return spread_out, step, (-first, high)


def _embed(
    kernel: Float[Array, "*window channels features"],
    places: Sequence[Bool[np.ndarray, "_ _ _ _"]],
) -> Float[Array, "*taps _ _"]:
    """Put the weights of the pixels into a kernel of the blocks.

    Each weight is copied to all pixels of both blocks by products with zeros and ones,
    exactly, and kept where it belongs. An axis without blocks keeps its weights.
    """
    channels, features = kernel.shape[-2:]
    rank = len(places)
    kept = [axis for axis in range(rank) if places[axis].shape[2:] == (1, 1)]
    blocked = [axis for axis in range(rank) if axis not in kept]
    if not blocked:
        return kernel
    order = (*kept, *blocked)
    kernel = kernel.transpose(*order, rank, rank + 1)
    sizes = [places[axis].shape[0] for axis in order]
    place = np.ones((1, 1, 1, 1), bool)
    for axis in blocked:
        # The indices of the axes before count in steps of those of this one.
        outer = np.einsum("awrm,bxsn->abwxrsmn", place, places[axis])
        place = outer.reshape(
            *(a * b for a, b in zip(place.shape, places[axis].shape, strict=True))
        )
    _, weights, read, made = place.shape
    kernel = kernel.reshape(-1, weights, channels, features)
    tiled = jnp.einsum(
        "rc,nwcf,fm->nwrm",
        _tiling(channels, read, kernel.dtype),
        kernel,
        _tiling(features, made, kernel.dtype).T,
        precision=lax.Precision.HIGHEST,
    )
    belongs = np.repeat(np.repeat(place, channels, axis=2), features, axis=3)
    placed = jnp.where(belongs, tiled[:, None], 0).sum(2)
    placed = placed.reshape(*sizes, read * channels, made * features)
    back = np.argsort(order)
    return placed.transpose(*back, rank, rank + 1)


def _tiling(channels, copies, dtype):
    """The matrix that stacks copies of a vector, (copies * channels, channels)."""
    return np.tile(np.eye(channels, dtype=dtype), (copies, 1))


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
        _upsampling_axis(read, made, step)
        for read, made, step in zip(
            x.layout.factors, layout.factors, strides, strict=True
        )
    ]
    kernel = _embed(kernel, places).astype(x.values.dtype)
    return Packed(_up_convolve_blocks(x.values, kernel), layout)


def _upsampling_axis(
    read: int, made: int, stride: int
) -> Bool[np.ndarray, "taps weights read made"]:
    """Where each weight of a transposed convolution goes along one axis."""
    pixels = np.arange(stride * read).reshape(-1, 1, 1, made)
    weights = np.arange(stride).reshape(1, stride, 1, 1)
    coarse = np.arange(read).reshape(1, 1, read, 1)
    return pixels == stride * coarse + weights


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
