"""Plans a data set as nnU-Net does: spacing, patch, batch and network from its numbers.

Nothing here reads a pixel or needs jax. Axes are in the order of the images; those of
a plan are in its own order, the axis across the slices first (`Plan.axes`).

Source: ``ExperimentPlanner`` and ``nnUNetPlannerResEncM``, L and XL of nnU-Net 2.8.1
(Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; 2024, arXiv:2404.09556).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unet_jax.nnunet.normalization import may_be_masked, normalization_of
from unet_jax.nnunet.stages import PRESETS, Preset, Stages, choose_stages, features_of

ANISOTROPIC = 3.0
"""An axis is coarse from this ratio of its spacing to those of the others."""

_FIRST_PATCH = {2: 2048, 3: 256}  # pixels of an axis before it is shrunk, if isotropic
_REFERENCE_BATCH = {2: 12, 3: 2}  # crops at the reference estimates of a preset
_LEAST_BATCH = 2
_SEEN = 0.25  # of an image by a patch, below which a network of low resolution helps
_COARSENING = 1.03  # of the spacing at each attempt to find the low resolution
_IMAGED = 0.75  # of an image, from which its empty part counts too


@dataclasses.dataclass(frozen=True)
class DatasetFingerprint:
    """What a plan is made of.

    Attributes:
        spacings: millimetres per pixel of each case, on three axes.
        shapes: pixels of each case on three axes, without an empty border; a picture
            has one pixel on the first axis.
        channel_names: names of the channels; "CT", "rgb_to_0_1" and a few more decide
            how they are normalised.
        num_classes: channels of the logits.
        cases: number of training cases.
        nonzero_fraction: median fraction of an image inside of its empty border.
    """

    spacings: tuple[tuple[float, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    channel_names: tuple[str, ...]
    num_classes: int
    cases: int
    nonzero_fraction: float = 1.0


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The network of one resolution, and its training; axes as the plan orders them.

    Attributes:
        name: "2d", "3d_fullres" or "3d_lowres".
        spacing: millimetres per pixel to resample to.
        median_shape: median pixels of the cases at this spacing.
        patch_size: pixels of a crop.
        batch_size: crops of an update.
        features: channels of each stage, finest first.
        kernel_sizes: kernel size of each stage, one number for each axis.
        strides: strides between the stages, one number for each axis.
        blocks: convolutions, or residual blocks, of each stage of the encoder.
        decoder_blocks: convolutions of each stage of the decoder, finest first.
        batch_dice: whether the Dice loss pools the crops of a batch.
        activation, dropout, upsample_bias: options of `unet_jax.models.unet.UNet`.
    """

    name: str
    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    batch_dice: bool = False
    activation: str = "leaky_relu"
    dropout: float = 0.0
    upsample_bias: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of a data set.

    Attributes:
        residual: whether the encoder has residual blocks.
        axes: axis of the images for each axis of the plan.
        spacing: millimetres per pixel of full resolution, on the axes of the plan.
        normalization: scheme of each channel, by its nnU-Net name.
        masked: whether the empty part of a channel stays zero.
        configurations: the networks by name.
    """

    preset: str
    residual: bool
    axes: tuple[int, ...]
    spacing: tuple[float, ...]
    normalization: tuple[str, ...]
    masked: tuple[bool, ...]
    configurations: dict[str, Configuration]

    @property
    def cascade(self) -> bool:
        """Whether nnU-Net also trains a network on the low-resolution prediction."""
        return "3d_lowres" in self.configurations


def plan_dataset(
    data: DatasetFingerprint, *, preset: str = "plain", gib: float | None = None
) -> Plan:
    """Plan a data set.

    Args:
        data: its numbers.
        preset: a key of `PRESETS`.
        gib: memory target in GiB; None for that of the preset.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset {preset!r}; expected one of {list(PRESETS)}")
    chosen = PRESETS[preset]
    planner = _Planner(data, chosen, chosen.gib if gib is None else gib)
    target = _target_spacing(data)
    coarsest = int(np.argmax(target))
    axes = (coarsest, *(axis for axis in range(3) if axis != coarsest))
    shapes = [
        [
            round(old / new * size)
            for old, new, size in zip(spacing, target, shape, strict=True)
        ]
        for spacing, shape in zip(data.spacings, data.shapes, strict=True)
    ]
    spacing = tuple(target[axis] for axis in axes)
    shape = tuple(np.median(shapes, 0)[list(axes)].tolist())
    pixels = math.prod(shape) * data.cases
    found = []
    if shape[0] != 1:
        found = planner.volumes(spacing, shape, pixels)
    plane = planner.configuration("2d", spacing[1:], shape[1:], pixels)
    found.append(dataclasses.replace(plane, batch_dice=True))
    schemes = [normalization_of(name) for name in data.channel_names]
    masks = data.nonzero_fraction < _IMAGED
    return Plan(
        preset,
        chosen.residual,
        axes,
        spacing,
        tuple(schemes),
        tuple(masks and may_be_masked(scheme) for scheme in schemes),
        {one.name: one for one in found},
    )


def for_patch(
    plan: Plan, chosen: Configuration, patch_size: Sequence[int]
) -> Configuration:
    """Return a configuration with another patch, and the stages that suit it."""
    preset = PRESETS[plan.preset]
    stages = choose_stages(chosen.spacing, patch_size)
    count = len(stages.kernel_sizes)
    return dataclasses.replace(
        chosen,
        patch_size=tuple(patch_size),
        features=features_of(count, axes=len(patch_size)),
        kernel_sizes=stages.kernel_sizes,
        strides=stages.strides,
        blocks=preset.blocks[:count],
        decoder_blocks=(preset.decoder_blocks,) * (count - 1),
    )


def _target_spacing(data: DatasetFingerprint) -> list[float]:
    """Return the median spacing; along thick slices, that of the finer cases."""
    spacings = np.array(data.spacings, np.float64)
    target = np.percentile(spacings, 50, 0)
    sizes = np.percentile(np.array(data.shapes), 50, 0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    coarse = target[worst] > ANISOTROPIC * max(target[others])
    if coarse and sizes[worst] * ANISOTROPIC < min(sizes[others]):
        fine = np.percentile(spacings[:, worst], 10)
        most = max(target[others])
        target[worst] = fine if fine >= most else most + 1e-5
    found: list[float] = target.tolist()
    return found


@dataclasses.dataclass(frozen=True)
class _Planner:
    """Finds configurations for a preset and a memory target."""

    data: DatasetFingerprint
    preset: Preset
    gib: float

    def volumes(
        self, spacing: Sequence[float], shape: Sequence[float], pixels: float
    ) -> list[Configuration]:
        """Plan full resolution and, where a patch sees little, low resolution."""
        full = self.configuration("3d_fullres", spacing, shape, pixels)
        low = self._low_resolution(full, shape)
        if low is None:
            return [full]
        return [low, dataclasses.replace(full, batch_dice=True)]

    def _low_resolution(
        self, full: Configuration, shape: Sequence[float]
    ) -> Configuration | None:
        """Coarsen the grid until a patch sees enough; None where it nearly does."""
        spacing, fine = np.array(full.spacing), np.array(full.spacing)
        total = in_image = np.prod(shape)
        in_patch, found = math.prod(full.patch_size), None
        while in_patch / in_image < _SEEN:
            fine_axes = spacing.max() / spacing > 2
            # First the axes that are finer than half of the coarsest one.
            spacing[fine_axes if fine_axes.any() else slice(None)] *= _COARSENING
            sizes = fine / spacing * np.array(shape)
            in_image = np.prod(sizes)
            found = self.configuration(
                "3d_lowres",
                spacing.tolist(),
                [round(size) for size in sizes],
                in_image * self.data.cases,
            )
            in_patch = math.prod(found.patch_size)
        return None if total / in_image < 2 else found

    def configuration(
        self,
        name: str,
        spacing: Sequence[float],
        shape: Sequence[float],
        pixels: float,
    ) -> Configuration:
        """Choose patch, stages and batch for one resolution.

        Args:
            name: name of the configuration.
            spacing: millimetres per pixel, on two axes or three.
            shape: median pixels of the cases at this spacing.
            pixels: pixels of all cases at this spacing.
        """
        axes = len(spacing)
        budget = self.preset.references[axes - 2] * self.gib / self.preset.gib
        # The plain planner counts the reference for its batch, and asks for two crops.
        least = 1.0 if self.preset.residual else _LEAST_BATCH / _REFERENCE_BATCH[axes]
        steps = 1 / np.array(spacing)
        scale = (_FIRST_PATCH[axes] ** axes / np.prod(steps)) ** (1 / axes)
        first = [
            min(round(size), limit)
            for size, limit in zip(steps * scale, shape, strict=True)
        ]
        stages = choose_stages(spacing, first)
        while (cost := self._cost(stages)) * least > budget:
            patch = list(stages.patch_size)
            ratios = [size / most for size, most in zip(patch, shape, strict=True)]
            axis = int(np.argsort(ratios)[-1])
            # By the step of the smaller patch: that of this one may skip sizes.
            smaller = patch.copy()
            smaller[axis] -= stages.total_stride[axis]
            patch[axis] -= choose_stages(spacing, smaller).total_stride[axis]
            stages = choose_stages(spacing, patch)
        most = round(pixels * self.preset.covered / math.prod(stages.patch_size))
        batch = round(budget / cost * _REFERENCE_BATCH[axes])
        count = len(stages.kernel_sizes)
        return Configuration(
            name,
            tuple(spacing),
            tuple(shape),
            stages.patch_size,
            max(min(batch, most), _LEAST_BATCH),
            features_of(count, axes=axes),
            stages.kernel_sizes,
            stages.strides,
            self.preset.blocks[:count],
            (self.preset.decoder_blocks,) * (count - 1),
        )

    def _cost(self, stages: Stages) -> int:
        """Estimate the memory of the network with these stages."""
        return self.preset.values(
            stages.patch_size, stages.strides, num_classes=self.data.num_classes
        )
