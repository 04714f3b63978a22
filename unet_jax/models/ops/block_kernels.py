"""Makes the kernel of a convolution of blocks from the kernel of its pixels."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from unet_jax.models.ops.packing import BlockLayout


def convolution_axis(
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


def upsampling_axis(
    read: int, made: int, stride: int
) -> Bool[np.ndarray, "taps weights read made"]:
    """Where each weight of a transposed convolution goes along one axis."""
    pixels = np.arange(stride * read).reshape(-1, 1, 1, made)
    weights = np.arange(stride).reshape(1, stride, 1, 1)
    coarse = np.arange(read).reshape(1, 1, read, 1)
    return pixels == stride * coarse + weights


def embed(
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
