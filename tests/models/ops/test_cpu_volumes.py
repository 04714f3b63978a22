"""The 3-D convolutions of the CPU: XLA's own in value and gradients, however cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.subset import slow_after
from unet_jax.models.ops import cpu_convolution, cpu_planes, cpu_volumes

ONE, SAME = (1, 1, 1), ((1, 1), (1, 1), (1, 1))


def _plain(x, kernel, strides, pads):
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=numbers)


def _arrays(shape, channels, features, window=(3, 3, 3), dtype=np.float64):
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


def _assert_equal_to_plain(x, kernel, strides, pads, tolerance=1e-12):
    found, expected = [], []
    for function, into in (
        (cpu_volumes.convolve_volumes, found),
        (_plain, expected),
    ):
        into += _value_and_gradients(function, x, kernel, strides, pads)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        scale = np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, 0, tolerance)


@pytest.mark.parametrize(
    ("size", "window", "strides", "pads"),
    slow_after(
        6,
        [
            (1, (3, 3, 3), ONE, SAME),
            (10_000, (3, 3, 3), (2, 2, 2), ((1, 1), (0, 1), (1, 1))),
            (30_000, (2, 3, 3), ONE, ((0, 1), (1, 1), (1, 1))),
            (2**30, (3, 3, 3), (2, 1, 1), SAME),
            (10_000, (5, 4, 1), (2, 3, 1), ((2, 2), (1, 2), (0, 0))),
            (1, (1, 3, 3), (1, 2, 2), ((0, 0), (0, 1), (1, 1))),
            (10_000, (3, 3, 3), ONE, SAME),
            (30_000, (3, 3, 3), ONE, ((0, 0), (0, 0), (0, 0))),
            (2**30, (3, 3, 3), ONE, SAME),
            (1, (2, 3, 3), ONE, ((0, 1), (1, 1), (1, 1))),
            (10_000, (1, 3, 3), ONE, ((0, 0), (1, 1), (1, 1))),
            (10_000, (5, 3, 3), ONE, ((2, 2), (1, 1), (1, 1))),
            (1, (3, 3, 3), (2, 2, 2), ((0, 0), (0, 0), (0, 0))),
            (30_000, (3, 3, 3), (2, 2, 2), ((1, 1), (0, 1), (1, 1))),
            (10_000, (3, 3, 3), (2, 1, 1), SAME),
            (10_000, (3, 3, 3), (1, 2, 2), SAME),
            (1, (5, 4, 1), (2, 3, 1), ((2, 2), (1, 2), (0, 0))),
            (10_000, (2, 1, 2), (3, 2, 3), ((0, 1), (0, 0), (1, 0))),
        ],
    ),
)
def test_slabs_of_every_size_make_the_same_volume(
    monkeypatch, size, window, strides, pads
):
    monkeypatch.setattr(cpu_volumes, "SLAB_BYTES", size)
    monkeypatch.setattr(cpu_planes, "PARTS_A_KERNEL", 0)
    with jax.enable_x64(True):
        arrays = _arrays((2, 7, 6, 5), 3, 4, window)
        _assert_equal_to_plain(*arrays, strides, pads)


def test_with_many_channels_too(monkeypatch):
    monkeypatch.setattr(cpu_volumes, "SLAB_BYTES", 1)
    monkeypatch.setattr(cpu_convolution, "WINOGRAD_CHANNELS", 6)
    with jax.enable_x64(True):
        arrays = _arrays((1, 5, 16, 17), 2, 6)
        _assert_equal_to_plain(*arrays, ONE, SAME)


def test_bfloat16_is_summed_over_slabs_in_float32(monkeypatch):
    monkeypatch.setattr(cpu_volumes, "SLAB_BYTES", 1)
    x, kernel = _arrays((1, 64, 4, 4), 1, 1, dtype=jnp.bfloat16)
    _, pull_back = jax.vjp(
        lambda k: cpu_volumes.convolve_volumes(x, k, ONE, SAME), kernel
    )
    (found,) = pull_back(jnp.ones((1, 64, 4, 4, 1), jnp.bfloat16))
    wide = x.astype(np.float32)
    _, pull_back = jax.vjp(
        lambda k: _plain(wide, k, ONE, SAME), kernel.astype(wide.dtype)
    )
    (expected,) = pull_back(jnp.ones((1, 64, 4, 4, 1), wide.dtype))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(wide.dtype), expected, atol=np.abs(expected).max() * 2e-2
    )


def test_a_large_volume_takes_the_memory_of_a_slab():
    """Written out, three copies of the input stand side by side."""
    x, kernel = _arrays((1, 48, 48, 48), 16, 16, dtype=np.float32)

    def memory(size):
        kept = cpu_volumes.SLAB_BYTES
        cpu_volumes.SLAB_BYTES = size
        try:
            compiled = (
                jax.jit(lambda x, k: cpu_volumes.convolve_volumes(x, k, ONE, SAME))
                .lower(x, kernel)
                .compile()
            )
        finally:
            cpu_volumes.SLAB_BYTES = kept
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(cpu_volumes.SLAB_BYTES) + 2 * x.nbytes < memory(2**40)
