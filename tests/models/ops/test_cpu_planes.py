"""The 2-D convolutions of the CPU: XLA's own in value and gradients, also in a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.subset import slow_after
from unet_jax.models.ops import cpu_convolution, cpu_planes


def _plain(x, kernel, strides, pads):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _arrays(shape, channels, features, window, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*shape, channels))
    kernel = rng.normal(size=(*window, channels, features))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def _value_and_gradients(function, x, kernel, strides, pads):
    @jax.jit
    def run(x, kernel):
        value, pull_back = jax.vjp(lambda *at: function(*at, strides, pads), x, kernel)
        by = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return [value, *pull_back(by)]

    return run(x, kernel)


# Sizes that the strides divide, and that they do not, with both paddings.
@pytest.mark.parametrize(
    ("sizes", "window", "strides", "padding"),
    slow_after(
        6,
        [
            ((12, 9), (3, 3), (1, 1), "SAME"),
            ((7, 10), (3, 3), (2, 2), "VALID"),
            ((12, 9), (5, 2), (2, 3), "SAME"),
            ((5, 6), (4, 4), (4, 2), "VALID"),
            ((7, 10), (2, 1), (3, 4), "SAME"),
            ((5, 6), (3, 3), (1, 2), "SAME"),
            ((5, 6), (3, 3), (1, 1), "VALID"),
            ((12, 9), (3, 3), (2, 2), "SAME"),
            ((5, 6), (3, 3), (2, 2), "SAME"),
            ((7, 10), (3, 3), (1, 2), "VALID"),
            ((5, 6), (5, 2), (2, 3), "VALID"),
            ((7, 10), (4, 4), (4, 2), "SAME"),
            ((12, 9), (1, 1), (2, 2), "SAME"),
            ((7, 10), (1, 1), (2, 2), "VALID"),
            ((12, 9), (2, 1), (3, 4), "VALID"),
            ((7, 10), (1, 3), (1, 1), "SAME"),
            ((5, 6), (1, 3), (1, 1), "VALID"),
        ],
    ),
)
def test_every_window_and_stride_is_xla_s_own(sizes, window, strides, padding):
    with jax.enable_x64(True):
        arrays = _arrays((3, *sizes), 2, 4, window)
        pads = tuple(lax.padtype_to_pads(sizes, window, strides, padding))
        found = _value_and_gradients(cpu_planes.convolve_planes, *arrays, strides, pads)
        expected = _value_and_gradients(_plain, *arrays, strides, pads)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, 0, 1e-12 * max(np.abs(other).max(), 1))


@pytest.mark.parametrize("size", [1, 2_000, 2**30])
def test_the_kernel_s_gradient_is_that_of_all_planes(monkeypatch, size):
    monkeypatch.setattr(cpu_convolution, "BAND_BYTES", size)
    monkeypatch.setattr(cpu_planes, "PARTS_A_KERNEL", 0)
    with jax.enable_x64(True):
        arrays = _arrays((6, 8, 8), 2, 3, (3, 3))
        at = ((2, 2), ((0, 1), (0, 1)))
        found = _value_and_gradients(cpu_planes.convolve_planes, *arrays, *at)
        expected = _value_and_gradients(_plain, *arrays, *at)
    np.testing.assert_allclose(found[2], expected[2], 1e-12)


def test_no_gradient_is_a_convolution_of_an_array_with_gaps():
    """Those are what XLA's CPU compiler is slow at, above all in a loop."""
    x, kernel = _arrays((2, 8, 8), 3, 4, (3, 3), np.float32)

    def both(function):
        at = ((2, 2), ((0, 1), (0, 1)))
        traced = jax.make_jaxpr(lambda x, k: _value_and_gradients(function, x, k, *at))(
            x, kernel
        )
        return "lhs_dilation=(2, 2)" in str(traced)

    assert both(_plain)
    assert not both(cpu_planes.convolve_planes)
