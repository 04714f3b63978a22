"""The same U-Net as a PyTorch user would write it."""

from collections.abc import Sequence

import torch
from torch import nn


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
