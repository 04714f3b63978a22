"""3-D convolution on CPU as 2-D convolutions, a slab of planes at a time.

The depth taps stand side by side in the channels, so their sum is the 2-D convolution's
own sum over channels: one call with a long inner product, which pays for few channels.
Written out for a whole volume that is three copies of it; a slab of a few planes stays
in the processor's cache, is up to twice as fast, and takes the memory of a slab.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models import cpu_convolution

SLAB_BYTES = 2**21
"""Most bytes of a slab with its depth taps side by side."""

Pads = tuple[tuple[int, int], int]
"""Zeros before and behind the depth, and around every plane."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_volumes(
    x: Float[Array, "batch depth height width channels"],
    kernel: Float[Array, "taps 3 3 channels features"],
    pads: Pads,
) -> Float[Array, "batch out_depth out_height out_width features"]:
    """Convolve volumes with stride 1 (cross-correlation, as in every such library).

    Args:
        x: input, channels last.
        kernel: weights; dtype of ``x``.
        pads: zeros before and behind the depth (at most one less than the taps), and
            around every plane (0 or 1).

    Returns:
        The convolved volumes in the dtype of ``x``. Reverse-mode differentiable.
    """
    depth_pad, pad = pads
    taps, *_, features = kernel.shape
    flat = jnp.moveaxis(kernel, 0, 2).reshape(3, 3, -1, features)
    slabs = _Slabs(x, taps, depth_pad, features)

    def convolved(index: Array) -> Array:
        return cpu_convolution.convolve_3x3(slabs.planes(index), flat, pad)

    return slabs.joined(slabs.each(convolved))


def _forward(x, kernel, pads):
    return convolve_volumes(x, kernel, pads), (x, kernel)


def _backward(pads, residuals, gradient):
    x, kernel = residuals
    depth_pad, pad = pads
    taps, *_, channels, features = kernel.shape
    turned = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    low, high = (taps - 1 - n for n in depth_pad)
    of_input = convolve_volumes(gradient, turned, ((low, high), 2 - pad))
    slabs = _Slabs(x, taps, depth_pad, features)
    by = slabs.cut(gradient)

    def part(index: Array) -> Array:
        return cpu_convolution.kernel_gradient(slabs.planes(index), by(index), pad)

    of_kernel = slabs.total(part).reshape(3, 3, taps, channels, features)
    return of_input, jnp.moveaxis(of_kernel, 2, 0)


convolve_volumes.defvjp(_forward, _backward)


class _Slabs:
    """The slabs of all volumes of a batch, one after the other."""

    def __init__(
        self, x: Array, taps: int, depth_pad: tuple[int, int], features: int
    ) -> None:
        """Choose their size, and pad the depth to a whole number of them."""
        self._batch, depth, height, width, channels = x.shape
        self._taps = taps
        self._depth = depth + sum(depth_pad) - taps + 1
        # Where Winograd's form is taken, every call transforms the kernel.
        many = min(taps * channels, features) >= cpu_convolution.WINOGRAD_CHANNELS
        plane = height * width * taps * channels * x.dtype.itemsize
        whole = many or self._batch * self._depth * plane <= SLAB_BYTES
        planes = self._depth if whole else max(1, SLAB_BYTES // plane)
        self._slabs = math.ceil(self._depth / planes)
        self._planes = math.ceil(self._depth / self._slabs)
        self._volumes = self._batch if whole else 1
        self._behind = self._slabs * self._planes - self._depth
        low, high = depth_pad
        depths = (low, high + self._behind)
        self._x = jnp.pad(x, ((0, 0), depths, (0, 0), (0, 0), (0, 0)))

    @property
    def _count(self) -> int:
        return self._batch // self._volumes * self._slabs

    def _start(self, index: Array) -> tuple[Array, ...]:
        """Index of the first pixel of a slab."""
        zero = jnp.zeros_like(index)
        volume, slab = index // self._slabs, index % self._slabs
        return (volume, slab * self._planes, zero, zero, zero)

    def planes(self, index: Array) -> Array:
        """Cut out a slab: (planes, height, width, taps * channels)."""
        size = (self._volumes, self._planes + self._taps - 1, *self._x.shape[2:])
        slab = lax.dynamic_slice(self._x, self._start(index), size)
        taps = [slab[:, tap : tap + self._planes] for tap in range(self._taps)]
        joined = jnp.concatenate(taps, axis=-1)
        return joined.reshape(-1, *joined.shape[2:])

    def cut(self, y: Array) -> Callable[[Array], Array]:
        """Prepare what has the size of the result to be cut alike."""
        y = jnp.pad(y, ((0, 0), (0, self._behind), (0, 0), (0, 0), (0, 0)))
        size = (self._volumes, self._planes, *y.shape[2:])

        def planes(index: Array) -> Array:
            slab = lax.dynamic_slice(y, self._start(index), size)
            return slab.reshape(-1, *slab.shape[2:])

        return planes

    def each(self, function: Callable[[Array], Array]) -> Array:
        """Stack what a function makes of each slab."""
        if self._count == 1:
            return function(jnp.int32(0))[None]
        return lax.map(function, jnp.arange(self._count, dtype=jnp.int32))

    def total(self, function: Callable[[Array], Array]) -> Array:
        """Add up what a function makes of each slab."""
        if self._count == 1:
            return function(jnp.int32(0))
        part = jax.eval_shape(function, jnp.int32(0))
        wide = jnp.promote_types(part.dtype, jnp.float32)
        return lax.fori_loop(
            0,
            self._count,
            lambda index, total: total + function(index),
            jnp.zeros(part.shape, wide),
        ).astype(part.dtype)

    def joined(self, stacked: Array) -> Array:
        """Put slabs together: (batch, depth, height, width, features)."""
        rest = stacked.shape[-3:]
        volumes = stacked.reshape(self._batch, self._slabs * self._planes, *rest)
        return volumes[:, : self._depth]
