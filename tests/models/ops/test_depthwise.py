"""Depthwise convolutions: every implementation against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models import ops


def _random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _by_loops(x, kernel, stride):
    """The definition: each output pixel, each tap."""
    window = kernel.shape[:-2]
    out = np.zeros((x.shape[0], *(-(-n // stride) for n in x.shape[1:-1]), x.shape[-1]))
    for place in itertools.product(*map(range, out.shape[1:-1])):
        for tap in itertools.product(*map(range, window)):
            source = [
                stride * at + index - size // 2
                for at, index, size in zip(place, tap, window, strict=True)
            ]
            if all(0 <= s < n for s, n in zip(source, x.shape[1:-1], strict=True)):
                out[:, *place] += x[:, *source] * kernel[*tap, 0]
    return out


def _up_by_loops(x, kernel):
    """The definition: each input pixel adds the kernel around twice its place."""
    window = kernel.shape[:-2]
    out = np.zeros((x.shape[0], *(2 * n - 1 for n in x.shape[1:-1]), x.shape[-1]))
    for place in itertools.product(*map(range, x.shape[1:-1])):
        for tap in itertools.product(*map(range, window)):
            target = [
                2 * at + index - size // 2
                for at, index, size in zip(place, tap, window, strict=True)
            ]
            if all(0 <= t < n for t, n in zip(target, out.shape[1:-1], strict=True)):
                out[:, *target] += x[:, *place] * kernel[*tap, 0]
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [(3, 3), (5, 3), (3, 3, 3), (5, 5, 3)])
def test_convolution_is_that_of_loops(window, stride):
    x = _random(2, *(6, 4, 4)[: len(window)], 3)
    kernel = _random(*window, 1, 3, seed=1)
    expected = _by_loops(np.asarray(x), np.asarray(kernel), stride)
    for implementation in ("plain", "cpu"):
        with ops.use_implementation(implementation):
            found = ops.depthwise_convolve(x, kernel, stride=stride)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("window", [(3, 3), (7, 5), (3, 3, 3), (5, 5, 3)])
def test_up_convolution_is_that_of_loops(window):
    x = _random(2, *(4, 3, 3)[: len(window)], 3)
    kernel = _random(*window, 1, 3, seed=1)
    expected = _up_by_loops(np.asarray(x), np.asarray(kernel))
    for implementation in ("plain", "cpu"):
        with ops.use_implementation(implementation):
            found = ops.depthwise_up_convolve(x, kernel)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("window", [(3, 3), (5, 5), (5, 5, 3)])
@pytest.mark.parametrize("kind", ["same", "down", "up"])
def test_gradients_of_both_implementations_agree(window, kind):
    x = _random(2, *(6, 4, 4)[: len(window)], 3)
    kernel = _random(*window, 1, 3, seed=1)

    def loss(implementation, x, kernel):
        with ops.use_implementation(implementation):
            match kind:
                case "up":
                    y = ops.depthwise_up_convolve(x, kernel)
                case _:
                    stride = 2 if kind == "down" else 1
                    y = ops.depthwise_convolve(x, kernel, stride=stride)
        return jnp.sum(jnp.sin(y))

    plain, ours = (
        jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)(implementation, x, kernel)
        for implementation in ("plain", "cpu")
    )
    for theirs, found in zip(plain, ours, strict=True):
        np.testing.assert_allclose(found, theirs, atol=2e-5)
