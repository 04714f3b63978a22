"""Golden numbers of the networks of MONAI and nnU-Net, for weights by a formula.

    python -m benchmarks.golden_networks > tests/models/golden.json

needs the extra ``bench``, einops, and timm for dynamic-network-architectures 0.4.4. The
tests call the formulas from here, and need none of them: torch, MONAI and nnU-Net's
networks are imported where the numbers are made alone.
"""

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

CLASSES = 3
VALUES = 120
"""Most values of each output that are stored."""


def _thin(axes: int, size: int) -> tuple[int, ...]:
    """A kernel or stride of volumes that leaves the first axis alone."""
    return (1, size, size)[-axes:]


CASES: dict[str, dict[str, Any]] = {
    f"mednext_{variant}{kernel}_{axes}d": {
        "network": "mednext",
        "variant": variant,
        "kernel_size": kernel,
        "shape": {2: (2, 32, 48, 2), 3: (1, 32, 16, 48, 1)}[axes],
    }
    for variant in ("s", "b")
    for kernel in (3, 5)
    for axes in (2, 3)
} | {
    # The first grids need padding and shifts, the last are smaller than a window.
    "swin_unetr_2d": {"network": "swin_unetr", "features": 24, "shape": (2, 64, 96, 2)},
    "swin_unetr_3d": {
        "network": "swin_unetr",
        "features": 24,
        "shape": (1, 32, 64, 32, 1),
    },
    "segresnet_2d": {"network": "segresnet", "features": 16, "shape": (2, 32, 48, 2)},
    "segresnet_3d": {
        "network": "segresnet",
        "features": 16,
        "shape": (1, 16, 24, 32, 1),
    },
    # The planes of the first stages lie far apart, as in most of nnU-Net's plans.
    **{
        f"{network}{'_biases' * biases}_{axes}d": {
            "network": network,
            "features": (8, 12, 16, 16),
            "kernel_sizes": (_thin(axes, 3), *((3,) * axes,) * 3),
            "strides": (_thin(axes, 2), *((2,) * axes,) * 2),
            "counts": counts,
            "biases": biases,
            "shape": {2: (2, 32, 48, 2), 3: (1, 8, 32, 16, 1)}[axes],
        }
        for network, counts in (
            ("plain_conv", (2, 2, 2, 2)),
            ("residual_encoder", (1, 2, 3, 2)),
        )
        for axes, biases in ((2, False), (3, False), (2, True))
    },
}
"""Network and shape of the image, channels last, of each case."""

PUBLISHED = {
    "swin_unetr": {"network": "swin_unetr", "features": 48},
    "segresnet": {"network": "segresnet", "features": 32},
    "residual_encoder": {
        "network": "residual_encoder",
        "features": (32, 64, 128, 256, 320, 320),
        "kernel_sizes": 3,
        "strides": (2, 2, 2, 2, 2),
        "counts": (1, 3, 4, 6, 6, 6),
        "biases": False,
    },
}
"""Networks of the size in their papers, of which the parameters are only counted."""


def weights(path: str, shape: Sequence[int]) -> np.ndarray:
    """Return the weights of one parameter.

    Args:
        path: its place in our tree of parameters, as ``"encoder_0_0/norm/scale"``.
        shape: its shape in our tree.

    Returns:
        float32: kernels that keep the variance, scales about 1, biases about 0.
    """
    values = _uniform(zlib.crc32(path.encode()), math.prod(shape)).reshape(shape)
    match path.rsplit("/", maxsplit=1)[-1]:
        case "kernel":
            values = values * np.sqrt(3 / math.prod(shape[:-1]))
        case "scale":
            values = 1 + 0.3 * values
        case _:
            values = 0.3 * values
    return values.astype(np.float32)


def image(shape: Sequence[int]) -> np.ndarray:
    """Return the image of a case.

    Args:
        shape: its shape, channels last.

    Returns:
        float32 values in [-2, 2).
    """
    return (2 * _uniform(1, math.prod(shape)).reshape(shape)).astype(np.float32)


def stored(output: np.ndarray) -> list[float]:
    """Return the values of an output that are stored: every n-th one.

    Args:
        output: logits, channels last.
    """
    flat = np.asarray(output, np.float64).ravel()
    # An odd step, so that every class is met.
    step = max(1, flat.size // VALUES) | 1
    return [float(f"{value:.6g}") for value in flat[::step]]


def _uniform(seed: int, count: int) -> np.ndarray:
    """Values in [-1, 1) by whole numbers alone, so that every machine has the same."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1


Names = tuple[tuple[str, str | Callable[..., str]], ...]

_NNUNET: Names = (
    (r"encoder\.stem\.", "stem/"),
    (r"encoder\.stages\.(\d)\.blocks\.(\d)\.", lambda i, j: f"encoder_{i}/{j}_"),
    (r"encoder\.stages\.(\d)\.0\.", lambda i: f"encoder_{i}/"),
    (r"decoder\.stages\.(\d)\.", lambda i: f"decoder_{2 - i}/"),
    (r"decoder\.transpconvs\.(\d)", lambda i: f"upsample_{2 - i}"),
    (r"decoder\.seg_layers\.2", "head"),
    (r"decoder\.seg_layers\.(\d)", lambda i: f"head_{2 - i}"),
    (r"convs\.(\d)\.", lambda i: f"{i}_"),
    (r"conv(\d)\.", lambda i: f"{i - 1}_"),
    (r"skip\.\d\.", "skip_"),
    (r"/([^/]*)_conv$", lambda place: f"/convolution_{place}"),
    (r"/([^/]*)_norm$", lambda place: f"/norm_{place}"),
)

# Parts of the name of a module elsewhere, and what they are in our tree: a function of
# the numbers in them. The stages of a decoder are counted there from the coarsest.
NAMES: dict[str, Names] = {
    "plain_conv": _NNUNET,
    "residual_encoder": _NNUNET,
    "mednext": (
        (r"stem", "stem"),
        (r"enc_stages\.(\d)\.(\d)\.", lambda i, j: f"encoder_{i}_{j}/"),
        (r"down_blocks\.(\d)\.", lambda i: f"down_{i}/"),
        (r"bottleneck\.(\d)\.", lambda i: f"bottleneck_4_{i}/"),
        (r"up_blocks\.(\d)\.", lambda i: f"up_{3 - i}/"),
        (r"dec_stages\.(\d)\.(\d)\.", lambda i, j: f"decoder_{3 - i}_{j}/"),
        (r"out_0\.conv_out", "head"),
        (r"out_blocks\.(\d)\.conv_out", lambda i: f"head_{4 - i}"),
        (r"conv1", ""),
        (r"conv2", "expand"),
        (r"conv3", "compress"),
        (r"res_conv", "resample"),
    ),
    "swin_unetr": (
        (r"swinViT\.patch_embed\.proj", "embedding"),
        (r"swinViT\.layers(\d)\.0\.blocks\.(\d)\.", lambda i, j: f"stage_{i - 1}_{j}/"),
        (r"swinViT\.layers(\d)\.0\.downsample\.", lambda i: f"merge_{i - 1}/"),
        (r"norm1", "norm_0"),
        (r"norm2", "norm_1"),
        (r"attn\.qkv", "attention/query_key_value"),
        (r"attn\.proj", "attention/projection"),
        (r"attn$", "attention"),
        (r"mlp\.linear1", "expand"),
        (r"mlp\.linear2", "compress"),
        (r"encoder10\.layer\.", "encoder_5/"),
        (r"encoder(\d)\.layer\.", lambda i: f"encoder_{i - 1}/"),
        (r"decoder(\d)\.transp_conv\.conv", lambda i: f"upsample_{i - 1}"),
        (r"decoder(\d)\.conv_block\.", lambda i: f"decoder_{i - 1}/"),
        (r"conv1\.conv", "convolution_0"),
        (r"conv2\.conv", "convolution_1"),
        (r"conv3\.conv", "skip"),
        (r"out\.conv\.conv", "head"),
    ),
    "segresnet": (
        (r"convInit\.conv", "stem"),
        (r"down_layers\.(\d)\.0\.conv", lambda i: f"down_{i}"),
        (r"down_layers\.(\d)\.(\d)\.", lambda i, j: f"encoder_{i}_{j - 1}/"),
        (r"up_samples\.(\d)\.0\.conv", lambda i: f"upsample_{2 - i}"),
        (r"up_layers\.(\d)\.(\d)\.", lambda i, j: f"decoder_{2 - i}_{j}/"),
        (r"norm(\d)", lambda i: f"norm_{i - 1}"),
        (r"conv(\d)\.conv", lambda i: f"convolution_{i - 1}"),
        (r"conv_final\.0", "norm"),
        (r"conv_final\.2\.conv", "head"),
    ),
}


def main() -> None:
    """Print the numbers of every case as JSON."""
    import importlib.metadata

    import monai
    import torch

    torch.set_grad_enabled(False)
    result = {
        "made_by": {
            "monai": monai.__version__,
            "torch": torch.__version__,
            "dynamic-network-architectures": importlib.metadata.version(
                "dynamic-network-architectures"
            ),
        },
        "cases": {name: _numbers(case) for name, case in CASES.items()},
        "published_parameters": {
            f"{name}_{axes}d": _count(_network(case, channels=1, axes=axes))
            for name, case in PUBLISHED.items()
            for axes in (2, 3)
        },
        "upkern": {f"{axes}d": _resized_kernel(axes) for axes in (2, 3)},
    }
    print(json.dumps(result))


def _numbers(case: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter count and the outputs of one case."""
    import torch

    *spatial, channels = case["shape"][1:]
    network = _network(case, channels=channels, axes=len(spatial))
    _fill(network, case["network"])
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image(case["shape"]), -1, 1)))
    # In training alone there are the outputs of deep supervision; nothing else differs.
    outputs = network.train()(x)
    if not isinstance(outputs, tuple | list):
        outputs = (outputs,)
    return {
        "parameters": _count(network),
        "outputs": [stored(output.movedim(1, -1).numpy()) for output in outputs],
    }


def _network(case: Mapping[str, Any], *, channels: int, axes: int) -> Any:
    """The peer's network of a case."""
    from monai.networks import nets

    options = {"spatial_dims": axes, "in_channels": channels, "out_channels": CLASSES}
    match case["network"]:
        case "mednext":
            return nets.mednext.create_mednext(
                case["variant"],
                kernel_size=case["kernel_size"],
                deep_supervision=True,
                **options,
            )
        case "swin_unetr":
            return nets.SwinUNETR(feature_size=case["features"], **options)
        case "segresnet":
            return nets.SegResNet(init_filters=case["features"], **options)
        case "plain_conv" | "residual_encoder":
            return _nnunet(case, channels=channels, axes=axes)
        case name:
            raise ValueError(f"Unknown network {name!r}")


def _nnunet(case: Mapping[str, Any], *, channels: int, axes: int) -> Any:
    """nnU-Net's network of a case, with biases as in its plans, or without."""
    from dynamic_network_architectures.architectures import unet
    from torch import nn

    stages = len(case["features"])
    options = {
        "input_channels": channels,
        "n_stages": stages,
        "features_per_stage": case["features"],
        "conv_op": {2: nn.Conv2d, 3: nn.Conv3d}[axes],
        "kernel_sizes": case["kernel_sizes"],
        "strides": (1, *case["strides"]),
        "num_classes": CLASSES,
        "conv_bias": case["biases"],
        "norm_op": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[axes],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "deep_supervision": True,
    }
    if case["network"] == "plain_conv":
        return unet.PlainConvUNet(
            n_conv_per_stage=case["counts"], n_conv_per_stage_decoder=2, **options
        )
    return unet.ResidualEncoderUNet(
        n_blocks_per_stage=case["counts"], n_conv_per_stage_decoder=1, **options
    )


def _count(network: Any) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _resized_kernel(axes: int) -> list[list[float]]:
    """Kernels of two channels, resized from 3 to 5 and 7 as in MedNeXt's UpKern."""
    import torch

    kernel = weights("kernel", (3,) * axes + (1, 2))
    kernel = torch.from_numpy(
        np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
    )
    mode = {2: "bilinear", 3: "trilinear"}[axes]
    return [
        stored(
            torch.nn.functional.interpolate(kernel, size=(size,) * axes, mode=mode)
            .movedim((0, 1), (-1, -2))
            .numpy()
        )
        for size in (5, 7)
    ]


def _fill(network: Any, name: str) -> None:
    """Give all parameters the weights of the formula."""
    import torch

    for module_name, module in network.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            path, order = _ours(module_name, module, kind, parameter.ndim, name)
            values = weights(path, [parameter.shape[axis] for axis in order])
            if NAMES[name] is _NNUNET and _reads_skip(path):
                # Ours reads the skip first, nnU-Net what comes from below.
                values = np.roll(values, values.shape[-2] // 2, axis=-2)
            values = np.ascontiguousarray(np.transpose(values, np.argsort(order)))
            parameter.copy_(torch.from_numpy(values))


def _ours(
    module_name: str, module: Any, kind: str, rank: int, name: str
) -> tuple[str, tuple[int, ...]]:
    """The path of a parameter in our tree, and its axes in the order of ours."""
    from torch import nn

    path = module_name
    for pattern, replacement in NAMES[name]:
        path = re.sub(pattern, _replacing(replacement), path)
    order = tuple(range(rank))
    if kind == "weight":
        kind = "kernel" if rank > 1 else "scale"
        transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        first = (0, 1) if transposed and module.groups == 1 else (1, 0)
        if rank > 1:
            order = (*range(2, rank), *first)
    kind = kind.removesuffix("_table")
    return (f"{path}/{kind}".replace("//", "/")), order


def _reads_skip(path: str) -> bool:
    """Whether this is the kernel that reads a skip."""
    return re.fullmatch(r"decoder_\d/convolution_0/kernel", path) is not None


def _replacing(replacement: str | Callable[..., str]) -> Any:
    """The replacement as `re.sub` takes it."""
    if isinstance(replacement, str):
        return replacement
    return lambda match: replacement(
        *(int(one) if one.isdigit() else one for one in match.groups())
    )


if __name__ == "__main__":
    main()
