"""ONNX graphs give the logits of the networks, for sizes of any kind."""

import datetime
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import onnxruntime
import pytest

from unet_jax.errors import InputError
from unet_jax.export.features import with_features
from unet_jax.export.onnx_network import network_to_onnx
from unet_jax.export.stablehlo import expiry, network_to_stablehlo
from unet_jax.inference.features import make_features
from unet_jax.models.network import (
    Implemented,
    outputs_of,
    sizes_of,
)
from unet_jax.models.presets import create_model
from unet_jax.models.swin_unetr import SwinUNETR
from unet_jax.models.unet import UNet

_small = functools.partial(UNet, num_classes=3, features=(8, 8), norm="none")


def _trained(network, dims, channels=2, size=(8, 8, 8)):
    """Variables in which nothing is 0 or 1, for example no mean of a batch norm."""
    made = jax.jit(network.init)(
        jax.random.key(0), np.zeros((1, *size[:dims], channels))
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


def _expect_equal(network, variables, session, size):
    """Logits are equal to 1e-4 of their scale, and so are labels but for ties."""
    image = np.random.default_rng(1).normal(size=(2, *size, 2)).astype(np.float32)
    (made,) = session.run(["logits"], {"image": image})
    apply = jax.jit(lambda v, x: outputs_of(network.apply(v, x, train=False)).logits)
    expected = np.asarray(apply(variables, image))
    limit = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(made, expected, atol=limit)
    best = np.sort(expected, -1)
    differ = made.argmax(-1) != expected.argmax(-1)
    assert not np.any(differ & (best[..., -1] - best[..., -2] > 2 * limit))


_TRACED = [
    ("attention", 2, "unet", {"features": (4, 4), "attention": True}),
    ("resized", 2, "unet", {"features": (4, 4), "upsample": "resize"}),
    (
        "strided",
        3,
        "unet",
        {
            "features": (4, 4),
            "downsample": "strided",
            "norm": "group",
            "norm_groups": 2,
            "block": "residual",
            "strides": ((1, 2, 2),),
            "upsample": "resize",
        },
    ),
    (
        "deep",
        2,
        "unet",
        {
            "features": (4, 4, 4),
            "deep_supervision": 1,
            "attention": True,
            "norm": "batch",
        },
    ),
    ("valid", 2, "unet_2015", {"features": (4, 4), "dropout": 0.0}),
    ("wnet", 2, "wnet", {"features": (4, 4)}),
    (
        "mednext",
        2,
        "mednext_s",
        {"features": 4, "expansions": (2, 2), "blocks_per_stage": (1, 1)},
    ),
    (
        "mednext",
        3,
        "mednext_b",
        {"features": 4, "expansions": (2, 2), "blocks_per_stage": (1, 1)},
    ),
    (
        "segresnet",
        3,
        "segresnet",
        {"features": 8, "encoder_blocks": (1, 1), "decoder_blocks": (1,)},
    ),
]


@pytest.fixture(name="symbolic")
def _symbolic():
    """Symbolic sizes, which are no `int`, pass the checks of arguments."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("symbolic")
@pytest.mark.parametrize(
    ("dims", "name", "options"),
    [
        pytest.param(
            *one[1:],
            id=f"{one[0]}-{one[1]}",
            marks=[pytest.mark.slow] if one[2] == "mednext_b" else [],
        )
        for one in _TRACED
    ],
)
def test_traced_networks_take_any_size(dims, name, options):
    network = Implemented(create_model(name=name, num_classes=3, **options), "plain")
    sizes = sizes_of(network, dims)
    small = sizes.tiling_size((6, 8, 4)[:dims])
    variables = _trained(network, dims, size=small)
    session = _session(
        network_to_onnx(network, variables, channels=2, spatial_dims=dims)
    )
    # No multiple of the stride where the network pads.
    odd = [
        n + (2 * step if any(sizes.margin) else 1)
        for n, step in zip(small, sizes.multiple, strict=True)
    ]
    for size in (small, tuple(odd)):
        _expect_equal(network, variables, session, size)


@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_swin_takes_the_size_of_its_windows_alone(dims):
    network = Implemented(
        SwinUNETR(
            num_classes=3, features=4, depths=(2, 1), heads=(1, 2), window_size=3
        ),
        "plain",
    )
    size = (16, 11, 8)[:dims]
    variables = _trained(network, dims)
    options = {"channels": 2, "spatial_dims": dims}
    with pytest.raises(InputError, match="writes it for one size"):
        network_to_onnx(network, variables, **options)
    model = network_to_onnx(network, variables, **options, size=size)
    (fixed,) = model.metadata_props
    assert (fixed.key, fixed.value) == ("spatial size", " x ".join(map(str, size)))
    _expect_equal(network, variables, _session(model), size)


class _Sorts(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, *, train=False, keys=None):
        return jnp.sort(nn.Dense(self.num_classes)(x), axis=-1)


def test_an_unknown_primitive_is_named():
    network = _Sorts()
    variables = _trained(network, 2)
    with pytest.raises(InputError, match="uses the primitive 'sort' of jax"):
        network_to_onnx(network, variables, channels=2, spatial_dims=2)
