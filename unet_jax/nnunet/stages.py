"""Chooses the stages of a network for a patch, and estimates the memory they need."""

import dataclasses
import math
from collections.abc import Sequence

COARSEST = 4
"""Pixels that the coarsest stage keeps on an axis."""

_FINEST_FEATURES = 32
_MOST_FEATURES = {2: 512, 3: 320}
"""Largest number of channels by the number of axes."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """A network of nnU-Net, and what its planner knows about its memory.

    Attributes:
        gib: memory target in GiB.
        references: estimates (`Preset.values`) that fit into the memory target at the
            reference batch, for 2-D and for 3-D networks.
        covered: largest fraction of the pixels of the data set in one batch.
        residual: residual blocks in the encoder, after a stem.
        blocks: convolutions, or residual blocks, of each stage of the encoder.
        decoder_blocks: convolutions of each stage of the decoder.
    """

    name: str
    gib: float
    references: tuple[float, float]
    covered: float
    residual: bool
    blocks: tuple[int, ...]
    decoder_blocks: int

    def values(
        self,
        patch_size: Sequence[int],
        strides: Sequence[Sequence[int]],
        *,
        num_classes: int,
    ) -> int:
        """Count the values that all convolutions give for one patch.

        Args:
            patch_size: pixels of the input on each axis, a multiple of all strides.
            strides: strides between the stages.
            num_classes: channels of the logits.

        Source: ``compute_conv_feature_map_size`` of dynamic-network-architectures.
        """
        size = tuple(patch_size)
        count = num_classes * math.prod(size)
        widths = features_of(len(strides) + 1, axes=len(size))
        for stage, width in enumerate(widths):
            if stage:
                size = tuple(
                    n // k for n, k in zip(size, strides[stage - 1], strict=True)
                )
            convolutions = self.blocks[stage]
            if self.residual:
                # Two a block, and what a stem gives, or the shortcut of the first one.
                convolutions = 2 * convolutions + 1
            if stage < len(strides):
                convolutions += self.decoder_blocks + 1  # and what is upsampled
            count += convolutions * width * math.prod(size)
        return count


_RESIDUAL = (1, 3, 4, *(6,) * 10)
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("plain", 8, (85e6, 560e6), 0.05, False, (2,) * 14, 2),
        Preset("resenc_m", 8, (135e6, 680e6), 1.0, True, _RESIDUAL, 1),
        Preset("resenc_l", 24, (380e6, 2100e6), 1.0, True, _RESIDUAL, 1),
        Preset("resenc_xl", 40, (560e6, 3600e6), 1.0, True, _RESIDUAL, 1),
    )
}
"""nnU-Net's planners: ``ExperimentPlanner`` and ``nnUNetPlannerResEncM``, L, XL."""


@dataclasses.dataclass(frozen=True)
class Stages:
    """Stages of a network, finest first, and the patch that fits them.

    Attributes:
        patch_size: the patch, rounded up to multiples of the total stride.
        total_stride: pixels of the input for one pixel of the coarsest stage.
        kernel_sizes: kernel size of each stage, one number for each axis.
        strides: strides between the stages, one number for each axis.
    """

    patch_size: tuple[int, ...]
    total_stride: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]


def features_of(stages: int, *, axes: int) -> tuple[int, ...]:
    """Return the channels of each stage: they double, up to a maximum."""
    most = _MOST_FEATURES[axes]
    return tuple(min(most, _FINEST_FEATURES * 2**stage) for stage in range(stages))


def choose_stages(spacing: Sequence[float], patch_size: Sequence[float]) -> Stages:
    """Halve the fine axes of a patch until all axes are short.

    An axis is halved while its pixels are less than twice as far apart as those of the
    finest axis that can be halved, and its stage keeps `COARSEST` pixels. A kernel
    mixes the pixels of an axis from the stage on where they are less than twice as far
    apart as those of the finest axis; that of the coarsest stage mixes all.

    Args:
        spacing: millimetres per pixel on each axis.
        patch_size: wanted size; a median of an even number of cases may lie between two
            numbers of pixels.

    Source: ``get_pool_and_conv_props`` of nnU-Net 2.8.1.
    """
    axes = range(len(spacing))
    steps, sizes = list(spacing), list(patch_size)
    kernel, halvings = [1 for _ in axes], [0 for _ in axes]
    kernels: list[tuple[int, ...]] = []
    strides: list[tuple[int, ...]] = []
    while long := [axis for axis in axes if sizes[axis] >= 2 * COARSEST]:
        finest = min(steps[axis] for axis in long)
        halved = [axis for axis in long if steps[axis] / finest < 2]
        if len(halved) == 1 and sizes[halved[0]] < 3 * COARSEST:
            break
        kernel = [3 if steps[axis] / min(steps) < 2 else kernel[axis] for axis in axes]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            halvings[axis] += 1
            steps[axis] *= 2
            sizes[axis] = math.ceil(sizes[axis] / 2)
    total = tuple(2**count for count in halvings)
    padded = tuple(
        int(size if size % step == 0 else size + step - size % step)
        for size, step in zip(patch_size, total, strict=True)
    )
    return Stages(padded, total, (*kernels, (3,) * len(steps)), tuple(strides))
