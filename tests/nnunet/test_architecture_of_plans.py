"""The network of a plan becomes options of our U-Net, or is refused in one line."""

import copy

import pytest

from unet_jax.errors import InputError
from unet_jax.nnunet.architecture import network_options

NEW = {
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        "PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [32, 64, 128],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [2, 2, 3],
            "n_conv_per_stage_decoder": [1, 2],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
}
OLD = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "unet_max_num_features": 320,
    "n_conv_per_stage_encoder": [2, 2, 3],
    "n_conv_per_stage_decoder": [1, 2],
    "num_pool_per_axis": [1, 2, 2],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
}


@pytest.mark.parametrize("configuration", [NEW, OLD])
def test_plans_of_both_forms_give_the_same_options(configuration):
    assert network_options(configuration, order=(2, 1, 0)) == {
        "block": "plain",
        "stem": False,
        "features": (32, 64, 128),
        "kernel_sizes": ((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        "strides": ((2, 2, 1), (2, 2, 2)),
        "convolutions_per_stage": (2, 2, 3),
        "decoder_convolutions": (2, 1),
        "downsample": "centred",
        "norm": "instance",
        "activation": "leaky_relu",
        "dropout": 0.0,
        "upsample_bias": True,
        "deep_supervision": 1,
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("norm_op", "torch.nn.BatchNorm3d", "norm_op of the network is 'BatchNorm3d'"),
        ("norm_op_kwargs", {"eps": 1e-3, "affine": True}, "norm_op_kwargs"),
        ("nonlin", "torch.nn.ELU", "nonlin of the network is 'ELU'"),
        ("nonlin_kwargs", {"negative_slope": 0.2}, "slope"),
        ("nonlin_first", True, "nonlin_first"),
        ("block", "dynamic_network_architectures.BottleneckD", "BottleneckD"),
        ("stem_channels", 16, "stem_channels"),
        ("strides", [[2, 2, 2], [1, 2, 2], [2, 2, 2]], "strides"),
        ("kernel_sizes", [[2, 2, 2], [3, 3, 3], [3, 3, 3]], "odd"),
        ("features_per_stage", [32, 64], "2 entries .* expected 3"),
    ],
)
def test_parts_that_ours_lacks_are_refused(key, value, message):
    configuration = copy.deepcopy(NEW)
    configuration["architecture"]["arch_kwargs"][key] = value
    with pytest.raises(InputError, match=message):
        network_options(configuration)


def test_other_networks_are_refused():
    with pytest.raises(InputError, match="the network is 'Primus'; expected one of"):
        network_options(
            {"architecture": {"network_class_name": "a.Primus", "arch_kwargs": {}}}
        )
