"""Reads the network of an nnU-Net plan as options of `unet_jax.models.unet.UNet`."""

from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.errors import InputError

_NETWORKS = {
    "PlainConvUNet": ("n_conv_per_stage", {"block": "plain", "stem": False}),
    "ResidualEncoderUNet": (
        "n_blocks_per_stage",
        {"block": "residual_d", "decoder_block": "plain", "stem": True},
    ),
}
"""Class -> key of the convolutions of its encoder, and what else tells it apart."""

_ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}


def network_options(
    configuration: Mapping[str, Any], *, order: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the options of the U-Net that computes what nnU-Net's network does.

    Args:
        configuration: a configuration of ``plans.json``, as version 2.4 of nnU-Net or
            an earlier one writes it. Its network is a ``PlainConvUNet`` or a
            ``ResidualEncoderUNet`` of dynamic-network-architectures 0.4.
        order: for each axis of our images, the axis of nnU-Net that it is; None for
            the same axes.

    Returns:
        Fields of the network by name, with plain values.

    Raises:
        InputError: the network has a part that ours does not.
    """
    name, given = _architecture(configuration)
    if name not in _NETWORKS:
        raise InputError(
            f"plans.json: the network is {name!r}; expected one of "
            f"{', '.join(_NETWORKS)}. Others cannot be imported."
        )
    stages = int(given["n_stages"])
    key, options = _NETWORKS[name]
    _check_parts(given)
    axes = range(len(given["kernel_sizes"][0]) if order is None else len(order))

    def ordered(sizes: Any) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(int(one[axis]) for axis in order or axes)
            for one in _each(sizes, stages, len(axes))
        )

    strides, kernels = ordered(given["strides"]), ordered(given["kernel_sizes"])
    if any(step != 1 for step in strides[0]):
        raise _other_part("strides", given["strides"], "1 on each axis at first")
    if any(size % 2 == 0 for one in kernels for size in one):
        raise _other_part("kernel_sizes", given["kernel_sizes"], "odd numbers")
    activation = str(given.get("nonlin")).rpartition(".")[2]
    upward = _each(given["n_conv_per_stage_decoder"], stages - 1)
    return {
        **options,
        "features": tuple(map(int, _each(given["features_per_stage"], stages))),
        "kernel_sizes": kernels,
        "strides": strides[1:],
        "convolutions_per_stage": tuple(map(int, _each(given[key], stages))),
        # There the stages of the decoder are counted from the coarsest.
        "decoder_convolutions": tuple(map(int, reversed(upward))),
        "downsample": "centred",
        "norm": "instance",
        "activation": _ACTIVATIONS[activation],
        "dropout": float((given.get("dropout_op_kwargs") or {}).get("p", 0.0)),
        "upsample_bias": bool(given.get("conv_bias", False)),
        "deep_supervision": max(0, stages - 2),
    }


def _architecture(configuration: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the class of a network and its arguments, also of plans before 2.4."""
    if "architecture" in configuration:
        found = configuration["architecture"]
        return found["network_class_name"].rpartition(".")[2], found["arch_kwargs"]
    name = str(configuration.get("UNet_class_name"))
    counts = configuration["n_conv_per_stage_encoder"]
    first, most = (
        configuration[f"{key}_num_features"] for key in ("UNet_base", "unet_max")
    )
    return name, {
        "n_stages": len(counts),
        "features_per_stage": [min(first * 2**i, most) for i in range(len(counts))],
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage": counts,
        "n_blocks_per_stage": counts,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
    }


def _check_parts(given: Mapping[str, Any]) -> None:
    """Refuse norms, activations and blocks that ours does not have."""
    norm = str(given.get("norm_op")).rpartition(".")[2]
    norm_options = given.get("norm_op_kwargs") or {}
    if not norm.startswith("InstanceNorm"):
        raise _other_part("norm_op", norm, "InstanceNorm")
    if norm_options.get("eps", 1e-5) != 1e-5 or not norm_options.get("affine"):
        raise _other_part("norm_op_kwargs", norm_options, "eps 1e-5 and affine")
    activation = str(given.get("nonlin")).rpartition(".")[2]
    slope = (given.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)
    if activation not in _ACTIVATIONS or slope != 0.01:
        raise _other_part(
            "nonlin", activation, "ReLU, or LeakyReLU with a slope of .01"
        )
    if given.get("nonlin_first"):
        raise _other_part("nonlin_first", True, "False")
    if not str(given.get("block") or "BasicBlockD").endswith("BasicBlockD"):
        raise _other_part("block", given["block"], "BasicBlockD")
    if given.get("stem_channels") not in (None, _first(given["features_per_stage"])):
        raise _other_part("stem_channels", given["stem_channels"], "those of stage 1")


def _first(values: Any) -> Any:
    """Return the first of several values, or the one for all."""
    return values[0] if isinstance(values, list | tuple) else values


def _each(values: Any, count: int, axes: int | None = None) -> list[Any]:
    """Return one value for each stage where there is one for all."""
    found = list(values) if isinstance(values, list | tuple) else [values] * count
    if axes is not None:
        found = [
            one if isinstance(one, list | tuple) else [one] * axes for one in found
        ]
    if len(found) != count:
        raise InputError(
            f"plans.json: found {len(found)} entries {values}, expected {count}, one "
            "for each stage; take the plans.json of the folder of the model"
        )
    return found


def _other_part(key: str, found: Any, expected: str) -> InputError:
    """Make the error of a network that has another part."""
    return InputError(
        f"plans.json: {key} of the network is {found!r}; expected {expected}. Such a "
        "network cannot be imported."
    )
