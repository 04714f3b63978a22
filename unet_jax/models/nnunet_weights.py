"""Brings the weights of an nnU-Net into the parameters of our U-Net, and back.

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
    weights: Mapping[str, Any],
    *,
    order: Sequence[int] | None = None,
    regions: bool = False,
) -> dict[str, Any]:
    """Return the parameters of a `unet_jax.models.unet.UNet`.

    Biases of convolutions that a norm follows are left out: it cancels them.

    Args:
        weights: ``network_weights`` of a checkpoint, arrays by name.
        order: for each axis of our images, the axis of nnU-Net that it is; None for
            the same axes.
        regions: whether the channels of the scores are regions; ours have one more,
            the first, which is no region and 0.

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
        if regions and _is_head(path):
            space = [(0, 0)] * (array.ndim - 1)
            found[path] = np.pad(found[path], [*space, (1, 0)])
    return unflatten_dict(found, sep="/")


def weights_from(
    params: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    order: Sequence[int] | None = None,
    regions: bool = False,
) -> dict[str, np.ndarray]:
    """Return the weights of nnU-Net's network, the inverse of `params_from`.

    Args:
        params: parameters of a U-Net.
        options: its options, as `architecture.network_options` gives them. A coarse
            head that it does not have is made of zeros.
        order, regions: those of `params_from`.

    Returns:
        Arrays by the names of its ``state_dict``, some of them under several names.
        Biases that a norm follows are 0.

    Raises:
        InputError: a parameter has no place there.
    """
    flat = flatten_dict(dict(params), sep="/")
    features, strides = options["features"], options["strides"]
    axes = flat["head/kernel"].ndim - 2
    for level in range(1, len(features) - 1):
        shape = (*(1,) * axes, features[level], len(flat["head/bias"]))
        flat.setdefault(f"head_{level}/kernel", np.zeros(shape, np.float32))
        flat.setdefault(f"head_{level}/bias", np.zeros(shape[-1], np.float32))
    found: dict[str, np.ndarray] = {}
    for path, array in flat.items():
        if regions and _is_head(path):
            array = array[..., 1:]
        theirs = _as_theirs(path, np.asarray(array, np.float32), order)
        zeros = None
        if options["upsample_bias"] and re.search(r"/convolution_[\d_]+/kernel$", path):
            zeros = np.zeros(theirs.shape[0], np.float32)
        for name in _theirs(path, strides):
            found[name] = theirs
            if zeros is not None:
                found[name.removesuffix("weight") + "bias"] = zeros
    return found


def _is_head(path: str) -> bool:
    """Return whether a parameter has an axis of classes, the last."""
    return re.match(r"head(_\d+)?/", path) is not None


def _as_theirs(path: str, array: np.ndarray, order: Sequence[int] | None) -> np.ndarray:
    """Return an array with nnU-Net's order of axes and input channels."""
    if not path.endswith("/kernel"):
        return array
    if re.match(r"decoder_\d+/convolution_0/", path):
        array = np.roll(array, array.shape[-2] // 2, axis=-2)
    axes = range(array.ndim - 2) if order is None else np.argsort(order)
    last = (-2, -1) if path.startswith("upsample_") else (-1, -2)
    return np.ascontiguousarray(array.transpose(*last, *axes))


def _theirs(path: str, strides: Sequence[Sequence[int]]) -> list[str]:
    """Return the names of a parameter in nnU-Net, by its path here.

    >>> _theirs("head_1/bias", ((2, 2), (2, 2), (2, 2)))
    ['decoder.seg_layers.1.bias']
    """
    levels = len(strides)
    room, _, rest = path.partition("/")
    module, _, kind = rest.rpartition("/")
    side, _, number = room.partition("_")
    kind, level = "bias" if kind == "bias" else "weight", int(number or 0)
    match side:
        case "head":
            return [f"decoder.seg_layers.{levels - 1 - level}.{kind}"]
        case "upsample":
            return [f"decoder.transpconvs.{levels - 1 - level}.{kind}"]
        case "stem":
            start = "encoder.stem.convs"
        case "encoder":
            start = f"encoder.stages.{level}"
        case "decoder":
            start = f"decoder.stages.{levels - 1 - level}.convs"
        case _:
            raise InputError(f"{path}: has no place in a network of nnU-Net")
    norm = module.startswith("norm")
    block, _, part = module.partition("_")[2].partition("_")
    if side == "encoder" and part == "":
        start = f"{start}.0.convs.{block}"
    elif side == "encoder" and part == "skip":
        # Where the size changes, it is pooled first.
        pooled = level > 0 and block == "0" and max(strides[level - 1]) > 1
        start = f"{start}.blocks.{block}.skip.{int(pooled)}"
    elif side == "encoder":
        start = f"{start}.blocks.{block}.conv{int(part) + 1}"
    else:
        start = f"{start}.{block}"
    names = [
        f"{start}.{'norm' if norm else 'conv'}.{kind}",
        f"{start}.all_modules.{int(norm)}.{kind}",
    ]
    if side in ("encoder", "stem"):
        names += [f"decoder.{name}" for name in names]
    return names


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
