"""Convolves volumes on CPU by 2-D convolutions, one slab of planes at a time.

The planes that the depth taps read are concatenated along the channels, so that the 2-D
convolution adds up the taps in its own sum over channels. One call then has a long
inner product, which is faster where there are few channels. For a whole volume this
would take three copies of the volume. A slab of a few planes stays in the cache, is up
to twice as fast, and needs only the memory of a slab.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import cpu_convolution, cpu_planes

SLAB_BYTES = 2**21
"""Largest number of bytes of a slab with the planes of all depth taps."""
Pads = tuple[tuple[int, int], ...]
"""Padding: zeros before and after each axis, fewer than the kernel size."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_volumes(
    x: Float[Array, "batch depth height width channels"],
    kernel: Float[Array, "taps *window channels features"],
    strides: tuple[int, ...],
    pads: Pads,
) -> Float[Array, "batch out_depth out_height out_width features"]:
    """Convolve volumes (cross-correlation), in the dtype of ``x``."""
    flat = _depth_in_channels(kernel)
    slabs = _Slabs(x, kernel, kernel.shape[0], strides, pads[0])

    def convolved(index: Array) -> Array:
        planes = slabs.planes(index)
        return cpu_planes.convolve_planes(planes, flat, strides[1:], pads[1:])

    return slabs.joined(slabs.each(convolved))


def _backward(strides, pads, residuals, gradient):
    x, kernel = residuals
    return (
        input_gradient(gradient, kernel, strides, pads, x.shape[1:4]),
        kernel_gradient(x, gradient, kernel, strides, pads),
    )


convolve_volumes.defvjp(
    lambda *inputs: (convolve_volumes(*inputs), inputs[:2]), _backward
)


def _depth_in_channels(kernel: Array) -> Array:
    """Move the taps of (taps, *window, channels, features) into the channels.

    Returns: (*window, taps * channels, features).
    """
    window, features = kernel.shape[1:3], kernel.shape[-1]
    return jnp.moveaxis(kernel, 0, 2).reshape(*window, -1, features)


def input_gradient(
    gradient: Float[Array, "batch out_depth out_height out_width features"],
    kernel: Float[Array, "taps *window channels features"],
    strides: tuple[int, ...],
    pads: Pads,
    sizes: tuple[int, ...],
) -> Float[Array, "batch depth height width channels"]:
    """Return the gradient of ``convolve_volumes`` with respect to its input.

    Each phase of the depth (`cpu_planes.Phases`) is a convolution of the planes around.
    """
    step, features = strides[0], kernel.shape[-1]
    axis = cpu_planes.phases(sizes[0], gradient.shape[1], pads[0][0], step)
    most = -(-kernel.shape[0] // step)
    slabs = _Slabs(gradient, kernel, most, (1, *strides[1:]), axis.pads(most))

    def phase(planes: Array, first: int) -> Array:
        taps = kernel[first::step][::-1]
        if not len(taps):  # the kernel is smaller than the stride
            shape = (len(planes), *sizes[1:], kernel.shape[-2])
            return jnp.zeros(shape, planes.dtype)
        # The planes have the features of all taps side by side.
        flat = _depth_in_channels(taps.swapaxes(3, 4)).swapaxes(2, 3)
        planes = planes[..., (most - len(taps)) * features :]
        return cpu_planes.input_gradient(planes, flat, strides[1:], pads[1:], sizes[1:])

    def part(index: Array) -> Array:
        planes = slabs.planes(index)
        return jnp.stack([phase(planes, first) for first in range(step)], axis=1)

    y = slabs.joined(slabs.each(part))  # (batch, depth, phases, height, width, ...)
    y = y.reshape(y.shape[0], -1, *y.shape[3:])
    return y[:, axis.outside : axis.outside + sizes[0]]


def kernel_gradient(
    x: Float[Array, "batch depth height width channels"],
    gradient: Float[Array, "batch out_depth out_height out_width features"],
    kernel: Float[Array, "taps *window channels features"],
    strides: tuple[int, ...],
    pads: Pads,
) -> Float[Array, "taps *window channels features"]:
    """Return the gradient of ``convolve_volumes`` with respect to its kernel.

    The gradient is the sum of the gradients of all slabs. Of ``kernel`` only the shape
    is read.
    """
    taps, *window, channels, features = kernel.shape
    slabs = _Slabs(x, kernel, taps, strides, pads[0])
    by = slabs.cut(gradient)

    def part(index: Array) -> Array:
        return cpu_planes.kernel_gradient(
            slabs.planes(index), by(index), strides[1:], pads[1:], tuple(window)
        )

    total = slabs.total(part).reshape(*window, taps, channels, features)
    return jnp.moveaxis(total, 2, 0)


class _Slabs:
    """The slabs of all volumes of a batch, one after the other."""

    def __init__(
        self,
        x: Array,
        kernel: Array,
        taps: int,
        strides: tuple[int, ...],
        depth_pad: tuple[int, int],
    ) -> None:
        """Choose the size of a slab, and pad the depth to a whole number of slabs."""
        self._batch, depth, height, width, channels = x.shape
        self._taps, self._step = taps, strides[0]
        self._depth = (depth + sum(depth_pad) - taps) // self._step + 1
        plane = height * width * taps * channels * x.dtype.itemsize
        most = max(
            SLAB_BYTES, cpu_planes.PARTS_A_KERNEL * kernel.size * x.dtype.itemsize
        )
        # With Winograd's algorithm every call transforms the kernel: make one call.
        many = strides[1:] == (1, 1) and kernel.shape[1:3] == (3, 3)
        others = kernel.size // (math.prod(kernel.shape[1:3]) * taps * channels)
        many &= min(taps * channels, others) >= cpu_convolution.WINOGRAD_CHANNELS
        whole = many or self._batch * self._depth * plane <= most
        planes = self._depth if whole else max(1, most // plane)
        self._slabs = math.ceil(self._depth / planes)
        self._planes = math.ceil(self._depth / self._slabs)
        self._volumes = self._batch if whole else 1
        self._behind = self._slabs * self._planes - self._depth
        # Negative padding cuts off the planes that no output reads.
        reached = (self._slabs * self._planes - 1) * self._step + taps
        depths = (depth_pad[0], reached - depth_pad[0] - depth, 0)
        none = (0, 0, 0)
        self._x = lax.pad(x, jnp.zeros((), x.dtype), (none, depths, none, none, none))

    @property
    def _count(self) -> int:
        return self._batch // self._volumes * self._slabs

    def _start(self, index: Array) -> tuple[Array, ...]:
        """Return the index of the first output of a slab."""
        zero = jnp.zeros_like(index)
        volume, slab = index // self._slabs, index % self._slabs
        return (volume, slab * self._planes, zero, zero, zero)

    def planes(self, index: Array) -> Array:
        """Cut out the planes of a slab: (planes, height, width, taps * channels)."""
        last = (self._planes - 1) * self._step
        size = (self._volumes, last + self._taps, *self._x.shape[2:])
        volume, first, *rest = self._start(index)
        slab = lax.dynamic_slice(self._x, (volume, first * self._step, *rest), size)
        taps = [slab[:, tap : tap + last + 1 : self._step] for tap in range(self._taps)]
        joined = jnp.concatenate(taps, axis=-1)
        return joined.reshape(-1, *joined.shape[2:])

    def cut(self, y: Array) -> Callable[[Array], Array]:
        """Prepare an array of the size of the result, to be cut into the same slabs."""
        y = jnp.pad(y, ((0, 0), (0, self._behind), (0, 0), (0, 0), (0, 0)))
        size = (self._volumes, self._planes, *y.shape[2:])

        def planes(index: Array) -> Array:
            slab = lax.dynamic_slice(y, self._start(index), size)
            return slab.reshape(-1, *slab.shape[2:])

        return planes

    def each(self, function: Callable[[Array], Array]) -> Array:
        """Stack the results of a function for each slab."""
        if self._count == 1:
            return function(jnp.int32(0))[None]
        return lax.map(function, jnp.arange(self._count, dtype=jnp.int32))

    def total(self, function: Callable[[Array], Array]) -> Array:
        """Add up the results of a function for each slab."""
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
        """Join the stacked slabs to volumes: (batch, depth, ...)."""
        shape = (self._batch, self._slabs * self._planes, *stacked.shape[2:])
        return stacked.reshape(shape)[:, : self._depth]
