"""Networks against MONAI 1.6.1 and dynamic-network-architectures 0.4.4 (nnU-Net).

`benchmarks/golden_networks.py` made the numbers.
"""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import golden_networks
from unet_jax.models import mednext, presets, segresnet, swin_unetr, unet
from unet_jax.models.network import outputs_of

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())
FAST = ("mednext_s3_2d", "swin_unetr_2d", "segresnet_2d", "residual_encoder_2d")
EXPANSIONS = {"s": (2, 2, 2, 2, 2), "b": (2, 3, 4, 4, 4)}


def _network(case):
    classes = golden_networks.CLASSES
    match case["network"]:
        case "mednext":
            return mednext.MedNeXt(
                classes,
                kernel_size=case["kernel_size"],
                expansions=EXPANSIONS[case["variant"]],
                deep_supervision=4,
            )
        case "swin_unetr":
            return swin_unetr.SwinUNETR(classes, features=case["features"])
        case "segresnet":
            return segresnet.SegResNet(classes, features=case["features"])
        case "plain_conv" | "residual_encoder" as name:
            options = {
                "features": case["features"],
                "kernel_sizes": case["kernel_sizes"],
                "strides": case["strides"],
                "convolutions_per_stage": case["counts"],
                "deep_supervision": len(case["features"]) - 2,
                "upsample_bias": case["biases"],
            }
            if name == "residual_encoder":
                return presets.ResidualEncoder(classes, **options)
            return unet.UNet(
                classes, downsample="centred", decoder_convolutions=2, **options
            )


def _count(shapes):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in golden_networks.CASES
    ],
)
def test_parameters_and_outputs_are_those_of_the_peer(name, formula_params, apply):
    case, expected = golden_networks.CASES[name], GOLDEN["cases"][name]
    network = _network(case)
    image = jnp.asarray(golden_networks.image(case["shape"]))
    params = formula_params(network, image)
    if not case.get("biases"):  # ours has none that a norm cancels
        assert _count(params) == expected["parameters"]
    implementation = "plain" if name.endswith("2d") else "cpu"
    made = outputs_of(
        apply(network, params, image, implementation=implementation, train=True)
    )
    outputs = [golden_networks.stored(y) for y in (made.logits, *made.deep)]
    assert len(outputs) == len(expected["outputs"])
    for output, theirs in zip(outputs, expected["outputs"], strict=True):
        assert np.std(theirs) > 0.05  # else anything would be near to it
        np.testing.assert_allclose(output, theirs, atol=1e-4)


@pytest.mark.parametrize("name", golden_networks.PUBLISHED)
@pytest.mark.parametrize("axes", [2, 3])
def test_published_sizes_have_as_many_parameters_as_the_peer(name, axes):
    if name == "residual_encoder":  # the row itself, without a word of the case
        network = presets.create_model(name=name, num_classes=golden_networks.CLASSES)
    else:
        network = _network(golden_networks.PUBLISHED[name])
    image = jax.ShapeDtypeStruct((1, *(64,) * axes, 1), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    assert _count(shapes) == GOLDEN["published_parameters"][f"{name}_{axes}d"]
