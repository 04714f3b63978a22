"""Norms with state, and the parts that choose by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import blocks, ops


def _batch(size, seed=0):
    values = np.random.default_rng(seed).normal(2, 3, (size, 5, 4, 3))
    return jnp.asarray(values, jnp.float32)


def test_running_statistics_move_in_training_and_serve_in_evaluation():
    x = _batch(6)
    norm = blocks.Norm(kind="batch")
    variables = norm.init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0.0)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1.0)

    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0.0, atol=1e-5)
    mean, variance = 0.1 * x.mean((0, 1, 2)), 0.9 + 0.1 * x.var((0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], variance, rtol=1e-5)

    other = _batch(2, seed=1)
    y = norm.apply({**variables, **updated}, other, train=False)
    expected = (other - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["cpu", "plain"])
def test_batch_norm_on_four_devices_equals_one_on_the_whole_batch(implementation):
    x, weights = _batch(8), _batch(8, seed=1)
    one = blocks.Norm(kind="batch")
    four = one.clone(axis_name="device")
    variables = one.init(jax.random.key(0), x, train=False)

    def loss(params, x, weights, *, norm):
        with ops.use_implementation(implementation):
            y, updated = norm.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
        return jnp.sum(jnp.square(y) * weights), (y, updated)

    def step(params, x, weights, *, norm):
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            params, x, weights, norm=norm
        )

    def device_step(params, x, weights):
        (value, (y, updated)), (params, x) = step(params, x, weights, norm=four)
        value, params = jax.lax.psum((value, params), "device")
        return (value, (y, updated)), (params, x)

    params = variables["params"]
    (value, (y, updated)), (gradient, x_gradient) = jax.jit(
        lambda *args: step(*args, norm=one)
    )(params, x, weights)
    split = [array.reshape(4, 2, *array.shape[1:]) for array in (x, weights)]
    mapped = jax.pmap(device_step, axis_name="device", in_axes=(None, 0, 0))
    (value_4, (y_4, updated_4)), (gradient_4, x_gradient_4) = mapped(params, *split)

    np.testing.assert_allclose(value_4[0], value, rtol=1e-5)
    np.testing.assert_allclose(y_4.reshape(y.shape), y, rtol=0, atol=1e-5)
    for found, expected in zip(
        jax.tree.leaves((updated_4, gradient_4)),
        jax.tree.leaves((updated, gradient)),
        strict=True,
    ):
        for replica in found:
            np.testing.assert_allclose(
                replica, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
            )
    x_gradient_4 = np.asarray(x_gradient_4).reshape(x.shape)
    tolerance = 1e-5 * np.abs(x_gradient).max()
    np.testing.assert_allclose(x_gradient_4, x_gradient, rtol=0, atol=tolerance)


def test_unknown_names_are_refused():
    x = jnp.ones((1, 2, 2, 1))
    with pytest.raises(ValueError, match="Unknown norm 'layer'; expected one of"):
        blocks.Norm(kind="layer").init(jax.random.key(0), x, train=False)
    upsample = blocks.Upsample(features=1, factors=(2, 2), kind="nearest")
    with pytest.raises(ValueError, match="Unknown upsample 'nearest'; expected one"):
        upsample.init(jax.random.key(0), x)


def test_initial_weights_keep_the_variance_of_he():
    """The kernel of a transposed convolution reads one tap for each output pixel."""
    x = jnp.ones((1, 2, 2, 64))
    upsample = blocks.Upsample(features=64, factors=(2, 2), kind="transposed")
    kernel = upsample.init(jax.random.key(0), x)["params"]["kernel"]
    np.testing.assert_allclose(np.var(kernel), 2 / 64, rtol=0.05)
    convolution = blocks.Convolution(features=64, kernel_size=(3, 3))
    kernel = convolution.init(jax.random.key(0), x)["params"]["kernel"]
    np.testing.assert_allclose(np.var(kernel), 2 / (9 * 64), rtol=0.05)
    # Cut at two standard deviations of the normal distribution before the cut.
    assert np.abs(kernel).max() <= 2 * np.sqrt(2 / (9 * 64)) / 0.8796
