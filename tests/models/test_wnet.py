"""Two U-Nets in a row, of which the second sees clusters alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.models.presets import create_model
from unet_jax.models.unet import UNet


def _wnet(**options):
    return create_model(
        name="wnet", num_classes=3, features=(4, 6), norm="instance", **options
    )


def _count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 13, 10, 1), (1, 6, 7, 5, 2)])
def test_clusters_for_every_pixel_and_the_image_again(shape):
    network = _wnet()
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    output = network.apply(variables, x)
    assert output.logits.shape == (*shape[:-1], 3)
    assert output.reconstruction.shape == shape
    trained, _ = network.apply(variables, x, train=True, mutable=["batch_stats"])
    assert trained.reconstruction.shape == shape


def test_its_halves_are_the_projects_unets():
    network, x = _wnet(), jnp.ones((1, 8, 8, 2)) * jnp.arange(8.0)[:, None, None]
    params = jax.jit(network.init)(jax.random.key(0), x)["params"]
    assert set(params) == {"encoder", "decoder"}
    encoder = UNet(num_classes=3, features=(4, 6))
    decoder = UNet(num_classes=2, features=(4, 6))
    logits = encoder.apply({"params": params["encoder"]}, x)
    made = decoder.apply({"params": params["decoder"]}, jax.nn.softmax(logits))
    output = network.apply({"params": params}, x)
    np.testing.assert_allclose(output.logits, logits, rtol=1e-6)
    np.testing.assert_allclose(output.reconstruction, made, rtol=1e-5, atol=1e-6)
    alone = encoder.init(jax.random.key(0), x)["params"]
    behind = decoder.init(jax.random.key(0), logits)["params"]
    assert _count(params) == _count(alone) + _count(behind)


def test_the_decoder_sees_the_clusters_alone():
    network, x = _wnet(), jnp.ones((1, 8, 8, 1)) * jnp.arange(8.0)[:, None, None]
    params = jax.jit(network.init)(jax.random.key(0), x)["params"]
    # An encoder without weights has equal clusters: nothing of the image is left.
    params["encoder"] = jax.tree.map(jnp.zeros_like, params["encoder"])
    made = [
        network.apply({"params": params}, image).reconstruction for image in (x, 7 - x)
    ]
    np.testing.assert_array_equal(*made)


def test_dropout_of_the_halves_differs_and_depends_on_the_keys():
    network = _wnet(dropout=0.5)
    x = jnp.ones((2, 8, 8, 1)) * jnp.arange(8.0)[:, None, None]
    variables = jax.jit(network.init)(jax.random.key(0), x)

    def output(seed):
        keys = jax.random.split(jax.random.key(seed), 2)
        made, _ = network.apply(
            variables, x, train=True, keys=keys, mutable=["batch_stats"]
        )
        return made

    np.testing.assert_array_equal(output(0).reconstruction, output(0).reconstruction)
    assert np.abs(output(0).logits - output(1).logits).max() > 0


@pytest.mark.parametrize("options", [{"padding": "VALID"}, {"deep_supervision": 1}])
def test_what_cannot_make_the_whole_image_again_is_refused(options):
    network = create_model(
        name="wnet", num_classes=2, features=(4, 6, 8), norm="instance", **options
    )
    with pytest.raises(ValueError, match="A W-Net needs padding 'SAME' and deep_super"):
        jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
