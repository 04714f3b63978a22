"""The same U-Net as a PyTorch user would write it, and its weights from ours."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

PACKAGES = ("torch", "numpy")

MODES = ("eager", "channels_last", "compile", "compile_channels_last")
"""Ways to run a network; the fastest counts."""


class UNet(nn.Module):
    """Stages named like ours: encoder_i, upsample_i, decoder_i, head."""

    def __init__(
        self,
        *,
        dims: int,
        channels: int,
        classes: int,
        features: Sequence[int],
        norm: str,
        norm_groups: int = 8,
    ) -> None:
        """Build plain stages of two convolutions, pooled and upsampled by 2."""
        super().__init__()
        self.depth = len(features)
        self.pool = (nn.MaxPool2d, nn.MaxPool3d)[dims - 2](2)
        convolution = (nn.Conv2d, nn.Conv3d)[dims - 2]
        up = (nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 2]

        def normed(width: int) -> nn.Module:
            if norm == "group":
                return nn.GroupNorm(norm_groups, width)
            if norm == "batch":
                return (nn.BatchNorm2d, nn.BatchNorm3d)[dims - 2](width)
            kind = (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2]
            return kind(width, affine=True)

        def stage(before: int, width: int) -> nn.Sequential:
            layers: dict[str, nn.Module] = {}
            for index, inputs in enumerate((before, width)):
                layers[f"convolution_{index}"] = convolution(
                    inputs, width, 3, padding=1, bias=False
                )
                layers[f"norm_{index}"] = normed(width)
                layers[f"activation_{index}"] = nn.LeakyReLU(0.01, inplace=True)
            named = nn.Sequential()
            for name, layer in layers.items():
                named.add_module(name, layer)
            return named

        for index, width in enumerate(features):
            before = features[index - 1] if index else channels
            self.add_module(f"encoder_{index}", stage(before, width))
        for index, width in enumerate(features[:-1]):
            below = features[index + 1]
            self.add_module(f"upsample_{index}", up(below, width, 2, 2, bias=False))
            self.add_module(f"decoder_{index}", stage(2 * width, width))
        self.head = convolution(features[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, channels first."""
        skips = []
        for index in range(self.depth):
            x = self.get_submodule(f"encoder_{index}")(self.pool(x) if index else x)
            skips.append(x)
        for index in reversed(range(self.depth - 1)):
            x = self.get_submodule(f"upsample_{index}")(x)
            x = torch.cat([skips[index], x], dim=1)
            x = self.get_submodule(f"decoder_{index}")(x)
        return self.head(x)


def create(work: Mapping[str, Any]) -> UNet:
    """Build the network of a benchmark.

    Args:
        work: ``network``, ``classes``, ``channels`` and ``patch``.
    """
    network = work["network"]
    return UNet(
        dims=len(work["patch"]),
        channels=work["channels"],
        classes=work["classes"],
        features=network["features"],
        norm=network["norm"],
        norm_groups=network.get("norm_groups", 8),
    )


def load(model: nn.Module, given: Mapping[str, np.ndarray]) -> None:
    """Take our side's weights; every parameter must be there.

    Args:
        model: modules named like ours.
        given: arrays named ``params/encoder_0/convolution_0/kernel`` and the like.
    """
    left = dict(model.named_parameters())
    for path, array in given.items():
        kind, _, rest = path.partition("/")
        owner, _, leaf = rest.rpartition("/")
        if kind != "params":
            continue
        name = {"kernel": "weight", "scale": "weight", "bias": "bias"}[leaf]
        if leaf == "kernel":
            # Ours are (*window, in, out); here a transposed one is (in, out, *window).
            upward = "upsample" in owner
            axes = range(array.ndim - 2)
            ends = (array.ndim - 2, array.ndim - 1)
            array = array.transpose(*(ends if upward else ends[::-1]), *axes)
        parameter = left.pop(f"{owner}.{name}".replace("/", "."))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(array)))
    if left:
        raise ValueError(f"no weights for {sorted(left)}; expected some for each")


def begin(mode: str, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Use the cores that this process has, and read what our side handed over.

    Args:
        mode: one of ``MODES``.
        folder: shared with ours.
    """
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {MODES}")
    use_cores()
    with np.load(folder / "given.npz") as given:
        return dict(given)


def use_cores() -> None:
    """Let PyTorch use the cores that this process may use, which it does not ask."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def layout(mode: str, dims: int) -> torch.memory_format:
    """Memory layout of a mode.

    Args:
        mode: one of ``MODES``.
        dims: 2 or 3.
    """
    if not mode.endswith("channels_last"):
        return torch.contiguous_format
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def compiled(model: nn.Module, mode: str) -> nn.Module:
    """Compile a network if the mode says so.

    Args:
        model: the network.
        mode: one of ``MODES``.
    """
    return torch.compile(model) if mode.startswith("compile") else model


def tensor(array: np.ndarray, memory_format: torch.memory_format) -> torch.Tensor:
    """Turn a channels-last array into a channels-first tensor of some layout.

    Args:
        array: ``(batch, *spatial, channels)``.
        memory_format: from `layout`.
    """
    moved = np.ascontiguousarray(np.moveaxis(array, -1, 1))
    return torch.from_numpy(moved).contiguous(memory_format=memory_format)


def parameters(model: nn.Module) -> int:
    """Count what is learnt.

    Args:
        model: the network.
    """
    return sum(parameter.numel() for parameter in model.parameters())
