"""Convolution as oneDNN makes it: XLA's own in value and gradients, also in a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.subset import slow_after
from unet_jax.models.ops import cpu_convolution, cpu_onednn, xla
from unet_jax.runtime import compilation

MANY = cpu_convolution.WINOGRAD_CHANNELS


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Look for oneDNN as a process of one device does; the tests have several."""
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    compilation.onednn_options.cache_clear()
    yield
    compilation.onednn_options.cache_clear()


def _plain(x, kernel, strides, pads):
    numbers = xla.dimension_numbers(x.ndim - 2)
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=numbers)


def _arrays(spatial, channels, features, window, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *spatial, channels))
    kernel = rng.normal(size=(*window, channels, features))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def _value_and_gradients(function, strides, pads):
    def of(x, kernel):
        value, pull_back = jax.vjp(lambda *at: function(*at, strides, pads), x, kernel)
        by = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return [value, *pull_back(by)]

    return of


CASES = [
    ((12, 9), (3, 3), (1, 1), 2, 4),
    ((16, 16), (3, 3), (1, 1), MANY, MANY),  # Winograd's
    ((12, 9), (3, 3), (2, 2), 2, 4),
    ((11, 8), (5, 2), (1, 1), 3, 2),
    ((11, 8), (4, 4), (4, 2), 3, 2),
    ((12, 9), (1, 3), (1, 1), 17, 33),
    ((7, 6, 9), (3, 3, 3), (1, 1, 1), 2, 4),
    ((7, 6, 9), (3, 3, 3), (2, 2, 2), 2, 4),
    ((7, 6, 9), (1, 3, 3), (1, 2, 2), 20, 18),
    ((6, 6, 6), (3, 1, 2), (1, 1, 1), 3, 5),
]


@pytest.mark.parametrize("padding", slow_after(1, ["VALID", "SAME"]))
@pytest.mark.parametrize(("spatial", "window", "strides", *("c", "f")), CASES)
def test_every_window_and_stride_is_xla_s_own(spatial, window, strides, c, f, padding):
    pads = tuple(lax.padtype_to_pads(spatial, window, strides, padding))
    with jax.enable_x64(True):
        arrays = _arrays(spatial, c, f, window, np.float64)
        found, expected = (
            jax.jit(_value_and_gradients(function, strides, pads))(*arrays)
            for function in (cpu_onednn.convolve, _plain)
        )
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, 0, 1e-12 * max(np.abs(other).max(), 1))


@pytest.mark.parametrize(("spatial", "window", "strides", *("c", "f")), CASES)
def test_the_compiled_program_gives_the_same(spatial, window, strides, c, f):
    pads = tuple(lax.padtype_to_pads(spatial, window, strides, "SAME"))
    arrays = _arrays(spatial, c, f, window, np.float32)
    function = _value_and_gradients(cpu_onednn.convolve, strides, pads)

    def looped(x, kernel):
        _, every = lax.scan(lambda _, one: (None, function(x, one)), None, kernel[None])
        return [part[0] for part in every]

    expected = jax.jit(_value_and_gradients(_plain, strides, pads))(*arrays)
    for network in (function, looped):
        found = compilation.jit_network(network)(*arrays)
        for one, other in zip(found, expected, strict=True):
            largest = float(np.abs(other).max())
            np.testing.assert_allclose(one, other, 0, 2e-5 * largest)
