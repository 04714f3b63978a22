"""Reads what nnU-Net writes: ``dataset_fingerprint.json`` and ``plans.json``."""

import re
from pathlib import Path
from typing import Any

from unet_jax.errors import InputError
from unet_jax.nnunet.architecture import network_options
from unet_jax.nnunet.model_folder import configuration_of, read_json
from unet_jax.nnunet.planner import Configuration, DatasetFingerprint, Plan

_DAMAGED = (
    *(AttributeError, IndexError, KeyError),
    *(StopIteration, TypeError, ValueError),
)
"""What a file of another form leads to."""


def read_fingerprint(path: Path) -> DatasetFingerprint:
    """Read a ``dataset_fingerprint.json``, and the ``dataset.json`` beside it.

    Raises:
        InputError: one of them is missing, or not what nnU-Net writes.
    """
    found, beside = read_json(path), path.with_name("dataset.json")
    dataset = read_json(beside)
    try:
        channels = dataset.get("channel_names") or dataset["modality"]
        return DatasetFingerprint(
            tuple(tuple(map(float, one)) for one in found["spacings"]),
            tuple(tuple(map(int, one)) for one in found["shapes_after_crop"]),
            tuple(map(str, channels.values())),
            len(dataset["labels"]),
            int(dataset["numTraining"]),
            float(found["median_relative_size_after_cropping"]),
        )
    except _DAMAGED as error:
        raise InputError(
            f"{path}: with {beside.name} it is no fingerprint of nnU-Net ({error!r}); "
            "expected the files of nnUNet_preprocessed; make them again with "
            "nnUNetv2_extract_fingerprint"
        ) from None


def read_plans(path: Path) -> Plan:
    """Read a ``plans.json``.

    Raises:
        InputError: the file is missing or no plan of nnU-Net 2, or plans a network
            that ours is not.
    """
    found = read_json(path)
    try:
        planned = {
            name: configuration_of(found, name)
            for name, values in found["configurations"].items()
            if not values.get("previous_stage")
        }
        if not all(re.fullmatch(r"\w+", name) for name in planned):
            raise ValueError(f"configurations {', '.join(planned)}")
        first = next(iter(planned.values()))
        options = network_options(first)
        full = planned.get("3d_fullres", {}).get("spacing")
        return Plan(
            str(found["plans_name"]),
            options["block"] != "plain",
            tuple(found["transpose_forward"]),
            tuple(map(float, full or found["original_median_spacing_after_transp"])),
            tuple(first["normalization_schemes"]),
            tuple(first["use_mask_for_norm"]),
            {name: _configuration(name, one) for name, one in planned.items()},
        )
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"{path}: is no plan of nnU-Net 2 ({error!r}); expected a "
            "plans.json; make it again with nnUNetv2_plan_experiment"
        ) from None


def _configuration(name: str, values: dict[str, Any]) -> Configuration:
    """Read one configuration."""
    network = network_options(values)
    return Configuration(
        name=name,
        spacing=tuple(map(float, values["spacing"])),
        median_shape=tuple(values["median_image_size_in_voxels"]),
        patch_size=tuple(map(int, values["patch_size"])),
        batch_size=int(values["batch_size"]),
        features=network["features"],
        kernel_sizes=network["kernel_sizes"],
        strides=network["strides"],
        blocks=network["convolutions_per_stage"],
        decoder_blocks=network["decoder_convolutions"],
        batch_dice=bool(values.get("batch_dice")),
        **{key: network[key] for key in ("activation", "dropout", "upsample_bias")},
    )
