"""Turns a plan of nnU-Net into values of a config.

The axes of a plan are those of its files with the coarsest first, and nnU-Net reads a
NIfTI from its last axis to its first. The axes of a config are those of our images.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.augment.crop_grid import CropGrid
from unet_jax.data.case_traits import CaseTraits
from unet_jax.data.folder.dataset import FolderDataset
from unet_jax.errors import InputError, setting
from unet_jax.experiment.memory_class import MemoryChoice
from unet_jax.nnunet.normalization import scheme_of
from unet_jax.nnunet.planner import (
    Configuration,
    DatasetFingerprint,
    Plan,
    for_patch,
    plan_dataset,
)
from unet_jax.nnunet.stages import PRESETS

_CHANNELS = {"percentile": "CT", "full_range": "rgb_to_0_1", "zscore": "zscore"}
"""A name that nnU-Net knows for a channel that ours normalises so."""

_LONG = 1.5  # ratio of the axes of a picture from which it is turned by small angles
_PICTURE = 999.0  # millimetres between pictures, as nnU-Net reads them


def fingerprint_for_plan(
    traits: Sequence[CaseTraits],
    *,
    num_classes: int,
    intensity: str,
    channel_names: Sequence[str] = (),
) -> DatasetFingerprint:
    """Summarise cases as nnU-Net does, on its axes.

    Args:
        intensity: normalisation that the data suggest for all channels.
        channel_names: names of the channels that the set states, () for none; they
            decide instead.
    """
    names = tuple(channel_names)
    if len(names) != traits[0].channels:
        names = (_CHANNELS[intensity],) * traits[0].channels
    pictures = len(traits[0].shape) == 2
    known = all(case.spacing is not None for case in traits)
    spacings, shapes = [], []
    for case in traits:
        shape = tuple(case.shape)
        # Ours crops volumes alone.
        box = None if pictures else getattr(case, "nonzero_shape", None)
        spacing = tuple(case.spacing or ()) if known else (1.0,) * len(shape)
        if pictures:
            shapes.append((1, *shape))
            spacings.append((_PICTURE, *spacing))
        else:
            shapes.append(tuple(box or shape)[::-1])
            spacings.append(spacing[::-1])
    return DatasetFingerprint(
        tuple(spacings),
        tuple(shapes),
        names,
        num_classes,
        len(traits),
        float(np.median([case.nonzero_fraction for case in traits])),
    )


@dataclasses.dataclass(frozen=True)
class PlannedValues:
    """What a configuration of a plan means in a config.

    Attributes:
        values: value of each key.
        options: options of the network ``unet``.
    """

    values: dict[str, Any]
    options: dict[str, Any]


def plan_of_folder(config: ConfigDict, data: FolderDataset, intensity: str) -> Plan:
    """Plan the cases of a folder by ``model.plan`` and ``train.memory_gib``.

    Args:
        intensity: normalisation that the data suggest.
    """
    regions = config.data.get("regions")
    if regions is None:
        regions = getattr(data, "regions", ())
    fingerprint = fingerprint_for_plan(
        data.traits,
        num_classes=1 + len(regions or data.class_names[1:]),
        intensity=intensity,
        channel_names=data.channel_names,
    )
    return plan_dataset(
        fingerprint, preset=config.model.plan, gib=config.train.memory_gib
    )


def values_for_cases(
    config: ConfigDict,
    traits: Sequence[CaseTraits],
    *,
    plan: Plan,
    resolution: str,
    devices: int,
) -> PlannedValues:
    """Return what a plan of the cases of a folder means in a config.

    Args:
        resolution: name of the configuration.
        devices: see `planned_values`.

    Raises:
        InputError: the plan cuts slices along another axis than ``data.slice_axis``.
    """
    planned = planned_values(
        plan,
        plan.configurations[resolution],
        image_axes=len(traits[0].shape),
        patch_size=config.train.patch_size,
        devices=devices,
    )
    given, axis = config.data.slice_axis, planned.values.get("data.slice_axis")
    if resolution == "2d" and None not in (given, axis) and given != axis:
        raise InputError(
            f"data.slice_axis: found {given}, but the 2-D network of model.plan sees "
            f"slices along axis {axis}, the coarsest; leave it out, or give "
            f"{setting('model.plan', '')}"
        )
    return planned


def memory_of_plan(memory: MemoryChoice, preset: str) -> MemoryChoice:
    """Take nnU-Net's memory target where the device has more."""
    target = PRESETS[preset].gib
    if memory.recorded or memory.gib <= target:
        return memory
    return MemoryChoice(target, f"nnU-Net's target for {preset!r}")


def with_batch_dice(loss: Sequence[Any], batch_dice: bool) -> tuple[Any, ...]:
    """Say whether the Dice loss pools a batch, where its parameters do not."""
    return tuple(
        (name, weight, {"batch_dice": batch_dice, **parameters})
        if name == "dice"
        else (name, weight, parameters)
        for name, weight, parameters in loss
    )


def planned_values(
    plan: Plan,
    chosen: Configuration,
    *,
    image_axes: int,
    patch_size: Sequence[int] | None = None,
    devices: int = 1,
) -> PlannedValues:
    """Translate a configuration.

    Args:
        image_axes: number of axes of an image, 2 for pictures.
        patch_size: patch of the config, whose stages are chosen; None for the plan's.
        devices: number of devices; the batch is rounded up to a multiple of it.
    """
    dims = len(chosen.patch_size)
    ours = [axis - 1 if image_axes == 2 else 2 - axis for axis in plan.axes]
    order = sorted(range(3 - dims, 3), key=ours.__getitem__)
    places = [place - (3 - dims) for place in order]

    def in_ours(sizes: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(sizes[place] for place in places)

    if patch_size is not None:
        planned = [0] * dims
        for size, place in zip(patch_size, places, strict=True):
            planned[place] = size
        chosen = for_patch(plan, chosen, planned)
    patch = tuple(patch_size or in_ours(chosen.patch_size))
    schemes = zip(plan.normalization, plan.masked, strict=True)
    values = {
        "data.dims": dims,
        "data.intensity": tuple(scheme_of(name, masked=m) for name, m in schemes),
        "train.patch_size": patch,
        "train.batch_size": -(-chosen.batch_size // devices) * devices,
        "augment.flip_axes": tuple(range(dims)),
        **rotations(patch),
        "loss.batch_dice": chosen.batch_dice,
    }
    if image_axes == 3:
        values["data.slice_axis"] = ours[0]
        steps = dict(zip(ours, plan.spacing, strict=True))
        steps |= dict(zip(ours[3 - dims :], chosen.spacing, strict=True))
        values["data.spacing"] = tuple(steps[axis] for axis in range(3))
    return PlannedValues(values, _options(plan, chosen, in_ours))


def rotations(patch: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Return the limits of nnU-Net's rotations for a patch, by config key.

    Source:
        ``configure_rotation_dummyDA_mirroring_and_inital_patch_size`` of
        ``nnUNetTrainer``, nnU-Net 2.8.1
    """
    flat = 180.0 if max(patch) <= _LONG * min(patch) else 15.0
    turn = 30.0 if CropGrid(tuple(patch)).thin_axis is None else 180.0
    return {
        "augment.rotation_degrees_2d": (-flat, flat),
        "augment.rotation_degrees_3d": (-turn, turn),
    }


def _options(plan: Plan, chosen: Configuration, in_ours: Any) -> dict[str, Any]:
    """Return the options of nnU-Net's network."""
    stages = len(chosen.features)
    options = {
        "features": chosen.features,
        "kernel_sizes": tuple(map(in_ours, chosen.kernel_sizes)),
        "strides": tuple(map(in_ours, chosen.strides)),
        "convolutions_per_stage": chosen.blocks,
        "decoder_convolutions": chosen.decoder_blocks,
        "downsample": "centred",
        "norm": "instance",
        "activation": chosen.activation,
        "dropout": chosen.dropout,
        "upsample": "transposed",
        "upsample_bias": chosen.upsample_bias,
        # Of the deep outputs the coarsest has no weight in nnU-Net's loss.
        "deep_supervision": max(0, stages - 3),
    }
    if plan.residual:
        options |= {"block": "residual_d", "decoder_block": "plain", "stem": True}
    return options
