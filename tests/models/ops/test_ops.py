"""Each operation: known values, and the same function in every implementation."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.subset import slow_after
from unet_jax.models import ops


@pytest.fixture(params=ops.IMPLEMENTATIONS)
def implementation(request):
    """The test runs in each implementation."""
    with ops.use_implementation(request.param):
        yield


def _values(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _assert_implementations_agree(function, *arrays, single):
    """Values and gradients in float64; ``single``: in float32 too."""
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5))[: 1 + single]:
        with jax.enable_x64(True):
            results = [
                _value_and_gradients(function, implementation, arrays, dtype)
                for implementation in ops.IMPLEMENTATIONS
            ]
            for *others, expected in zip(*results, strict=True):
                scale = np.abs(expected).max()
                for found in others:
                    assert found.dtype == expected.dtype == dtype
                    np.testing.assert_allclose(
                        found / scale, expected / scale, 0, tolerance
                    )


def _value_and_gradients(function, implementation, arrays, dtype):
    arrays = [jnp.asarray(array, dtype) for array in arrays]

    @jax.jit
    def run(*arrays):
        with ops.use_implementation(implementation):
            value, pull_back = jax.vjp(function, *arrays)
        return value, *pull_back(jnp.asarray(_values(value.shape, seed=9), dtype))

    return [np.asarray(array) for array in run(*arrays)]


CONVOLUTIONS = [
    ((7, 9), (3, 3), (1, 1), "SAME"),
    ((7, 8), (5, 2), (2, 3), "VALID"),
    ((5, 4, 7), (3, 3, 3), (1, 1, 1), "SAME"),
    ((7, 6, 5), (3, 1, 3), (2, 1, 2), "SAME"),
    ((6, 7), (3, 3), (2, 2), "CENTRED"),
    ((3, 2, 5), (1, 1, 1), (1, 1, 1), "SAME"),
    ((6, 5), (1, 3), (2, 1), "SAME"),
    ((5, 3), (1, 1), (1, 1), "SAME"),
    ((4, 5, 6), (1, 3, 3), (1, 1, 1), "SAME"),
    ((6, 5, 7), (2, 3, 3), (2, 2, 1), "VALID"),
    ((8, 6), (1, 5), (2, 3), "CENTRED"),
    ((4, 6, 7), (1, 3, 3), (1, 2, 2), "CENTRED"),
]


@pytest.mark.parametrize(
    ("spatial", "window", "strides", "padding"), slow_after(6, CONVOLUTIONS)
)
def test_convolution_implementations_agree(spatial, window, strides, padding):
    def convolve(x, kernel):
        return ops.convolve(x, kernel, strides=strides, padding=padding)

    _assert_implementations_agree(
        convolve,
        _values((2, *spatial, 3)),
        _values((*window, 3, 4), seed=1),
        single=window == (3, 3, 3),
    )


@pytest.mark.parametrize("spatial", [(7, 4), (4, 5, 3)])
@pytest.mark.usefixtures("implementation")
def test_convolution_is_the_correlation_of_every_channel(spatial):
    x = _values((2, *spatial, 3)).astype(np.float32)
    kernel = _values((*(3 for _ in spatial), 3, 2), seed=1).astype(np.float32)
    expected = np.zeros((2, *spatial, 2))
    for sample, channel, feature in np.ndindex(2, 3, 2):
        expected[sample, ..., feature] += ndimage.correlate(
            x[sample, ..., channel], kernel[..., channel, feature], mode="constant"
        )
    found = ops.convolve(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("implementation")
def test_a_centred_convolution_with_strides_takes_every_nth_of_one_without():
    x = jnp.asarray(_values((2, 6, 9, 3)), jnp.float32)
    kernel = jnp.asarray(_values((3, 5, 3, 2), seed=1), jnp.float32)
    found = ops.convolve(x, kernel, strides=(2, 3), padding="CENTRED")
    np.testing.assert_allclose(found, ops.convolve(x, kernel)[:, ::2, ::3], atol=1e-5)
    behind = ops.convolve(x[:, :, ::3], kernel[:, 2:3], strides=(2, 1))
    centred = ops.convolve(x[:, :, ::3], kernel[:, 2:3], strides=(2, 1),
                           padding="CENTRED")  # fmt: skip
    assert np.abs(behind - centred).max() > 0.1


@pytest.mark.parametrize(
    ("spatial", "window"), [((6, 8), (2, 4)), ((5, 6, 4), (1, 2, 2))]
)
def test_average_pooling_implementations_agree(spatial, window):
    def pool(x):
        return ops.average_pool(x, window=window)

    _assert_implementations_agree(
        pool, _values((2, *spatial, 3)), single=len(spatial) == 3
    )


@pytest.mark.usefixtures("implementation")
def test_average_pooling_takes_the_mean():
    x = np.arange(24.0, dtype=np.float32).reshape(1, 4, 6, 1)
    found = ops.average_pool(jnp.asarray(x), window=(2, 3))
    np.testing.assert_allclose(found[0, ..., 0], [[4, 7], [16, 19]], rtol=1e-6)


@pytest.mark.parametrize(
    ("spatial", "window"),
    [
        ((6, 8), (2, 2)),
        ((7, 9), (2, 4)),
        ((5, 6, 7), (1, 2, 3)),
        ((4, 4, 4), (2, 2, 2)),
    ],
)
def test_pooling_implementations_agree(spatial, window):
    def pool(x):
        return ops.max_pool(x, window=window)

    _assert_implementations_agree(pool, _values((2, *spatial, 3)), single=False)
    # Few different values: most windows hold their largest one several times.
    _assert_implementations_agree(
        pool, _values((2, *spatial, 3)).round(), single=len(spatial) == 3
    )


@pytest.mark.usefixtures("implementation")
def test_pooling_takes_the_largest_and_keeps_nan():
    x = np.arange(24.0, dtype=np.float32).reshape(1, 4, 6, 1)
    x[0, 3, 4, 0] = np.nan
    found = ops.max_pool(jnp.asarray(x), window=(2, 3))
    np.testing.assert_array_equal(found[0, ..., 0], [[8, 11], [20, np.nan]])


@pytest.mark.parametrize(
    ("spatial", "strides"), [((3, 5), (2, 2)), ((3, 4), (1, 3)), ((2, 3, 3), (1, 2, 2))]
)
def test_up_convolution_implementations_agree(spatial, strides):
    _assert_implementations_agree(
        ops.up_convolve,
        _values((2, *spatial, 3)),
        _values((*strides, 3, 4), seed=1),
        single=len(spatial) == 3,
    )


@pytest.mark.usefixtures("implementation")
def test_up_convolution_makes_a_block_of_each_pixel():
    x = np.array([[1.0, 10.0], [100.0, 1000.0]], np.float32)[None, ..., None]
    kernel = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)[..., None, None]
    found = ops.up_convolve(jnp.asarray(x), jnp.asarray(kernel))
    expected = np.kron(x[0, ..., 0], kernel[..., 0, 0])
    np.testing.assert_array_equal(found[0, ..., 0], expected)


@pytest.mark.parametrize(
    ("spatial", "factors"), [((3, 5), (2, 2)), ((4, 1), (3, 4)), ((2, 3, 5), (1, 2, 3))]
)
def test_resize_implementations_agree(spatial, factors):
    def resize(x):
        return ops.resize_up(x, factors=factors)

    _assert_implementations_agree(
        resize, _values((2, *spatial, 3)), single=len(spatial) == 3
    )


@pytest.mark.usefixtures("implementation")
def test_resize_places_pixel_centres_at_half_pixels():
    x = np.array([0.0, 4.0, 8.0], np.float32).reshape(1, 1, 3, 1)
    found = ops.resize_up(jnp.asarray(x), factors=(2, 2))
    expected = np.tile([0.0, 1.0, 3.0, 5.0, 7.0, 8.0], (2, 1))
    np.testing.assert_allclose(found[0, ..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm_implementations_agree(spatial, groups):
    def norm(x, scale, bias):
        return ops.group_norm(x, scale, bias, groups=groups)

    _assert_implementations_agree(
        norm,
        3 + 2 * _values((2, *spatial, 6)),
        _values((6,), 1),
        _values((6,), 2),
        single=groups == 3,
    )


@pytest.mark.usefixtures("implementation")
def test_group_norm_standardises_each_sample_and_group():
    x = (5 + 3 * _values((2, 5, 7, 6))).astype(np.float32)
    scale, bias = jnp.full(6, 2.0), jnp.full(6, -1.0)
    y = ops.group_norm(jnp.asarray(x), scale, bias, groups=3)
    grouped = np.asarray(y).reshape(2, 35, 3, 2)
    np.testing.assert_allclose(grouped.mean((1, 3)), -1.0, atol=1e-5)
    np.testing.assert_allclose(grouped.std((1, 3)), 2.0, rtol=1e-4)


@pytest.mark.usefixtures("implementation")
def test_norm_of_a_large_mean_keeps_its_digits():
    x = (1e4 + _values((2, 16, 17, 3))).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((1, 2), keepdims=True)) / wide.std(
        (1, 2), keepdims=True
    )
    found = ops.group_norm(
        jnp.asarray(x),
        jnp.ones(3),
        jnp.zeros(3),
        groups=3,
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)


@pytest.mark.usefixtures("implementation")
def test_norm_of_a_constant_is_the_bias_with_finite_gradients():
    def norm(x):
        return ops.group_norm(x, jnp.ones(2), jnp.full(2, 0.5), groups=2)

    x = jnp.full((1, 1, 3, 2), 7.0)
    value, pull_back = jax.vjp(norm, x)
    np.testing.assert_allclose(value, 0.5)
    assert np.isfinite(pull_back(jnp.ones_like(x))[0]).all()


def test_group_norm_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        ops.group_norm(jnp.ones((1, 2, 2, 6)), jnp.ones(6), jnp.zeros(6), groups=4)


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 5)])
def test_batch_norm_implementations_agree(spatial):
    def norm(x, scale, bias):
        mean, variance = ops.batch_moments(x)
        moments = {"mean": mean, "variance": variance}
        return ops.standardise(x, **moments, scale=scale, bias=bias)

    _assert_implementations_agree(
        norm,
        3 + 2 * _values((3, *spatial, 4)),
        _values((4,), 1),
        _values((4,), 2),
        single=len(spatial) == 3,
    )


@pytest.mark.usefixtures("implementation")
def test_batch_moments_are_those_of_the_whole_batch():
    x = (1 + 2 * _values((3, 5, 4, 2))).astype(np.float32)
    mean, variance = ops.batch_moments(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.usefixtures("implementation")
def test_norms_of_bfloat16_use_float32_statistics():
    x = jnp.asarray(3 + _values((1, 33, 31, 4)), jnp.bfloat16)
    mean, _ = ops.batch_moments(x)
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.float32(x).mean((0, 1, 2)), rtol=1e-5)
    y = ops.group_norm(x, jnp.ones(4), jnp.zeros(4), groups=2)
    assert y.dtype == jnp.bfloat16


def test_the_implementation_is_the_platforms_unless_given(monkeypatch):
    assert ops.current_implementation() == "cpu"
    with ops.use_implementation("plain"):
        assert ops.current_implementation() == "plain"
        with ops.use_implementation(None):
            assert ops.current_implementation() == "plain"
        with ops.use_implementation("tpu"):
            assert ops.current_implementation() == "tpu"
        assert ops.current_implementation() == "plain"
    for platform, expected in (("tpu", "tpu"), ("gpu", "plain")):
        monkeypatch.setattr(jax, "default_backend", lambda name=platform: name)
        assert ops.current_implementation() == expected
        with ops.use_implementation("cpu"):
            assert ops.current_implementation() == "cpu"
    with (
        pytest.raises(ValueError, match="Unknown implementation 'gpu'; expected one"),
        ops.use_implementation("gpu"),
    ):
        raise AssertionError


def test_an_implementation_ends_with_an_error_and_stays_in_its_thread():
    with pytest.raises(KeyError), ops.use_implementation("tpu"):
        raise KeyError
    assert ops.current_implementation() == "cpu"
    with ops.use_implementation("tpu"), ThreadPoolExecutor(1) as other:
        assert other.submit(ops.current_implementation).result() == "cpu"
