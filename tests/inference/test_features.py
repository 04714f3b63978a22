"""The coarsest and the finest features of any network, averaged over a window."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.inference.features import make_features
from unet_jax.models import presets
from unet_jax.models.network import Implemented, Outputs, sizes_of


class _Hourglass(nn.Module):
    """Halves the grid twice and comes back; names are not in the order of calls."""

    deep: bool = False

    @nn.compact
    def __call__(self, x, *, train=False, keys=None):
        strides = (2,) * (x.ndim - 2)
        fine = nn.Conv(4, strides, name="z_first")(x)
        down = nn.Conv(5, strides, strides, name="down")(fine)
        coarsest = nn.Conv(7, strides, strides, name="coarsest")(down)
        nn.Conv(3, strides, name="beside")(coarsest)  # as coarse, with fewer channels
        up = nn.ConvTranspose(4, strides, strides, name="a_last")(down)
        logits = nn.Conv(2, strides, name="head")(up)
        return Outputs(logits, deep=(down,)) if self.deep else logits


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_coarsest_array_and_the_last_before_the_head_are_averaged(axes, wrapped):
    network = _Hourglass(deep=wrapped)
    if wrapped:
        network = Implemented(network, "plain")
    x = np.random.default_rng(0).normal(size=(2, *[8] * axes, 3)).astype(np.float32)
    variables = network.init(jax.random.key(0), x)
    found = make_features(network)(variables, x)
    _, state = network.apply(variables, x, capture_intermediates=True, mutable=True)
    for name, layer, grid in (("coarse", "coarsest", 2), ("fine", "a_last", 8)):
        made = state["intermediates"][layer]["__call__"][0]
        assert made.shape[1:-1] == (grid,) * axes
        expected = made.mean(axis=tuple(range(1, axes + 1)))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


class _Bare(nn.Module):
    """A network without modules inside."""

    def __call__(self, x, *, train=False, keys=None):
        return jnp.concatenate([x, -x], axis=-1)


def test_a_network_without_modules_has_its_logits():
    x = np.ones((1, 4, 4, 1), np.float32)
    found = make_features(_Bare())({}, x)
    np.testing.assert_allclose([found["coarse"], found["fine"]], [[[1, -1]]] * 2)


@pytest.mark.parametrize("name", presets.NETWORKS)
def test_every_network_has_features(name):
    left = presets.NETWORKS[name].left_to_data
    options = {"features": (4, 8)} if "features" in left else {}
    network = presets.create_model(name=name, num_classes=3, **options)
    size = sizes_of(network, 2).tiling_size((32, 32))
    x = jax.ShapeDtypeStruct((1, *size, 2), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    found = jax.eval_shape(make_features(network), variables, x)
    assert found["coarse"].shape[1] >= 8  # not the logits
    assert found["fine"].shape[1] >= 4
