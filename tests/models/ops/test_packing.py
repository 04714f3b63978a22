"""Packed arrays: nothing lost, nothing outside, and blocks by the channels."""

import itertools
import operator

import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models.ops import packing

LAYOUTS = [
    packing.BlockLayout((8, 6), (4, 2), (0, 0)),
    packing.BlockLayout((8, 6), (4, 2), (1, 1)),
    packing.BlockLayout((5, 7), (2, 4), (0, 3)),
    packing.BlockLayout((3, 4, 6), (1, 2, 2), (0, 1, 0)),
    packing.BlockLayout((4, 4, 4), (2, 2, 2), (1, 1, 1)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unpacking_gives_back_what_was_packed(layout):
    x = np.random.default_rng(0).normal(size=(2, *layout.size, 3)).astype(np.float32)
    packed = packing.pack(jnp.asarray(x), layout)
    blocks = (2, *layout.blocks, 3 * layout.phases)
    assert packed.values.shape == blocks
    assert packed.channels == 3
    np.testing.assert_array_equal(packing.unpack(packed), x)
    assert np.count_nonzero(packed.values) == x.size


def test_a_block_holds_its_pixels_in_row_order():
    layout = packing.BlockLayout((2, 4), (2, 2), (0, 0))
    x = jnp.arange(16.0).reshape(1, 2, 4, 2)
    packed = packing.pack(x, layout)
    expected = [*x[0, 0, 2], *x[0, 0, 3], *x[0, 1, 2], *x[0, 1, 3]]
    np.testing.assert_array_equal(packed.values[0, 0, 1], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_outside_is_set_to_zero_and_nothing_else(layout):
    x = jnp.ones((1, *layout.size, 2))
    packed = packing.pack(x, layout)
    filled = packed.with_values(jnp.ones_like(packed.values))
    kept = packing.keep_inside(filled)
    np.testing.assert_array_equal(kept.values, packed.values)
    assert (layout.inside() is None) == bool((packed.values == 1).all())


@pytest.mark.parametrize(
    ("size", "features", "strides", "factors"),
    [
        ((96, 96), (16, 32, 64, 128), (2, 2, 2), [(2, 4), (2, 2), (1, 2), (1, 1)]),
        ((96, 96), (8, 40, 200), (2, 2), [(4, 4), (1, 2), (1, 1)]),
        ((96, 90), (32, 64), (2,), [(2, 2), (2, 1)]),
        ((95, 91), (32, 64), (1,), [(1, 1), (1, 1)]),
        ((8, 64, 64), (32, 64, 128), (2, 2), [(1, 2, 2), (1, 1, 2), (1, 1, 1)]),
    ],
)
def test_blocks_fill_the_lanes_where_the_extents_divide(
    size, features, strides, factors
):
    totals = itertools.accumulate(strides, operator.mul, initial=1)
    layouts = [
        packing.layout_for([n // total for n in size], channels)
        for total, channels in zip(totals, features, strict=True)
    ]
    assert [layout.factors for layout in layouts] == factors
    assert all(layout.inside() is None for layout in layouts)
