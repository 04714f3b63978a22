"""Convolution on CPU where XLA calls oneDNN, the library that PyTorch calls too.

XLA's CPU compiler can hand a convolution to oneDNN, if it is told to by the options of
`compilation.onednn_options`. Then it is fastest as it stands, forwards and for the
gradient of its input. What oneDNN does not know remains in the forms of `cpu_planes`
and `cpu_volumes`: Winograd's for many channels, the gradients of strides, and the
gradient of a volume's kernel, which is a convolution with a window as large as the
volume and the slower the larger that is.
"""

import functools
import math

import jax
from jaxtyping import Array, Float

from unet_jax.models.ops import cpu_convolution, cpu_planes, cpu_volumes, xla

Pads = tuple[tuple[int, int], ...]
"""Zeros before and behind each axis, fewer than the kernel size."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "batch *spatial channels"],
    kernel: Float[Array, "*window channels features"],
    strides: tuple[int, ...],
    pads: Pads,
) -> Float[Array, "batch *out_spatial features"]:
    """Convolve planes or volumes (cross-correlation), in the dtype of ``x``."""
    if _is_winograd(x, kernel.shape[-1], kernel, strides):
        return cpu_planes.convolve_planes(x, kernel, strides, pads)
    return xla.convolve(x, kernel, strides, pads)


def _backward(strides, pads, residuals, gradient):
    x, kernel = residuals
    return (
        _input_gradient(x, kernel, gradient, strides, pads),
        _kernel_gradient(x, kernel, gradient, strides, pads),
    )


convolve.defvjp(lambda *inputs: (convolve(*inputs), inputs[:2]), _backward)


def _input_gradient(x, kernel, gradient, strides, pads):
    """A convolution with the turned kernel, where there are no strides."""
    sizes, channels = x.shape[1:-1], kernel.shape[-2]
    planes = len(sizes) == 2
    if planes and (
        math.prod(strides) > 1 or _is_winograd(gradient, channels, kernel, strides)
    ):
        return cpu_planes.input_gradient(gradient, kernel, strides, pads, sizes)
    if math.prod(strides) > 1:
        return cpu_volumes.input_gradient(gradient, kernel, strides, pads, sizes)
    window = kernel.shape[:-2]
    turned = kernel[*(slice(None, None, -1) for _ in window)].swapaxes(-2, -1)
    around = tuple(
        (taps - 1 - low, taps - 1 - high)
        for taps, (low, high) in zip(window, pads, strict=True)
    )
    return xla.convolve(gradient, turned, strides, around)


def _kernel_gradient(x, kernel, gradient, strides, pads):
    """XLA's own of planes without strides."""
    if x.ndim == 5:
        return cpu_volumes.kernel_gradient(x, gradient, kernel, strides, pads)
    if math.prod(strides) > 1 or _is_winograd(x, kernel.shape[-1], kernel, strides):
        window = kernel.shape[:-2]
        return cpu_planes.kernel_gradient(x, gradient, strides, pads, window)
    of_kernel = jax.linear_transpose(
        lambda k: xla.convolve(x, k, strides, pads), kernel
    )
    return of_kernel(gradient)[0]


def _is_winograd(x, others, kernel, strides):
    """Whether this is a plane's convolution for which Winograd's form is faster."""
    return (
        kernel.shape[:-2] == (3, 3)
        and strides == (1, 1)
        and cpu_convolution.winograd_pays(x, others)
    )
