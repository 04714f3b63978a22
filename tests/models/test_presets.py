"""The table of networks, and networks of a user's own module."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from unet_jax.errors import InputError
from unet_jax.models import presets
from unet_jax.models.network import output_shapes, outputs_of, sizes_of
from unet_jax.models.unet import UNet

MODULE = """
from flax import linen as nn


class Point(nn.Module):
    num_classes: int
    depth: int
    width: int = 4

    @nn.compact
    def __call__(self, x, *, train=False, keys=None):
        return nn.Dense(self.num_classes)(nn.Dense(self.width)(x))


def wide(*, num_classes, dtype, **options):
    return Point(num_classes, width=64, depth=1, name=None, **options)


def no_module(*, num_classes):
    return len
"""


@pytest.fixture(scope="module", autouse=True)
def user_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "lab_networks.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.mark.parametrize("name", presets.NETWORKS)
def test_every_row_makes_a_network_that_fulfils_the_protocol(name):
    row = presets.NETWORKS[name]
    options = {"features": (4, 8)} if "features" in row.left_to_data else {}
    network = presets.create_model(name=name, num_classes=3, **options)
    size = sizes_of(network, 2).tiling_size((32, 32))
    outputs = output_shapes(network, size)
    margin = sizes_of(network, 2).margin
    assert outputs.logits.shape == (
        1,
        *(n - 2 * lost for n, lost in zip(size, margin, strict=True)),
        3,
    )
    assert row.about


def test_a_network_of_ones_own_module():
    network = presets.create_model(
        name="lab_networks:Point", num_classes=2, depth=1, width=3
    )
    assert (network.width, network.num_classes) == (3, 2)
    made, _ = network.init_with_output(jax.random.key(0), jnp.ones((1, 5, 4, 1)))
    assert outputs_of(made).logits.shape == (1, 5, 4, 2)
    assert sizes_of(network, 2).margin == (0, 0)
    assert sizes_of(network, 2).multiple == (1, 1)


def test_a_function_of_ones_own_module_takes_its_own_options():
    network = presets.create_model(name="lab_networks:wide", num_classes=2)
    assert network.width == 64


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lab_networks:narrow", {}, "model.name: 'lab_networks:narrow': module"),
        ("lab_networks:no_module", {}, "made builtin_function_or_method, expected a l"),
        ("lab_networks:Point", {}, "network 'lab_networks:Point' needs depth; give"),
        ("lab_networks:Point", {"with": 1}, "has no such option; did you mean 'width'"),
        ("lab_networks:Point", {"dtype": "bfloat16", "depth": 1}, "takes no dtype"),
        ("wnet", {"feature": 1}, r"model\.options\.feature: network 'wnet' has no"),
        ("unet_tiny", {"xyz": 1}, "no such option; It has features, convolutions_per"),
    ],
)
def test_what_cannot_be_made_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        presets.create_model(name=name, num_classes=2, **options)


def test_both_halves_of_a_wnet_have_its_options():
    network = presets.create_model(name="wnet", num_classes=2, norm="batch")
    assert isinstance(network.unet(num_classes=2), UNet)
    assert network.unet(num_classes=2).norm == "batch"
    assert isinstance(network, nn.Module)
