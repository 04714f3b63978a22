"""The operations of networks, each one function of an array in any form.

An array is a plain one, ``(batch, *spatial, channels)`` with two or three spatial axes,
or `Packed`, as `arranged` gives it on TPU. The form and the current implementation
(`implementation`) choose how an operation is traced; the values and the gradients are
those of the plain array up to rounding.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax.nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import cpu, packed_ops, xla
from unet_jax.models.ops.implementation import current_implementation
from unet_jax.models.ops.moments import over_space, synchronised
from unet_jax.models.ops.packing import (
    Packed,
    as_packed,
    elementwise,
    layout_for,
    pack,
    repack,
    unpack,
)

Pixels = Float[Array, "batch *_ _"] | Packed
"""An array ``(batch, *spatial, channels)`` in any form."""


def _form_of(x: Pixels) -> ModuleType:
    """The module that implements the operations of this array on this platform."""
    if isinstance(x, Packed):
        return packed_ops
    return cpu if current_implementation() in ("cpu", "onednn") else xla


def arranged(
    x: Float[Array, "batch *spatial channels"], *, features: int
) -> Float[Array, "batch *spatial channels"] | Packed:
    """Return an image in the form in which a network runs fastest on this platform.

    On TPU that is a `Packed` array, elsewhere the image itself. Only a network whose
    convolutions and pools all have padding ``"SAME"``, and whose strides divide the
    image, may call this, once and before its first convolution, which makes
    ``features`` channels.
    """
    if current_implementation() != "tpu":
        return x
    return pack(x, layout_for(x.shape[1:-1], features))


def as_array(x: Pixels) -> Float[Array, "batch *_ _"]:
    """Return the plain array: the inverse of `arranged`, for the end of a network."""
    x = unpack(x)
    if current_implementation() != "tpu":
        return x
    # The loss is to read pixels side by side in the lanes of the last axis. Left to
    # itself the compiler puts examples there, or blocks, which are few.
    classes_first = lax.optimization_barrier(jnp.moveaxis(x, -1, 1))
    return jnp.moveaxis(classes_first, 1, -1)


def channels_of(x: Pixels) -> int:
    """Return the number of channels of a pixel."""
    return x.channels if isinstance(x, Packed) else x.shape[-1]


def cast(x: Pixels, dtype: Any) -> Pixels:
    """Return the array in another dtype."""
    return elementwise(lambda values: values.astype(dtype), x)


def add(first: Pixels, second: Pixels) -> Pixels:
    """Add two arrays of one shape; the result has the form of the first."""
    if isinstance(first, Packed):
        second = repack(second, first.layout)
    return elementwise(jnp.add, first, second)


def centre_crop(x: Pixels, other: Pixels) -> Pixels:
    """Cut the centre out of an array, as large as another.

    Args:
        x: array in any form.
        other: array that is nowhere larger than ``x``, and as large where it is packed.

    Returns:
        The centre; an odd rest leaves one pixel more at the end.
    """
    if isinstance(x, Packed) or isinstance(other, Packed):
        return x
    sizes = other.shape[1:-1]
    starts = [(old - new) // 2 for old, new in zip(x.shape[1:-1], sizes, strict=True)]
    places = [slice(at, at + n) for at, n in zip(starts, sizes, strict=True)]
    return x[:, *places]


def convolve(
    x: Pixels | Sequence[Pixels],
    kernel: Float[Array, "*window channels features"],
    *,
    strides: Sequence[int] | None = None,
    padding: str = "SAME",
    followed: bool = False,
) -> Pixels:
    """Convolve over the spatial axes (cross-correlation, as in every such library).

    Args:
        x: input; several are convolved as if their channels stood side by side.
        kernel: weights, one axis for each spatial axis; rounded to the dtype of ``x``,
            which is also that of the result.
        strides: pixels between outputs on each spatial axis; None for 1.
        padding: ``"SAME"`` (zeros), ``"CENTRED"`` (zeros, see `centred_pads`), or
            ``"VALID"`` for plain arrays alone.
        followed: another convolution of the same kernel size reads the result, with
            nothing but element-wise operations and norms between the two. It changes no
            value: packed arrays save products.
    """
    inputs = x if isinstance(x, list | tuple) else (x,)
    strides = tuple(strides) if strides is not None else (1,) * (kernel.ndim - 2)
    if any(isinstance(part, Packed) for part in inputs):
        packed = [as_packed(part) for part in inputs]
        layout = packed_ops.result_layout(
            packed[0].layout, kernel.shape, strides, followed=followed
        )
        return packed_ops.convolve(
            packed,
            kernel,
            layout=layout,
            strides=strides,
            centred=padding == "CENTRED",
        )
    # A kernel split between the inputs instead would be no faster.
    joined = jnp.concatenate(inputs, axis=-1) if len(inputs) > 1 else inputs[0]
    kernel = kernel.astype(joined.dtype)
    pads: xla.Padding = padding
    if padding == "CENTRED":
        pads = centred_pads(joined.shape[1:-1], kernel.shape[:-2], strides)
    implementation = current_implementation()
    if implementation in ("cpu", "onednn"):
        onednn = implementation == "onednn"
        return cpu.convolve(joined, kernel, strides, pads, onednn=onednn)
    return xla.convolve(joined, kernel, strides, pads)


def centred_pads(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return the zeros before and behind each axis with the kernel on every n-th pixel.

    Output ``i`` is centred on pixel ``i * stride``, as in PyTorch with a padding of
    ``(kernel size - 1) // 2``. ``"SAME"`` pads behind first: with a stride of 2 it is
    centred on the pixel after that.
    """
    return tuple(
        ((taps - 1) // 2, max(0, (n - 1) // step * step + taps // 2 + 1 - n))
        for n, taps, step in zip(size, window, strides, strict=True)
    )


def max_pool(x: Pixels, *, window: Sequence[int]) -> Pixels:
    """Take the largest value of each window; windows do not overlap.

    What is left at the end of an axis is dropped; the windows divide a packed array.

    Returns:
        ``(batch, *(spatial // window), channels)``. Of equal values the first takes the
        gradient, in every implementation.
    """
    return _form_of(x).max_pool(x, window=window)


def average_pool(x: Pixels, *, window: Sequence[int]) -> Pixels:
    """Take the mean of each window; windows do not overlap, and divide the array.

    Returns:
        ``(batch, *(spatial // window), channels)`` in the dtype of ``x``.
    """
    if isinstance(x, Packed):
        return packed_ops.average_pool(x, window=window)
    return xla.average_pool(x, window=window)


def up_convolve(
    x: Pixels, kernel: Float[Array, "*strides channels features"]
) -> Pixels:
    """Upsample by a transposed convolution whose stride is the size of its kernel.

    Every input pixel becomes a block of the kernel's size, in which ``kernel[a, b]``
    makes the pixel at (a, b); the kernel is rounded to the dtype of ``x``.

    Returns:
        ``(batch, *(spatial * strides), features)`` in the dtype of ``x``.
    """
    if isinstance(x, Packed):
        strides = kernel.shape[:-2]
        size = [n * step for n, step in zip(x.layout.size, strides, strict=True)]
        layout = layout_for(size, kernel.shape[-1])
        return packed_ops.up_convolve(x, kernel, layout=layout)
    return _form_of(x).up_convolve(x, kernel.astype(x.dtype))


def mix_and_resize(
    x: Pixels,
    kernel: Float[Array, "*ones channels features"],
    *,
    factors: Sequence[int],
) -> Pixels:
    """Mix the channels of each pixel by a 1x1 kernel, then upsample linearly.

    The two steps commute; mixing first works on fewer pixels.

    Returns:
        ``(batch, *(spatial * factors), features)`` in the dtype of ``x``.
    """
    mixed = convolve(unpack(x), kernel)
    assert not isinstance(mixed, Packed)
    grown = resize_up(mixed, factors=factors)
    if not isinstance(x, Packed):
        return grown
    return pack(grown, layout_for(grown.shape[1:-1], kernel.shape[-1]))


def resize_up(
    x: Float[Array, "batch *spatial channels"], *, factors: Sequence[int]
) -> Float[Array, "batch *out_spatial channels"]:
    """Upsample by whole factors, linearly, pixel centres aligned at half pixels.

    Edges are continued. The dtype stays.
    """
    return _form_of(x).resize_up(x, factors=factors)


def group_norm(
    x: Pixels,
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    *,
    groups: int,
    epsilon: float = 1e-5,
) -> Pixels:
    """Standardise each sample and group of neighbouring channels, then scale and shift.

    One group for each channel is instance norm. Statistics are taken in float32 or
    better, and the result has the dtype of ``x``; ``epsilon`` is added to the variance.

    Raises:
        ValueError: the channels do not divide into the groups.

    Source: Wu and He 2018, arXiv:1803.08494; Ulyanov et al. 2016, arXiv:1607.08022.
    """
    return _form_of(x).group_norm(x, scale, bias, groups=groups, epsilon=epsilon)


def batch_moments(
    x: Pixels, *, axis_name: str | None = None
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and (biased) variance of each channel over batch and space.

    They are float32 or better, and those of the whole batch where ``axis_name`` is the
    mapped axis whose devices hold equal parts of it; None for one device.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    return synchronised(*_form_of(x).batch_moments(x), axis_name=axis_name)


def standardise(
    x: Pixels,
    *,
    mean: Float[Array, "*sample channels"],
    variance: Float[Array, "*sample channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float = 1e-5,
) -> Pixels:
    """Bring given moments to 0 and 1, then scale and shift.

    The moments are those of each channel, or of each sample and channel; ``epsilon`` is
    added to the variance. The result has the dtype of ``x``.
    """
    return _form_of(x).standardise(
        x, mean=mean, variance=variance, scale=scale, bias=bias, epsilon=epsilon
    )


def add_bias(x: Pixels, bias: Float[Array, " channels"]) -> Pixels:
    """Add a number, rounded to the dtype of ``x``, to each channel."""
    if isinstance(x, Packed):
        return packed_ops.add_bias(x, bias)
    return x + bias.astype(x.dtype)


def scale_channels(x: Pixels, factors: Float[Array, "batch channels"]) -> Pixels:
    """Multiply each channel of each sample by a number in the dtype of ``x``."""
    if isinstance(x, Packed):
        return packed_ops.scale_channels(x, factors)
    return x * over_space(factors.astype(x.dtype), x)


def gate_pixels(x: Pixels, scores: Pixels) -> Pixels:
    """Multiply all channels of each pixel by the sigmoid of its score.

    ``scores`` is an array with one channel, in the form of ``x``.
    """
    if isinstance(scores, Packed):
        weights = scores.with_values(jax.nn.sigmoid(scores.values))
        return packed_ops.weigh_pixels(as_packed(x), weights)
    return unpack(x) * jax.nn.sigmoid(scores)
