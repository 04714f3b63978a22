"""Each operation on blocks is the plain one on pixels, in values and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.subset import slow_after
from unet_jax.models import ops
from unet_jax.models.ops import packed_ops, packing
from unet_jax.models.ops.packing import BlockLayout, Packed, pack, unpack


def _values(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _assert_equal(packed, plain, *arrays, single):
    """Values and gradients in float64; ``single``: in float32 too.

    ``packed`` gives a Packed, whose blocks have to be zero outside of the array.
    """
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5))[: 1 + single]:
        with jax.enable_x64(True):
            found, y = _run(packed, arrays, dtype)
            np.testing.assert_array_equal(packing.keep_inside(y).values, y.values)
            expected, _ = _run(plain, arrays, dtype)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype == dtype
            scale = np.abs(other).max()
            np.testing.assert_allclose(one / scale, other / scale, 0, tolerance)


def _run(function, arrays, dtype):
    arrays = [jnp.asarray(array, dtype) for array in arrays]

    @jax.jit
    def run(*arrays):
        def unpacked(*arrays):
            y = function(*arrays)
            return unpack(y), y

        value, pull_back, y = jax.vjp(unpacked, *arrays, has_aux=True)
        return (value, *pull_back(jnp.asarray(_values(value.shape, 9), dtype))), y

    results, y = run(*arrays)
    return [np.asarray(result) for result in results], y


CONVOLUTIONS = [
    # size, window, strides, factors and shifts that are read, and that are made
    ((8, 6), (3, 3), (1, 1), (4, 2), (0, 0), (4, 2), (1, 1)),
    ((5, 7), (3, 3), (1, 1), (2, 4), (1, 0), (2, 4), (0, 3)),
    ((8, 12), (3, 3), (2, 2), (2, 2), (0, 0), (1, 2), (0, 1)),
    # Blocks that are read would be cut: unpacked on the way.
    ((8, 12), (3, 3), (1, 1), (2, 2), (1, 1), (1, 4), (0, 0)),
    ((4, 4, 6), (3, 3, 3), (1, 1, 1), (1, 2, 2), (0, 0, 0), (1, 2, 2), (0, 1, 1)),
    ((8, 6), (3, 3), (1, 1), (4, 2), (1, 1), (4, 2), (0, 0)),
    ((8, 6), (3, 3), (1, 1), (2, 2), (0, 0), (2, 2), (0, 0)),
    ((8, 12), (3, 3), (2, 2), (4, 2), (0, 0), (2, 2), (1, 1)),
    ((8, 12), (3, 3), (1, 1), (2, 1), (0, 0), (2, 2), (1, 1)),
    ((8, 12), (1, 3), (2, 1), (1, 1), (0, 0), (2, 2), (0, 1)),
    ((8, 12), (1, 1), (2, 2), (4, 2), (0, 0), (2, 1), (0, 0)),
    ((8, 12), (5, 2), (1, 1), (4, 2), (0, 0), (4, 2), (2, 0)),
    ((4, 4, 6), (3, 3, 3), (2, 2, 2), (1, 2, 2), (0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ((4, 4, 6), (1, 3, 3), (1, 2, 2), (2, 1, 2), (0, 0, 0), (2, 2, 1), (1, 0, 0)),
]


@pytest.mark.parametrize(
    ("size", "window", "strides", "read", "read_shifts", "made", "made_shifts"),
    slow_after(5, CONVOLUTIONS),
)
def test_convolution_of_blocks_is_that_of_pixels(
    size, window, strides, read, read_shifts, made, made_shifts
):
    source = BlockLayout(size, read, read_shifts)
    outputs = tuple(-(-n // step) for n, step in zip(size, strides, strict=True))
    layout = BlockLayout(outputs, made, made_shifts)

    def packed(first, second, kernel):
        inputs = [pack(first, source), pack(second, source)]
        return packed_ops.convolve(inputs, kernel, layout=layout, strides=strides)

    def plain(first, second, kernel):
        x = jnp.concatenate([first, second], axis=-1)
        return ops.convolve(x, kernel, strides=strides)

    _assert_equal(
        packed,
        plain,
        _values((2, *size, 3)),
        _values((2, *size, 2), 1),
        _values((*window, 5, 4), 2),
        single=len(size) == 3,
    )


@pytest.mark.parametrize(
    ("size", "window", "strides", "read", "made", "made_shifts"),
    [
        ((8, 12), (3, 3), (2, 2), (4, 2), (2, 2), (1, 1)),
        ((8, 12), (5, 1), (2, 2), (2, 2), (1, 2), (0, 1)),
        ((4, 4, 6), (1, 3, 3), (1, 2, 2), (1, 2, 2), (1, 2, 1), (0, 0, 0)),
    ],
)
def test_centred_convolution_of_blocks_is_that_of_pixels(
    size, window, strides, read, made, made_shifts
):
    source = BlockLayout(size, read, (0,) * len(size))
    outputs = tuple(n // step for n, step in zip(size, strides, strict=True))
    layout = BlockLayout(outputs, made, made_shifts)

    def packed(x, kernel):
        return packed_ops.convolve(
            [pack(x, source)], kernel, layout=layout, strides=strides, centred=True
        )

    def plain(x, kernel):
        return ops.convolve(x, kernel, strides=strides, padding="CENTRED")

    _assert_equal(
        packed,
        plain,
        _values((2, *size, 3)),
        _values((*window, 3, 4), 2),
        single=len(size) == 3,
    )


@pytest.mark.parametrize(
    ("size", "factors", "shifts", "window"),
    [
        ((8, 8), (2, 2), (0, 0), (2, 2)),
        ((4, 8, 8), (1, 1, 2), (0, 0, 0), (2, 2, 2)),
        # Unpacked on the way: windows end within blocks, blocks begin before the array.
        ((8, 8), (4, 2), (0, 0), (2, 2)),
        ((8, 8), (2, 2), (1, 0), (2, 2)),
    ],
)
def test_average_pooling_of_blocks_is_that_of_pixels(size, factors, shifts, window):
    _assert_equal(
        lambda x: ops.average_pool(pack(x, BlockLayout(size, factors, shifts)),
                                   window=window),
        lambda x: ops.average_pool(x, window=window),
        _values((2, *size, 3)), single=len(size) == 3)  # fmt: skip


@pytest.mark.parametrize(("made", "taps"), [((0, 0), (3, 3)), ((1, 1), (2, 2))])
def test_a_shifted_result_reads_fewer_blocks(made, taps):
    """The kernels of the compiled program, as XLA is given them."""
    source = BlockLayout((8, 8), (2, 2), (0, 0))
    layout = source.shifted(made)

    def packed(x, kernel):
        return packed_ops.convolve([pack(x, source)], kernel, layout=layout).values

    lowered = jax.jit(packed).lower(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 5)))
    found = re.findall(
        r"stablehlo\.convolution.*, tensor<(.*?)xf32>", lowered.as_text()
    )
    assert found == ["x".join(map(str, (*taps, 12, 20)))]


@pytest.mark.parametrize(
    ("size", "factors", "window", "left"),
    [
        ((8, 8), (4, 2), (2, 2), (2, 1)),
        ((8, 8), (2, 2), (1, 2), (2, 1)),
        ((8, 12), (4, 2), (4, 2), (1, 1)),
        ((9, 6), (1, 2), (3, 3), (1, 1)),  # not of whole blocks: unpacked
        ((4, 4, 8), (1, 2, 4), (1, 2, 2), (1, 1, 2)),
    ],
)
def test_pooling_of_blocks_is_that_of_pixels(size, factors, window, left):
    layout = BlockLayout(size, factors, (0,) * len(size))

    def packed(x):
        y = packed_ops.max_pool(pack(x, layout), window=window)
        assert y.layout.factors == left
        return y

    def plain(x):
        return ops.max_pool(x, window=window)

    _assert_equal(packed, plain, _values((2, *size, 3)), single=False)
    # Few different values: most windows hold their largest one several times.
    _assert_equal(packed, plain, _values((2, *size, 3)).round(), single=len(size) == 3)


@pytest.mark.parametrize(
    ("size", "strides", "read", "made"),
    [
        ((4, 6), (2, 2), (2, 1), (4, 2)),
        ((4, 6), (2, 2), (1, 2), (2, 2)),
        ((4, 6), (2, 2), (1, 1), (2, 2)),
        ((4, 6), (3, 1), (2, 1), (2, 1)),
        ((4, 6), (2, 2), (1, 1), (4, 2)),  # blocks of more than one pixel's: unpacked
        ((2, 2, 4), (2, 2, 2), (1, 1, 2), (1, 2, 2)),
        ((2, 2, 4), (1, 2, 2), (1, 2, 1), (1, 2, 2)),
    ],
)
def test_up_convolution_of_blocks_is_that_of_pixels(size, strides, read, made):
    source = BlockLayout(size, read, (0,) * len(size))
    grown = tuple(n * step for n, step in zip(size, strides, strict=True))
    layout = BlockLayout(grown, made, (0,) * len(size))

    def packed(x, kernel):
        return packed_ops.up_convolve(pack(x, source), kernel, layout=layout)

    def plain(x, kernel):
        return ops.up_convolve(x, kernel)

    _assert_equal(
        packed,
        plain,
        _values((2, *size, 3)),
        _values((*strides, 3, 4), 1),
        single=len(size) == 3,
    )


LAYOUTS = [
    BlockLayout((4, 6), (2, 2), (0, 0)),
    BlockLayout((5, 7), (2, 4), (1, 2)),
    BlockLayout((3, 4, 5), (1, 2, 2), (0, 1, 1)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm_of_blocks_is_that_of_pixels(layout, groups):
    def packed(x, scale, bias):
        return packed_ops.group_norm(pack(x, layout), scale, bias, groups=groups)

    def plain(x, scale, bias):
        return ops.group_norm(x, scale, bias, groups=groups)

    x = 3 + 2 * _values((2, *layout.size, 6))
    _assert_equal(
        packed,
        plain,
        x,
        _values((6,), 1),
        _values((6,), 2),
        single=groups == 3 and layout == LAYOUTS[1],
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_of_blocks_is_that_of_pixels(layout):
    def packed(x, scale, bias):
        x = pack(x, layout)
        mean, variance = packed_ops.batch_moments(x)
        return packed_ops.standardise(
            x, mean=mean, variance=variance, scale=scale, bias=bias
        )

    def plain(x, scale, bias):
        mean, variance = ops.batch_moments(x)
        return ops.standardise(
            x,
            mean=mean,
            variance=variance,
            scale=scale,
            bias=bias,
        )

    x = 3 + 2 * _values((3, *layout.size, 4))
    _assert_equal(
        packed,
        plain,
        x,
        _values((4,), 1),
        _values((4,), 2),
        single=layout == LAYOUTS[1],
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_goes_with_channels_and_pixels(layout):
    def packed(x, bias, factors, weights):
        x = packed_ops.add_bias(pack(x, layout), bias)
        x = packed_ops.scale_channels(x, factors)
        return packed_ops.weigh_pixels(x, pack(weights, layout))

    def plain(x, bias, factors, weights):
        rank = len(layout.size)
        return (x + bias) * factors.reshape(2, *(1,) * rank, 3) * weights

    _assert_equal(
        packed,
        plain,
        _values((2, *layout.size, 3)),
        _values((3,), 1),
        _values((2, 3), 2),
        _values((2, *layout.size, 1), 3),
        single=layout == LAYOUTS[1],
    )


@pytest.mark.parametrize("mean", [0.0, 3.0, 30.0])
def test_moments_of_bfloat16_lose_less_than_bfloat16_does(mean):
    layout = LAYOUTS[1]
    x = jnp.asarray(mean + _values((4, *layout.size, 3)), jnp.bfloat16)
    found = packed_ops.batch_moments(pack(x, layout))
    assert {part.dtype for part in found} == {jnp.dtype("float32")}
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(found[0], wide.mean((0, 1, 2)), atol=1e-5 * (1 + mean))
    np.testing.assert_allclose(found[1], wide.var((0, 1, 2)), rtol=2**-8)


def test_a_packed_norm_refuses_channels_that_do_not_divide():
    x = Packed(jnp.ones((1, 2, 2, 12)), BlockLayout((2, 4), (1, 2), (0, 0)))
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        packed_ops.group_norm(x, jnp.ones(6), jnp.zeros(6), groups=4)
