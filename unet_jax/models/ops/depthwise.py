"""Depthwise convolution: each channel has a kernel of its own.

XLA's CPU compiler runs its own grouped convolutions, and above all their gradients, in
loops over single values. Here they are sums over the taps of the kernel, whose
channels stand side by side, with the gradients written out in the same way: a training
step of MedNeXt-S on 8 x 96 x 96 pixels takes a sixth of the time.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import xla
from unet_jax.models.ops.implementation import current_implementation

UNROLLED_TAPS = 27
"""Most taps whose sum XLA compiles well as one loop; of more, a plane at a time."""


def depthwise_convolve(
    x: Float[Array, "batch *spatial channels"],
    kernel: Float[Array, "*window 1 channels"],
    *,
    stride: int = 1,
) -> Float[Array, "batch *out_spatial channels"]:
    """Convolve each channel with its own kernel (cross-correlation).

    Args:
        x: plain array. Its sizes are multiples of the stride.
        kernel: weights of an odd size on each axis; rounded to the dtype of ``x``.
        stride: pixels between outputs on every axis, 1 or 2. The first output is that
            around the first pixel.
    """
    kernel = kernel.astype(x.dtype)
    if current_implementation() in ("cpu", "onednn"):
        return _convolve(x, kernel[..., 0, :], stride)
    pads = [(size // 2, size // 2) for size in kernel.shape[:-2]]
    return _grouped(x, kernel, pads=pads, stride=stride)


def depthwise_up_convolve(
    x: Float[Array, "batch *spatial channels"],
    kernel: Float[Array, "*window 1 channels"],
) -> Float[Array, "batch *out_spatial channels"]:
    """Upsample each channel by a transposed convolution of stride 2.

    Kernel sizes are odd. The result has ``2 * spatial - 1`` pixels on each axis; pixel
    ``i`` is the centre of what it adds at ``2 * i``.
    """
    kernel = kernel.astype(x.dtype)
    if current_implementation() in ("cpu", "onednn"):
        return _up_convolve(x, kernel[..., 0, :])
    pads = [(size // 2, size // 2) for size in kernel.shape[:-2]]
    kernel = jnp.flip(kernel, tuple(range(len(pads))))
    return _grouped(x, kernel, pads=pads, dilation=2)


def _grouped(x, kernel, *, pads, stride=1, dilation=1):
    """XLA's own grouped convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(pads),
        pads,
        lhs_dilation=(dilation,) * len(pads),
        dimension_numbers=xla.dimension_numbers(len(pads)),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, stride):
    """`depthwise_convolve` by taps; the kernel is ``(*window, channels)``."""
    window = kernel.shape[:-1]
    sizes = [size // stride for size in x.shape[1:-1]]
    x = _padded(x, window)
    if math.prod(window) <= UNROLLED_TAPS:
        return _sum_of_taps(x, kernel, sizes, stride)

    def add_plane(index, total):
        extent = stride * (sizes[0] - 1) + 1
        plane = lax.dynamic_slice_in_dim(x, index, extent, axis=1)
        return total + _sum_of_taps(plane, kernel[index][None], sizes, stride)

    zeros = jnp.zeros((x.shape[0], *sizes, x.shape[-1]), x.dtype)
    return lax.fori_loop(0, window[0], add_plane, zeros)


def _convolve_backward(stride, residuals, gradient):
    x, kernel = residuals
    if stride == 1:
        turned = jnp.flip(kernel, tuple(range(kernel.ndim - 1)))
        to_x = _convolve(gradient, turned, 1)
    else:
        to_x = _spread(gradient, kernel)
    return to_x, _kernel_gradient(x, gradient, kernel, stride)


_convolve.defvjp(
    lambda x, kernel, stride: (_convolve(x, kernel, stride), (x, kernel)),
    _convolve_backward,
)


@jax.custom_vjp
def _up_convolve(x, kernel):
    """`depthwise_up_convolve` by taps; the kernel is ``(*window, channels)``."""
    return _spread(x, kernel)[:, *(slice(-1),) * (x.ndim - 2)]


def _up_backward(residuals, gradient):
    x, kernel = residuals
    gradient = jnp.pad(gradient, ((0, 0), *((0, 1),) * (x.ndim - 2), (0, 0)))
    return _convolve(gradient, kernel, 2), _kernel_gradient(gradient, x, kernel, 2)


_up_convolve.defvjp(lambda *inputs: (_up_convolve(*inputs), inputs), _up_backward)


def _padded(x, window):
    """Zeros around an array, as many as the window reaches out."""
    return jnp.pad(x, ((0, 0), *((size // 2, size // 2) for size in window), (0, 0)))


def _sum_of_taps(x, kernel, sizes, stride):
    """The sum over all taps of a padded array, written out: one loop for XLA."""
    total = jnp.zeros((), x.dtype)
    for tap in itertools.product(*map(range, kernel.shape[:-1])):
        total = total + _from(x, tap, sizes, stride) * kernel[tap]
    return total


def _from(x, starts, sizes, stride=1):
    """Part of an array on the spatial axes: where it starts, how large it becomes."""
    return x[
        :,
        *(
            slice(start, start + stride * (size - 1) + 1, stride)
            for start, size in zip(starts, sizes, strict=True)
        ),
    ]


def _kernel_gradient(x, gradient, kernel, stride):
    """Gradient of `_convolve` with respect to its kernel, a tap at a time.

    Written out, many reductions of the same arrays are several times slower, and take
    XLA long to compile.
    """
    window, axes = kernel.shape[:-1], x.ndim - 2
    sizes = gradient.shape[1:-1]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x = _padded(x, window)
    extents = [stride * (size - 1) + 1 for size in sizes]

    def of_tap(tap):
        starts = (0, *(tap[axis] for axis in range(axes)), 0)
        part = lax.dynamic_slice(x, starts, (x.shape[0], *extents, x.shape[-1]))
        product = _from(part, (0,) * axes, sizes, stride).astype(wide) * gradient
        # Along the last axis first: a short loop over channels that stand side by side.
        return product.sum(axes).sum(tuple(range(axes)))

    taps = jnp.asarray(list(itertools.product(*map(range, window))))
    return lax.map(of_tap, taps).reshape(kernel.shape).astype(kernel.dtype)


def _spread(x, kernel):
    """Each pixel times the kernel, added up on a grid twice as fine.

    Of the pixels in a block of two along an axis, each reads every other tap.
    """
    axes, window = x.ndim - 2, kernel.shape[:-1]
    batch, *sizes, channels = x.shape
    reach = [size // 4 + 1 for size in window]
    padded = jnp.pad(x, ((0, 0), *((most, most) for most in reach), (0, 0)))
    places = []
    for place in itertools.product(range(2), repeat=axes):
        total = jnp.zeros((), x.dtype)
        for tap in itertools.product(*map(range, window)):
            # How far the tap's pixel lies ahead of this one, on the finer grid.
            ahead = [
                at + size // 2 - index
                for at, size, index in zip(place, window, tap, strict=True)
            ]
            if all(step % 2 == 0 for step in ahead):
                starts = [
                    most + step // 2 for most, step in zip(reach, ahead, strict=True)
                ]
                total = total + _from(padded, starts, sizes) * kernel[tap]
        places.append(total)
    blocks = jnp.stack(places).reshape(*(2,) * axes, batch, *sizes, channels)
    order = itertools.chain(*((axes + 1 + axis, axis) for axis in range(axes)))
    blocks = blocks.transpose(axes, *order, 2 * axes + 1)
    return blocks.reshape(batch, *(2 * size for size in sizes), channels)
