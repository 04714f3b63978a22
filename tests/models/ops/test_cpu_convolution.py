"""The 3x3 convolutions of the CPU: XLA's own in value and gradients, in every form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.subset import slow_after
from unet_jax.models.ops import cpu_convolution

MANY = cpu_convolution.WINOGRAD_CHANNELS


def _plain(x, kernel, pad):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _with_gradients(function, pad, x, kernel, by):
    value, pull_back = jax.vjp(lambda *args: function(*args, pad), x, kernel)
    return value, *pull_back(by)


def _arrays(shape, channels, features, pad, dtype):
    rng = np.random.default_rng(0)
    batch, height, width = shape
    outer = (batch, height + 2 * pad - 2, width + 2 * pad - 2, features)
    shapes = (*shape, channels), (3, 3, channels, features), outer
    return [jnp.asarray(rng.normal(size=size), dtype) for size in shapes]


def _assert_equal_to_plain(arrays, pad, tolerance):
    found, expected = (
        jax.jit(functools.partial(_with_gradients, function, pad))(*arrays)
        for function in (cpu_convolution.convolve_3x3, _plain)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        scale = np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, 0, tolerance)


@pytest.mark.parametrize("pad", slow_after(1, [1, 0]))
@pytest.mark.parametrize(
    ("shape", "channels", "features"),
    [
        ((2, 12, 14), MANY, MANY),  # Winograd's, whole tiles
        ((1, 19, 23), MANY, MANY + 2),  # cut tiles
        ((3, 7, 6), 3, 5),  # all planes in one band, two pixels at once
        ((3, 6, 7), 5, 3),  # more channels than features; an odd width
        ((2, 6, 7), 5, 6),  # too many channels to make two pixels at once
        ((2, 9, 5), MANY - 1, MANY),  # just too few channels for tiles
    ],
)
def test_value_and_gradients_are_those_of_the_plain_one(shape, channels, features, pad):
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
        with jax.enable_x64(True):
            arrays = _arrays(shape, channels, features, pad, dtype)
            _assert_equal_to_plain(arrays, pad, tolerance)


@pytest.mark.parametrize(
    ("size", "pad", "width", "packed"),
    slow_after(
        4,
        [
            (1, 0, 8, 4),
            (1000, 1, 9, 4),
            (3000, 1, 9, 3),
            (20000, 0, 9, 4),
            (1, 1, 9, 3),
            (1000, 0, 9, 3),
            (1000, 1, 8, 4),
            (3000, 0, 8, 4),
            (3000, 1, 9, 4),
            (20000, 1, 8, 4),
        ],
    ),
)
def test_bands_of_every_height_add_up(monkeypatch, size, pad, width, packed):
    monkeypatch.setattr(cpu_convolution, "BAND_BYTES", size)
    monkeypatch.setattr(cpu_convolution, "PACKED_CHANNELS", packed)
    with jax.enable_x64(True):
        arrays = _arrays((6, 13, width), 4, 3, pad, np.float64)
        _assert_equal_to_plain(arrays, pad, 1e-13)


def test_which_form_is_taken(monkeypatch):
    taken = []
    kept = cpu_convolution._winograd

    def spy(x, *args, **options):
        taken.append(x.shape)
        return kept(x, *args, **options)

    monkeypatch.setattr(cpu_convolution, "_winograd", spy)
    for shape, channels, dtype, pays in (
        ((1, 16, 16), MANY, np.float32, True),
        ((1, 15, 16), MANY, np.float32, False),  # the kernel costs more than it saves
        ((1, 16, 16), MANY - 1, np.float32, False),
        ((1, 16, 16), MANY, jnp.bfloat16, False),  # the sums of a tile would be rounded
    ):
        taken.clear()
        x, kernel, _ = _arrays(shape, channels, MANY, 1, dtype)
        cpu_convolution.convolve_3x3(x, kernel, 1)
        assert bool(taken) == pays


@pytest.mark.parametrize(
    ("channels", "features", "strides"),
    [(1, 16, (1, 2)), (16, 4, (1, 2)), (5, 16, (1, 1)), (4, 33, (1, 1))],
)
def test_few_channels_make_two_pixels_at_once(channels, features, strides):
    x, kernel, _ = _arrays((1, 8, 8), channels, features, 1, np.float32)
    traced = jax.make_jaxpr(cpu_convolution.convolve_3x3, static_argnums=2)(
        x, kernel, 1
    )
    assert f"window_strides={strides}" in str(traced)


def test_bfloat16_is_as_exact_as_the_plain_one():
    arrays = _arrays((2, 16, 16), MANY, MANY, 1, jnp.bfloat16)
    _assert_equal_to_plain([array.astype(jnp.bfloat16) for array in arrays], 1, 2e-2)


def test_in_a_loop_the_convolutions_are_those_that_xla_has_fast_code_for():
    """XLA's CPU compiler brings their layout into order outside of loops only."""

    def step(kernel, batch):
        x, by = batch
        of_input, of_kernel = jax.vjp(
            lambda x, k: cpu_convolution.convolve_3x3(x, k, 1), x, kernel
        )[1](by)
        return kernel - of_kernel, of_input

    x, kernel, by = _arrays((2, 16, 16), 4, 8, 1, np.float32)
    stacked = (jnp.stack([x, x]), jnp.stack([by, by]))
    text = jax.jit(lambda k, b: lax.scan(step, k, b)).lower(kernel, stacked).compile()
    lines = [line for line in text.as_text().splitlines() if " convolution(" in line]
    assert lines
    for line in lines:
        assert "dim_labels=b01f_01io->b01f" in line
        assert "rhs_reversal" not in line
        assert "lhs_dilate" not in line
