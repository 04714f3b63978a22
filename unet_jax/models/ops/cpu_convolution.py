"""Convolves planes with 3x3 kernels; each pass uses the fastest algorithm on CPU.

With many channels, all passes use Winograd's algorithm: it takes 16 products for four
outputs instead of 36, and adds a few rounding errors of the same size. With few
channels, moving the tiles would cost more than the products save, so the passes use
XLA's own convolution. The exception is the gradient of the kernel: XLA transposes both
arrays first, and this module transposes one band at a time, which stays in the caches.

The gradients are written by hand because the gradients that JAX derives are fast only
outside of loops. Inside `lax.scan`, XLA's CPU compiler does not rewrite a convolution,
and the derived gradients run a hundred times slower.

Source: Lavin and Gray 2016, arXiv:1509.09308, F(2x2, 3x3).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from unet_jax.models.ops import xla

WINOGRAD_CHANNELS = 128
"""Smallest number of input and output channels with which Winograd's is faster."""
WINOGRAD_PIXELS = 256
"""Smallest number of pixels of a batch with which Winograd's algorithm is faster.

The kernel is transformed in every step, which has to pay off.
"""
BAND_BYTES = 2**20
"""Bytes of input and output in one band of the kernel gradient."""
PACKED_CHANNELS = 32
"""Largest number of features with which the kernel gradient pairs pixels."""
THIN_CHANNELS = 4
"""Largest number of channels or features with which a convolution pairs pixels."""

# The matrices of the paper transform a 4x4 input tile, a kernel and a 2x2 output tile.
_TILE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_3x3(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels features"],
    pad: int,
) -> Float[Array, "batch out_height out_width features"]:
    """Convolve planes (cross-correlation) with stride 1, in the dtype of ``x``.

    Every plane is padded with ``pad`` zeros on each side: 1 keeps the size, 0 makes
    each axis two pixels shorter.
    """
    if winograd_pays(x, kernel.shape[3]):
        return _winograd(x, kernel, pad, turned=False)
    return _direct(x, kernel, pad)


def _backward(pad, residuals, gradient):
    x, kernel = residuals
    return input_gradient(gradient, kernel, pad), kernel_gradient(x, gradient, pad)


convolve_3x3.defvjp(lambda *inputs: (convolve_3x3(*inputs), inputs[:2]), _backward)


def input_gradient(
    gradient: Float[Array, "batch out_height out_width features"],
    kernel: Float[Array, "3 3 channels features"],
    pad: int,
) -> Float[Array, "batch height width channels"]:
    """Return the gradient of ``convolve_3x3`` with respect to its input."""
    if winograd_pays(gradient, kernel.shape[2]):
        return _winograd(gradient, kernel, 2 - pad, turned=True)
    return _direct(gradient, kernel[::-1, ::-1].swapaxes(2, 3), 2 - pad)


def kernel_gradient(
    x: Float[Array, "batch height width channels"],
    gradient: Float[Array, "batch out_height out_width features"],
    pad: int,
) -> Float[Array, "3 3 channels features"]:
    """Return the gradient of ``convolve_3x3`` with respect to its kernel."""
    if winograd_pays(x, gradient.shape[-1]):
        return _winograd_kernel_gradient(x, gradient, pad)
    return _direct_kernel_gradient(x, gradient, pad)


def _direct(x, kernel, pad):
    """Convolve with XLA; with very few channels, compute two pixels at each position.

    Pairs of pixels take a third more products, some of them with zeros. In exchange,
    there are enough features for XLA's convolution library: XLA computes convolutions
    of fewer than 17 features with slower code.
    """
    channels, features = kernel.shape[2:]
    pack = 1
    if min(channels, features) <= THIN_CHANNELS and max(channels, features) <= 32:
        pack = 2
    width = x.shape[2] + 2 * pad - 2
    places = -(-width // pack)
    # Copies of the kernel, each a pixel further, side by side in the features:
    # (3, 2 + pack, channels, pack * features).
    shifted = [
        jnp.pad(kernel, ((0, 0), (at, pack - 1 - at), (0, 0), (0, 0)))
        for at in range(pack)
    ]
    pads = ((pad, pad), (pad, pad + places * pack - width))
    y = xla.convolve(x, jnp.concatenate(shifted, axis=-1), (1, pack), pads)
    return y.reshape(*y.shape[:2], -1, features)[:, :, :width]


def winograd_pays(x: Float[Array, "*batch_spatial channels"], others: int) -> bool:
    """Tell whether Winograd's algorithm is faster and as exact.

    ``others`` is the number of output channels.
    """
    return (
        min(x.shape[-1], others) >= WINOGRAD_CHANNELS
        and math.prod(x.shape[:3]) >= WINOGRAD_PIXELS
        and x.dtype.itemsize >= 4
    )


def _winograd(x, kernel, pad, *, turned):
    """Convolve with Winograd's algorithm.

    With ``turned``, the kernel is reversed along its spatial axes and its channels are
    swapped with its features. The transform of a reversed kernel has the values of the
    kernel's own transform in another order, so that both passes use one transform.
    """
    batch = x.shape[0]
    height, width = (n + 2 * pad - 2 for n in x.shape[1:3])
    tiles = -(-height // 2), -(-width // 2)
    order = (3, 1, 2, 0) if turned else (0, 1, 2, 3)
    weights = np.kron(_KERNEL, _KERNEL).astype(x.dtype) @ kernel.reshape(9, -1)
    products = lax.dot_general(
        _input_tiles(x, pad, tiles, _TILE[order, :]),
        weights.reshape(16, *kernel.shape[2:]),
        (((2,), (2 if turned else 1,)), ((0,), (0,))),
    )
    products = products.reshape(4, 4, batch, *tiles, -1)
    # (4, batch, tiles, 2, tiles, features), then (batch, tiles, 2, tiles, 2, features)
    matrix = _OUTPUT[:, order]
    rows = _mix([products[at] for at in range(4)], matrix, axis=3)
    y = _mix([rows[at] for at in range(4)], matrix, axis=4)
    y = y.reshape(batch, 2 * tiles[0], 2 * tiles[1], -1)
    return _written(y)[:, :height, :width]


def _winograd_kernel_gradient(x, gradient, pad):
    """Compute the kernel gradient from the tiles of input and output."""
    batch, *sizes, features = gradient.shape
    tiles = [-(-size // 2) for size in sizes]
    ends = [(0, 2 * n - size) for n, size in zip(tiles, sizes, strict=True)]
    gradient = _written(jnp.pad(gradient, ((0, 0), *ends, (0, 0))))
    gradient = gradient.reshape(batch, tiles[0], 2, tiles[1], 2, features)
    rows = _mix([gradient[:, :, at] for at in range(2)], _OUTPUT.T, axis=0)
    of_tiles = _mix([rows[:, :, :, :, at] for at in range(2)], _OUTPUT.T, axis=1)
    products = lax.dot_general(
        _input_tiles(x, pad, tiles, _TILE),
        of_tiles.reshape(16, -1, features),
        (((1,), (1,)), ((0,), (0,))),
    )
    of_kernel = np.kron(_KERNEL, _KERNEL).T.astype(x.dtype) @ products.reshape(16, -1)
    return of_kernel.reshape(3, 3, x.shape[-1], features)


def _input_tiles(x, pad, tiles, matrix):
    """Transform all overlapping 4x4 tiles: (16, batch * tiles, channels)."""
    batch, *sizes, channels = x.shape
    ends = [(pad, 2 * n + 2 - size - pad) for n, size in zip(tiles, sizes, strict=True)]
    x = _written(jnp.pad(x, ((0, 0), *ends, (0, 0))))
    x = x.reshape(batch, tiles[0] + 1, 2, tiles[1] + 1, 2, channels)
    rows = [x[:, at // 2 : at // 2 + tiles[0], at % 2] for at in range(4)]
    rows = _written(_mix(rows, matrix, axis=0))
    columns = [rows[:, :, :, at // 2 : at // 2 + tiles[1], at % 2] for at in range(4)]
    return _mix(columns, matrix, axis=1).reshape(16, -1, channels)


def _written(x):
    """Return the array itself, and prevent XLA from computing it more than once.

    XLA would otherwise fuse its computation into every term of `_mix` that reads it.
    """
    return lax.optimization_barrier(x)


def _mix(parts, matrix, *, axis):
    """Multiply a matrix by a column of arrays; the results lie along a new axis.

    Products with zeros are computed too: one loop over all results compiles five times
    faster than one loop for each result, and runs about as fast.
    """
    shape = [1] * (parts[0].ndim + 1)
    shape[axis] = -1
    terms = [
        jnp.asarray(factors, part.dtype).reshape(shape) * jnp.expand_dims(part, axis)
        for factors, part in zip(matrix.T, parts, strict=True)
    ]
    return functools.reduce(jnp.add, terms)


def _direct_kernel_gradient(x, gradient, pad):
    """Compute the kernel gradient; the array with more channels acts as the kernel.

    The kernel gradient is a correlation of the two arrays. If the arrays change roles,
    their correlation is the same, reversed along its spatial axes.
    """
    if x.shape[-1] <= gradient.shape[-1]:
        return _banded_correlation(x, gradient, pad)
    turned = _banded_correlation(gradient, x, 2 - pad)
    return turned[::-1, ::-1].swapaxes(2, 3)


def _banded_correlation(x, by, pad):
    """Correlate two arrays over batch and space: (3, 3, channels, features).

    The result is a sum over bands; a band has some rows of a few planes. If there are
    few features, pairs of neighbouring pixels lie side by side in the features of
    ``by``: XLA computes convolutions of fewer than 17 features with code that is
    several times slower than its convolution library.
    """
    batch, height, width, features = by.shape
    channels = x.shape[-1]
    row = (x.shape[2] * channels + width * features) * x.dtype.itemsize
    bands = -(-height * row // BAND_BYTES)
    rows = -(-height // bands)
    bands = -(-height // rows)
    planes = max(1, min(batch, BAND_BYTES // (height * row)))
    planes = next(n for n in range(planes, 0, -1) if batch % n == 0)
    pack = 2 if features <= PACKED_CHANNELS else 1
    below, right = bands * rows - height, -width % pack
    x = jnp.pad(x, ((0, 0), (pad, pad + below), (0, 0), (0, 0)))
    by = jnp.pad(by, ((0, 0), (0, below), (0, right), (0, 0)))
    by = by.reshape(batch, height + below, -1, pack * features)

    def add_band(total, index):
        start = (index // bands * planes, index % bands * rows, 0, 0)
        band = lax.dynamic_slice(x, start, (planes, rows + 2, *x.shape[2:]))
        band_by = lax.dynamic_slice(by, start, (planes, rows, *by.shape[2:]))
        # The channels act as the batch, and the planes act as the channels.
        part = lax.conv_general_dilated(
            band.transpose(3, 1, 2, 0),
            band_by.transpose(1, 2, 0, 3),
            (1, 1),
            ((0, 0), (pad, pad + right)),
            rhs_dilation=(1, pack),
            dimension_numbers=xla.dimension_numbers(2),
        )
        return total + part, None

    dtype = jnp.promote_types(x.dtype, "float32")
    zeros = jnp.zeros((channels, 3, 2 + pack, pack * features), dtype)
    total, _ = lax.scan(add_band, zeros, jnp.arange(batch // planes * bands))
    total = total.reshape(channels, 3, 2 + pack, pack, features)
    shifts = sum(total[:, :, at : at + 3, at] for at in range(pack))
    return shifts.transpose(1, 2, 0, 3).astype(x.dtype)
