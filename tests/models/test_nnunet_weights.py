"""Networks with the weights of nnU-Net's give nnU-Net's logits.

`benchmarks/golden_nnunet.py` made the files with nnunetv2 2.8.1.
"""

import pathlib

import numpy as np
import pytest

from unet_jax.errors import InputError
from unet_jax.models.network import outputs_of
from unet_jax.models.nnunet_weights import check_params, params_from, weights_from
from unet_jax.models.presets import create_model
from unet_jax.models.pytorch.read import read_torch_file
from unet_jax.nnunet.architecture import network_options

NETWORKS = pathlib.Path(__file__).parents[1] / "nnunet" / "networks"
REVERSED = {2: (1, 0), 3: (2, 1, 0)}


def _network(saved, order=None, **changes):
    options = network_options(saved, order=order) | changes
    return create_model(name="unet", num_classes=3, **options)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "residual_2d",
        "plain_2d",
        "plain_3d",
        "residual_3d",
    ],
)
def test_logits_are_those_of_nnunet_in_any_order_of_the_axes(name, reverse, apply):
    saved = read_torch_file(NETWORKS / f"{name}.pth")
    axes = saved["image"].ndim - 2
    order = REVERSED[axes] if reverse else None
    turn = (0, *(2 + axis for axis in order or range(axes)), 1)
    image = saved["image"].transpose(turn)
    network = _network(saved, order)
    params = params_from(saved["network_weights"], order=order)
    check_params(params, network, image.shape[1:])
    made = outputs_of(apply(network, params, image, implementation="plain", train=True))
    outputs = (made.logits, *made.deep)
    assert len(outputs) == len(saved["logits"]) == 3
    for ours, theirs in zip(outputs, saved["logits"], strict=True):
        assert np.std(theirs) > 0.1  # else anything would be near to it
        np.testing.assert_allclose(ours, theirs.transpose(turn), atol=1e-4)


def test_without_deep_supervision_the_finest_logits_alone_are_made(apply):
    saved = read_torch_file(NETWORKS / "residual_2d.pth")
    params = params_from(saved["network_weights"])
    image = saved["image"].transpose(0, 2, 3, 1)
    made = apply(_network(saved), params, image, implementation="plain", train=False)
    np.testing.assert_allclose(
        made, saved["logits"][0].transpose(0, 2, 3, 1), atol=1e-4
    )


@pytest.mark.parametrize("name", ["plain_2d", "plain_3d", "residual_2d", "residual_3d"])
def test_weights_go_back_to_the_names_and_axes_that_they_came_from(name):
    saved = read_torch_file(NETWORKS / f"{name}.pth")
    order = REVERSED[saved["image"].ndim - 2]
    options = network_options(saved, order=order)
    params = params_from(saved["network_weights"], order=order)
    found = weights_from(params, options, order=order)
    kept = {
        key: array
        for key, array in found.items()
        if "all_modules" not in key and not key.startswith("decoder.encoder")
    }
    assert kept.keys() == saved["network_weights"].keys()
    for key, array in saved["network_weights"].items():
        cancelled = key.endswith("conv.bias")
        np.testing.assert_array_equal(kept[key], 0 * array if cancelled else array)
    twice = "decoder.encoder.stages.1.0.convs.0.all_modules.0.weight"
    if name.startswith("plain"):
        assert found[twice] is found["encoder.stages.1.0.convs.0.conv.weight"]


def test_a_head_without_weights_is_zero():
    saved = read_torch_file(NETWORKS / "residual_2d.pth")
    params = params_from(saved["network_weights"])
    del params["head_2"]
    found = weights_from(params, network_options(saved))
    assert not found["decoder.seg_layers.0.weight"].any()
    assert found["decoder.seg_layers.0.weight"].shape == (3, 4, 1, 1)


def test_names_and_shapes_that_do_not_fit_are_refused():
    saved = read_torch_file(NETWORKS / "residual_2d.pth")
    weights = saved["network_weights"]
    with pytest.raises(InputError, match=r"network_weights: blocks\.0\.weight is no"):
        params_from({**weights, "blocks.0.weight": np.zeros(3)})
    params = params_from({f"module.{name}": one for name, one in weights.items()})
    with pytest.raises(InputError, match=r"is \(3, 3, 4, 2\) in .* \(3, 3, 6, 3\)"):
        check_params(params, _network(saved, features=(3, 3, 4, 4)), (16, 16, 2))
    del weights["encoder.stem.convs.0.conv.weight"]
    with pytest.raises(InputError, match="stem/convolution_0/kernel is missing"):
        check_params(params_from(weights), _network(saved), (16, 16, 2))
