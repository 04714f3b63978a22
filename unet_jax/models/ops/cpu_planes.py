"""Convolves planes on CPU with any kernel size and stride; has both gradients.

Kernels of 3x3 with stride 1 are left to `cpu_convolution`. For all others the gradients
are written by hand. From a strided convolution JAX derives a convolution of an array
with zeros between its pixels. XLA's CPU compiler runs it several times slower than a
dense convolution, and still slower inside `lax.scan`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import cpu_convolution, xla

PARTS_A_KERNEL = 4
"""Largest size of a part, as a multiple of the kernel, which each part reads whole."""

Sizes = tuple[int, ...]
"""One number for the rows and one for the columns."""
Pads = tuple[tuple[int, int], ...]
"""Padding: zeros before and after the rows and the columns, below the kernel size."""


def convolve_planes(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "*window channels features"],
    strides: Sizes,
    pads: Pads,
) -> Float[Array, "batch out_height out_width features"]:
    """Convolve planes (cross-correlation), in the dtype of ``x``."""
    if _moves_3x3(kernel.shape[:2], strides):
        return cpu_convolution.convolve_3x3(x, kernel, pads[0][0])
    return _convolve(x, kernel, strides, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, pads):
    """Convolve with XLA's own convolution."""
    return xla.convolve(x, kernel, strides, pads)


def _backward(strides, pads, residuals, gradient):
    x, kernel = residuals
    return (
        input_gradient(gradient, kernel, strides, pads, x.shape[1:3]),
        kernel_gradient(x, gradient, strides, pads, kernel.shape[:2]),
    )


_convolve.defvjp(lambda *inputs: (_convolve(*inputs), inputs[:2]), _backward)


def _moves_3x3(window: Sizes, strides: Sizes) -> bool:
    """Tell whether the kernel is of 3x3 with stride 1."""
    return window == (3, 3) and strides == (1, 1)


class Phases(NamedTuple):
    """The pixels of an axis, grouped by their position between two outputs.

    Pixels whose distance is a multiple of the stride see the same taps of the kernel;
    they are one phase. A dense convolution of the gradient computes one phase. The
    phases, interleaved, are the whole axis.

    Attributes:
        pixels: number of pixels of each phase.
        before: number of outputs before the first pixel of a phase.
        behind: number of pixels after the last output.
        outside: number of padding pixels before the first pixel of the axis.
    """

    pixels: int
    before: int
    behind: int
    outside: int

    def pads(self, taps: int) -> tuple[int, int]:
        """Return the padding of the gradient for a phase that sees ``taps`` taps."""
        return taps - 1 - self.before, self.behind


def phases(size: int, out: int, low: int, stride: int) -> Phases:
    """Group the pixels of an axis; ``low`` is the number of zeros before the axis."""
    end, before = -(-(size + low) // stride), low // stride
    return Phases(end - before, before, end - out, low % stride)


def input_gradient(
    gradient: Float[Array, "batch out_height out_width features"],
    kernel: Float[Array, "*window channels features"],
    strides: Sizes,
    pads: Pads,
    sizes: Sizes,
) -> Float[Array, "batch height width channels"]:
    """Return the gradient of ``convolve_planes`` with respect to its input."""
    if _moves_3x3(kernel.shape[:2], strides):
        return cpu_convolution.input_gradient(gradient, kernel, pads[0][0])
    axes = [
        phases(size, out, low, stride)
        for size, out, (low, _), stride in zip(
            sizes, gradient.shape[1:3], pads, strides, strict=True
        )
    ]

    def phase(row: int, column: int) -> Array:
        taps = kernel[row :: strides[0], column :: strides[1]].swapaxes(2, 3)
        if not taps.size:  # the kernel is smaller than the stride
            shape = (len(gradient), *(axis.pixels for axis in axes), taps.shape[-1])
            return jnp.zeros(shape, gradient.dtype)
        around = [axis.pads(n) for axis, n in zip(axes, taps.shape[:2], strict=True)]
        if taps.shape[:2] == (1, 1) and around == [(0, 0), (0, 0)]:
            return gradient @ taps[0, 0]
        return xla.convolve(gradient, taps[::-1, ::-1], (1, 1), around)

    rows = [
        jnp.stack([phase(row, column) for column in range(strides[1])], axis=3)
        for row in range(strides[0])
    ]
    y = jnp.stack(rows, axis=2)  # (batch, rows, stride, columns, stride, channels)
    y = y.reshape(y.shape[0], y.shape[1] * y.shape[2], -1, y.shape[-1])
    top, left = (axis.outside for axis in axes)
    return y[:, top : top + sizes[0], left : left + sizes[1]]


def kernel_gradient(
    x: Float[Array, "batch height width channels"],
    gradient: Float[Array, "batch out_height out_width features"],
    strides: Sizes,
    pads: Pads,
    window: Sizes,
) -> Float[Array, "*window channels features"]:
    """Return the gradient of ``convolve_planes`` with respect to its kernel.

    The gradient is a sum over groups of planes; a group is small enough for the cache.
    """
    if _moves_3x3(window, strides):
        return cpu_convolution.kernel_gradient(x, gradient, pads[0][0])
    batch, *outs, features = gradient.shape
    reached = [
        (n - 1) * step + taps
        for n, step, taps in zip(outs, strides, window, strict=True)
    ]
    ends = [
        (low, end - low - size, 0)
        for end, (low, _), size in zip(reached, pads, x.shape[1:3], strict=True)
    ]
    # Negative padding cuts off the pixels that no output reads.
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
    plane = (x[0].size + gradient[0].size) * x.dtype.itemsize
    kernel = x.shape[-1] * features * math.prod(window) * x.dtype.itemsize
    most = max(cpu_convolution.BAND_BYTES, PARTS_A_KERNEL * kernel)
    planes = max(1, min(batch, most // plane))
    planes = next(n for n in range(planes, 0, -1) if batch % n == 0)

    def add_planes(total, start):
        # The channels act as the batch, and the planes act as the channels.
        part = lax.conv_general_dilated(
            lax.dynamic_slice_in_dim(x, start, planes).transpose(3, 1, 2, 0),
            lax.dynamic_slice_in_dim(gradient, start, planes).transpose(1, 2, 0, 3),
            (1, 1),
            "VALID",
            rhs_dilation=strides,
            dimension_numbers=xla.dimension_numbers(2),
        )
        return total + part, None

    dtype = jnp.promote_types(x.dtype, "float32")
    zeros = jnp.zeros((x.shape[-1], *window, features), dtype)
    total, _ = lax.scan(add_planes, zeros, jnp.arange(0, batch, planes))
    return total.transpose(1, 2, 0, 3).astype(x.dtype)
