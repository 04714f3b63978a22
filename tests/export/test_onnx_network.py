"""ONNX graphs give the logits of the networks, for sizes of any kind."""

import datetime
import functools

import jax
import jaxtyping
import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from unet_jax.errors import InputError  # noqa: E402
from unet_jax.export.features import with_features  # noqa: E402
from unet_jax.export.onnx_network import network_to_onnx  # noqa: E402
from unet_jax.export.stablehlo import expiry, network_to_stablehlo  # noqa: E402
from unet_jax.inference.features import make_features  # noqa: E402
from unet_jax.models.network import Implemented  # noqa: E402
from unet_jax.models.segresnet import SegResNet  # noqa: E402
from unet_jax.models.unet import UNet  # noqa: E402

_small = functools.partial(UNet, num_classes=3, features=(8, 8), norm="none")


def _trained(network, dims, channels=2):
    """Variables in which nothing is 0 or 1, for example no mean of a batch norm."""
    made = jax.jit(network.init)(
        jax.random.key(0), np.zeros((1, *(8,) * dims, channels))
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: (np.abs(x) + rng.uniform(0.1, 0.3, x.shape)).astype(np.float32), made
    )


def _session(model):
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(
    ("dims", "options"),
    [
        (2, {}),
        (2, {"norm": "instance", "upsample_bias": True}),
        (2, {"norm": "group", "activation": "relu"}),
        (2, {"norm": "batch"}),
        (2, {"block": "residual", "decoder_block": "plain", "norm": "batch"}),
        (3, {"strides": ((1, 2, 2),), "kernel_sizes": ((1, 3, 3), 3)}),
        (
            3,
            {
                "block": "residual_d",
                "stem": True,
                "downsample": "centred",
                "norm": "instance",
            },
        ),
    ],
)
def test_logits_are_those_of_the_network(dims, options):
    network = Implemented(_small(**options), "plain")
    variables = _trained(network, dims)
    session = _session(
        network_to_onnx(network, variables, channels=2, spatial_dims=dims)
    )
    apply = jax.jit(functools.partial(network.apply, train=False))
    size = (7, 12, 5)[:dims]  # no multiple of the stride
    image = np.random.default_rng(1).normal(size=(2, *size, 2)).astype(np.float32)
    (made,) = session.run(["logits"], {"image": image})
    expected = np.asarray(apply(variables, image))
    np.testing.assert_allclose(made, expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "expected_shape"),
    [
        ({}, "(b, 2*n0, 2*n1, 2)"),
        ({"features": (8, 8, 8, 8), "strides": (2, (2, 1), 1)}, "(b, 4*n0, 2*n1, 2)"),
        ({"padding": "VALID"}, "(b, 32, 64, 2)"),
    ],
)
def test_stablehlo_has_the_logits(options, expected_shape, monkeypatch):
    # The checks of shapes in tests know no symbols.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    network, size = Implemented(_small(**options), "plain"), (32, 64)
    image = np.random.default_rng(1).normal(size=(3, *size, 2)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), image)
    program, shape = network_to_stablehlo(network, variables, channels=2, size=size)
    assert shape == expected_shape
    made = jax.export.deserialize(bytearray(program)).call(image)
    expected = network.apply(variables, image)
    np.testing.assert_allclose(made, expected, atol=1e-5 * np.abs(expected).max())


def test_stablehlo_says_when_it_expires():
    text = expiry("(b, 2*n0, 2*n1, 2)", datetime.date(2030, 1, 1))
    assert "until 2030-07-02 (six months)" in text


def test_features_are_found_by_value():
    network = Implemented(_small(), "plain")
    variables = _trained(network, 2)
    model = network_to_onnx(network, variables, channels=2, spatial_dims=2)
    windows = np.random.default_rng(1).normal(size=(2, 8, 8, 2)).astype(np.float32)
    wanted = {
        k: np.asarray(v) for k, v in make_features(network)(variables, windows).items()
    }
    featured = with_features(model, windows, wanted)
    made = _session(featured).run(["coarse", "fine"], {"image": windows})
    for one, name in zip(made, ("coarse", "fine"), strict=True):
        np.testing.assert_allclose(one, wanted[name], rtol=1e-4)
    other = {"coarse": 2 * wanted["coarse"]}
    assert with_features(model, windows, other) is None


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (SegResNet(num_classes=2), "the network is a SegResNet"),
        (_small(attention=True), "the network has attention=True"),
        (_small(padding="VALID"), "the network has padding='VALID'"),
    ],
)
def test_other_networks_are_refused(network, message):
    with pytest.raises(InputError, match=message):
        network_to_onnx(network, {}, channels=1, spatial_dims=2)
