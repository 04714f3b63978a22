"""Puts neighbouring pixels side by side into the channels (space to depth).

TPU stores and multiplies channels in groups of 128, and fills up what is missing with
zeros. Where a stage has 32 channels, blocks of 2x2 pixels with 128 channels hold the
same numbers in a quarter of the memory.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

LANES = 128
"""Channels that a TPU has room for in any case."""


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """Where each pixel of an array stands in its packed form.

    Attributes:
        size: spatial size of the array.
        factors: pixels of a block along each axis; 1 throughout is no packing.
        shifts: pixels of the first block of each axis that lie before the array.
        apart: places of a block from one of its pixels to the next, on each axis; what
            stands in the places between counts for nothing. None for 1 throughout, in
            blocks that were chosen by the channels; pooling leaves others.
    """

    size: tuple[int, ...]
    factors: tuple[int, ...]
    shifts: tuple[int, ...]
    apart: tuple[int, ...] | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(
            -(-(size + shift) // factor)
            for size, factor, shift in zip(
                self.size, self.factors, self.shifts, strict=True
            )
        )

    @property
    def steps(self) -> tuple[int, ...]:
        """Places from one pixel of a block to the next, on each axis."""
        return self.apart or (1,) * len(self.size)

    @property
    def places(self) -> tuple[int, ...]:
        """Places of a block along each axis."""
        return tuple(
            factor * step for factor, step in zip(self.factors, self.steps, strict=True)
        )

    @property
    def phases(self) -> int:
        """Places of a block."""
        return math.prod(self.places)

    def shifted(self, shifts: Sequence[int]) -> "BlockLayout":
        """Return the same blocks, shifted by pixels before the array."""
        return dataclasses.replace(self, shifts=tuple(shifts))

    def inside(self) -> Bool[np.ndarray, "*blocks phases"] | None:
        """Return which pixels of the blocks are the array's; None where all are."""
        axes = []
        for blocks, factor, shift, size in zip(
            self.blocks, self.factors, self.shifts, self.size, strict=True
        ):
            pixel = np.arange(blocks * factor).reshape(blocks, factor) - shift
            axes.append((pixel >= 0) & (pixel < size))
        if all(axis.all() for axis in axes):
            return None
        found = np.ones((), bool)
        for axis in axes:
            # (*blocks, *factors) and one axis more of either.
            found = np.multiply.outer(found, axis)
        rank = len(axes)
        found = found.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
        return found.reshape(*self.blocks, -1)


@flax.struct.dataclass
class Packed:
    """An array in packed form.

    Attributes:
        values: ``(batch, *blocks, phases * channels)``; the pixels of a block in row
            order, each with its channels. What lies outside of the array is zero, but
            in places between pixels that are apart there is anything finite.
        layout: where the pixels stand.
    """

    values: Array
    layout: BlockLayout = flax.struct.field(pytree_node=False)

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.values.shape[-1] // self.layout.phases

    @property
    def ndim(self) -> int:
        """Number of axes, with batch and channels."""
        return self.values.ndim

    @property
    def dtype(self) -> jnp.dtype:
        """Type of the values."""
        return self.values.dtype

    def with_values(self, values: Array) -> "Packed":
        """Return other values in the same layout; zero must have stayed zero."""
        return Packed(values, self.layout)


def unpacked_layout(size: Sequence[int]) -> BlockLayout:
    """Return the layout of an array as it is."""
    return BlockLayout(tuple(size), (1,) * len(size), (0,) * len(size))


def as_packed(x: Float[Array, "batch *spatial channels"] | Packed) -> Packed:
    """Return an array as blocks of one pixel, and what is packed as it is."""
    if isinstance(x, Packed):
        return x
    return Packed(x, unpacked_layout(x.shape[1:-1]))


def pack(x: Float[Array, "batch *spatial channels"], layout: BlockLayout) -> Packed:
    """Put the pixels of each block into the channels."""
    rank = len(layout.size)
    pads = [
        (shift, blocks * factor - shift - size)
        for size, factor, shift, blocks in zip(
            layout.size, layout.factors, layout.shifts, layout.blocks, strict=True
        )
    ]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    # (batch, blocks_0, factor_0, blocks_1, factor_1, ..., channels)
    split = itertools.chain(*zip(layout.blocks, layout.factors, strict=True))
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    x = x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
    return Packed(x.reshape(x.shape[0], *layout.blocks, -1), layout)


def unpack(
    x: Float[Array, "batch *spatial channels"] | Packed,
) -> Float[Array, "batch *_ _"]:
    """Return the array itself; the inverse of `pack`."""
    if not isinstance(x, Packed):
        return x
    layout, rank = x.layout, len(x.layout.size)
    values = x.values.reshape(-1, *layout.blocks, *layout.places, x.channels)
    pixels = (slice(None, None, step) for step in layout.steps)
    values = values[:, *(slice(None),) * rank, *pixels]
    order = itertools.chain(*((1 + axis, 1 + rank + axis) for axis in range(rank)))
    values = values.transpose(0, *order, 2 * rank + 1)
    grown = [n * step for n, step in zip(layout.blocks, layout.factors, strict=True)]
    values = values.reshape(-1, *grown, x.channels)
    places = zip(layout.shifts, layout.size, strict=True)
    return values[:, *(slice(shift, shift + size) for shift, size in places)]


def repack(
    x: Float[Array, "batch *spatial channels"] | Packed, layout: BlockLayout | None
) -> Float[Array, "batch *spatial channels"] | Packed:
    """Return the array in another layout; None leaves it as it is."""
    if layout is None or (isinstance(x, Packed) and x.layout == layout):
        return x
    return pack(unpack(x), layout)


def elementwise(
    function: Callable[..., Array],
    *inputs: Float[Array, "batch *spatial channels"] | Packed,
) -> Float[Array, "batch *spatial channels"] | Packed:
    """Apply a function of values that are zero outside of the array, and leave zero so.

    Args:
        function: function of the inputs, which gives 0 where all are 0.
        inputs: all packed in one layout, or none.
    """
    first = inputs[0]
    if not isinstance(first, Packed):
        return function(*inputs)
    return first.with_values(function(*(as_packed(x).values for x in inputs)))


def keep_inside(x: Packed) -> Packed:
    """Set what lies outside of the array to zero."""
    inside = x.layout.inside()
    if inside is None:
        return x
    mask = jnp.asarray(np.repeat(inside, x.channels, axis=-1))
    return x.with_values(jnp.where(mask, x.values, jnp.zeros((), x.values.dtype)))


def spread(
    values: Float[Array, "*sample channels"], layout: BlockLayout
) -> Float[Array, "*broadcasting phases_channels"]:
    """Repeat what belongs to the channels for all pixels of a block."""
    values = jnp.tile(values, layout.phases)
    return values.reshape(
        *values.shape[:-1], *(1,) * len(layout.size), values.shape[-1]
    )


def layout_for(size: Sequence[int], channels: int) -> BlockLayout:
    """Choose the blocks of an array by its channels.

    Blocks are as large as fills the lanes, a power of two; the axes take turns, the
    last one first. An axis that does not divide is left as it is.
    """
    size = tuple(size)
    return BlockLayout(size, _factors(size, LANES // channels), (0,) * len(size))


def _factors(size: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Yield the blocks of at most a number of pixels."""
    factors = [1] * len(size)
    # In-plane axes alone: a third one would only add to the zeros in the kernels.
    axes = range(len(size) - 1, len(size) - 3, -1)
    grown = True
    while grown:
        grown = False
        for axis in axes:
            fits = size[axis] % (2 * factors[axis]) == 0
            if 2 * math.prod(factors) <= most and fits and factors[axis] < 4:
                factors[axis] *= 2
                grown = True
    return tuple(factors)
