"""The peer's network of a benchmark, with our side's weights."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.peers.unet import UNet


class Net(NamedTuple):
    """A network and how its data lie.

    Attributes:
        model: with weights.
        turned: what brings arrays ``(batch, *spatial, ...)`` of our side to the place
            where this network, with these weights, gives what ours gives; its own
            inverse.
        packages: whose versions belong to the result.
    """

    model: nn.Module
    turned: Callable[[np.ndarray], np.ndarray]
    packages: tuple[str, ...]


def build(work: Mapping[str, Any], given: Mapping[str, np.ndarray]) -> Net:
    """Build the network of a benchmark.

    A network with strides is nnU-Net's. Where it pads before, ours pads behind, so it
    gets mirrored weights and sees everything mirrored: the same work, equal results.

    Args:
        work: description of the case's work.
        given: arrays that our side wrote.
    """
    if work["network"].get("downsample") == "strided":
        model = _plain_conv_unet(work)
        _load(model, _for_nnunet(given, stages=len(work["network"]["features"])))
        packages = ("torch", "numpy", "dynamic_network_architectures")
        axes = tuple(range(1, 1 + len(work["patch"])))
        return Net(model, lambda x: np.flip(x, axes).copy(), packages)
    network = work["network"]
    model = UNet(
        dims=len(work["patch"]),
        channels=work["channels"],
        classes=work["classes"],
        features=network["features"],
        norm=network["norm"],
        norm_groups=network.get("norm_groups", 8),
    )
    _load(model, _kernels_first(given))
    return Net(model, lambda x: x, ("torch", "numpy"))


def _plain_conv_unet(work: Mapping[str, Any]) -> nn.Module:
    """nnU-Net's network with its own defaults, in 3-D."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    features = work["network"]["features"]
    return PlainConvUNet(
        input_channels=work["channels"],
        n_stages=len(features),
        features_per_stage=features,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=[1] + [2] * (len(features) - 1),
        n_conv_per_stage=2,
        num_classes=work["classes"],
        n_conv_per_stage_decoder=2,
        # A bias before a norm does nothing, and ours has none.
        conv_bias=False,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def _kernels_first(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters in PyTorch's names and axes, under our own modules' names.

    Kernels ``(*window, in, out)`` become ``(out, in, *window)``, those of transposed
    convolutions ``(in, out, *window)``.
    """
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    renamed = {}
    for path, array in given.items():
        kind, _, rest = path.partition("/")
        owner, _, leaf = rest.rpartition("/")
        if kind != "params":
            continue
        if leaf == "kernel":
            window = range(array.ndim - 2)
            ends = (array.ndim - 2, array.ndim - 1)
            ends = ends if "upsample" in owner else ends[::-1]
            array = array.transpose(*ends, *window)
        renamed[f"{owner}/{leaves[leaf]}".replace("/", ".")] = array
    return renamed


def _for_nnunet(
    given: Mapping[str, np.ndarray], *, stages: int
) -> dict[str, np.ndarray]:
    """The same in nnU-Net's names: its decoder counts from the coarsest stage.

    Windows are mirrored, and in the decoder what comes from below stands first.
    """
    renamed = {}
    for name, array in _kernels_first(given).items():
        owner, _, rest = name.partition(".")
        kind, _, number = owner.partition("_")
        place = stages - 2 - int(number or 0)
        part = re.sub(r"(convolution|norm)_(\d)", _conv_or_norm, rest)
        if kind == "decoder" and part == "convs.0.conv.weight":
            skip, below = np.split(array, 2, axis=1)
            array = np.concatenate([below, skip], axis=1)
        if array.ndim > 2:
            array = np.flip(array, tuple(range(2, array.ndim)))
        match kind:
            case "encoder":
                renamed[f"encoder.stages.{number}.0.{part}"] = array
            case "decoder":
                renamed[f"decoder.stages.{place}.{part}"] = array
            case "upsample":
                renamed[f"decoder.transpconvs.{place}.{part}"] = array
            case "head":
                renamed[f"decoder.seg_layers.{place}.{part}"] = array
    return renamed


def _conv_or_norm(found: re.Match[str]) -> str:
    """nnU-Net's name of a convolution or a norm of a stage."""
    return f"convs.{found[2]}.{'conv' if found[1] == 'convolution' else 'norm'}"


def _load(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into parameters of the same names; none may be left over."""
    parameters = dict(model.named_parameters())
    if set(parameters) != set(arrays):
        differing = sorted(set(parameters) ^ set(arrays))
        raise ValueError(f"weights: found {differing} on one side only; expected both")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name])))
