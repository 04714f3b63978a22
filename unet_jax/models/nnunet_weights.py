"""Brings the weights of an nnU-Net into the parameters of our U-Net.

The names are those of dynamic-network-architectures 0.4, PlainConvUNet and
ResidualEncoderUNet; `unet_jax.nnunet.architecture` gives the options of our network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from unet_jax.errors import InputError

_NAMES: tuple[tuple[str, str | Callable[..., str]], ...] = (
    (r"encoder\.stem\.convs\.0\.", "stem/0_"),
    (r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.", r"encoder_\1/\2_"),
    (
        r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv(\d)\.",
        lambda stage, block, index: f"encoder_{stage}/{block}_{int(index) - 1}_",
    ),
    (r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.\d\.", r"encoder_\1/\2_skip_"),
    (r"decoder\.stages\.(\d+)\.convs\.(\d+)\.", r"decoder_<\1>/\2_"),
    (r"decoder\.transpconvs\.(\d+)\.", r"upsample_<\1>/"),
    (r"decoder\.seg_layers\.(\d+)\.", r"head_<\1>/"),
)
"""Start of a name there -> ours; ``<n>`` is a stage counted from the coarsest."""

_TWICE = ("decoder.encoder.", ".all_modules.")
"""Parts of names under which PyTorch saves an array once more."""


def params_from(
    weights: Mapping[str, Any], *, order: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the parameters of a `unet_jax.models.unet.UNet`.

    Biases of convolutions that a norm follows are left out: it cancels them.

    Args:
        weights: ``network_weights`` of a checkpoint, arrays by name.
        order: for each axis of our images, the axis of nnU-Net that it is; None for
            the same axes.

    Returns:
        Nested dicts of float32 arrays, named as ours.

    Raises:
        InputError: a name is none of nnU-Net's networks, or is no array.
    """
    found = {}
    levels = 1 + max(
        (int(n) for name in weights for n in re.findall(r"seg_layers\.(\d+)", name)),
        default=-1,
    )
    for full_name, array in weights.items():
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", full_name)
        if any(part in name for part in _TWICE):
            continue
        path = _ours(name, levels)
        if path is None or not isinstance(array, np.ndarray):
            raise InputError(
                f"network_weights: {full_name} is no weight of a PlainConvUNet or "
                "ResidualEncoderUNet; expected one of those networks"
            )
        if re.search(r"/convolution_\w+/bias$", path):
            continue
        found[path] = _as_ours(path, array, order)
    return unflatten_dict(found, sep="/")


def check_params(params: Any, network: nn.Module, image_shape: Sequence[int]) -> None:
    """Refuse parameters that a network does not have, or lack some of its own.

    Args:
        params: what `params_from` returned.
        network: the network of the same plan.
        image_shape: ``(*spatial, channels)`` of an input.

    Raises:
        InputError: a name or a shape differs.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    expected = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)
    here = flatten_dict(expected["params"], sep="/")
    there = flatten_dict(params, sep="/")
    for name in sorted(here.keys() | there.keys()):
        shapes = [
            str(tuple(one[name].shape)) if name in one else "missing"
            for one in (there, here)
        ]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"network_weights: {name} is {shapes[0]} in the checkpoint, expected "
                f"{shapes[1]}; take plans.json, dataset.json and weights of one model"
            )


def _ours(name: str, levels: int) -> str | None:
    """Return our path of a weight, by its name in nnU-Net; None if it has none.

    >>> _ours("encoder.stages.1.0.convs.0.conv.weight", 3)
    'encoder_1/convolution_0/kernel'
    >>> _ours("decoder.seg_layers.2.bias", 3), _ours("decoder.seg_layers.0.bias", 3)
    ('head/bias', 'head_2/bias')
    """
    for pattern, replacement in _NAMES:
        match = re.match(pattern, name)
        if match is None:
            continue
        rest = name[match.end() :]
        if isinstance(replacement, str):
            start = match.expand(replacement)
        else:
            start = replacement(*match.groups())
        start = re.sub(r"<(\d+)>", lambda m: str(levels - 1 - int(m[1])), start)
        start = re.sub(r"^head_0/", "head/", start)
        room, _, place = start.partition("/")
        match place, rest:
            case "", "weight" | "bias":
                return f"{room}/{'kernel' if rest == 'weight' else 'bias'}"
            case _, "conv.weight" | "conv.bias":
                kind = "kernel" if rest == "conv.weight" else "bias"
                return f"{room}/convolution_{place[:-1]}/{kind}"
            case _, "norm.weight" | "norm.bias":
                kind = "scale" if rest == "norm.weight" else "bias"
                return f"{room}/norm_{place[:-1]}/{kind}"
    return None


def _as_ours(path: str, array: np.ndarray, order: Sequence[int] | None) -> np.ndarray:
    """Return an array with our order of axes and input channels."""
    array = np.asarray(array, np.float32)
    if not path.endswith("/kernel"):
        return array
    axes = range(array.ndim - 2) if order is None else order
    # A transposed convolution has its inputs first, any other its outputs.
    last = (0, 1) if path.startswith("upsample_") else (1, 0)
    array = array.transpose(*(2 + axis for axis in axes), *last)
    if re.match(r"decoder_\d+/convolution_0/", path):
        # Ours reads the skip first, nnU-Net what comes from below.
        array = np.roll(array, array.shape[-2] // 2, axis=-2)
    return np.ascontiguousarray(array)
