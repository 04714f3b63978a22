"""Reads what nnU-Net writes: ``dataset_fingerprint.json`` and ``plans.json``."""

import json
import re
from pathlib import Path
from typing import Any

from unet_jax.errors import InputError
from unet_jax.nnunet.planner import Configuration, DatasetFingerprint, Plan

_RESIDUAL = "ResidualEncoderUNet"
_NETWORKS = ("PlainConvUNet", _RESIDUAL)


def read_fingerprint(path: Path) -> DatasetFingerprint:
    """Read a ``dataset_fingerprint.json``, and the ``dataset.json`` beside it.

    Raises:
        InputError: one of them is missing, or not what nnU-Net writes.
    """
    found, beside = _read(path), path.with_name("dataset.json")
    dataset = _read(beside)
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
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: with {beside.name} it is no fingerprint of nnU-Net ({error!r}); "
            "expected the files of nnUNet_preprocessed; make them again with "
            "nnUNetv2_extract_fingerprint"
        ) from None


def read_plans(path: Path) -> Plan:
    """Read a ``plans.json``.

    Raises:
        InputError: the file is missing or no plan of nnU-Net from 2.5 on, or plans
            another network than `PlainConvUNet` and `ResidualEncoderUNet`.
    """
    found = _read(path)
    try:
        planned = {
            name: values
            for name, values in found["configurations"].items()
            if "inherits_from" not in values
        }
        if not all(re.fullmatch(r"\w+", name) for name in planned):
            raise ValueError(f"configurations {', '.join(planned)}")
        first = next(iter(planned.values()))
        full = planned.get("3d_fullres")
        spacing = (
            full["spacing"] if full else found["original_median_spacing_after_transp"]
        )
        return Plan(
            str(found["plans_name"]),
            _network(path, first) == _RESIDUAL,
            tuple(found["transpose_forward"]),
            tuple(map(float, spacing)),
            tuple(first["normalization_schemes"]),
            tuple(first["use_mask_for_norm"]),
            {name: _configuration(name, one) for name, one in planned.items()},
        )
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is no plan of nnU-Net 2.5 or later ({error!r}); expected a "
            "plans.json; make it again with nnUNetv2_plan_experiment"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    """Read an object of JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: cannot be read ({reason}); expected a JSON file of nnU-Net"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no object of JSON; expected a file of nnU-Net")
    return content


def _network(path: Path, values: dict[str, Any]) -> str:
    """Return the name of the network; InputError for one that ours are not."""
    name = values["architecture"]["network_class_name"].rpartition(".")[2]
    if name not in _NETWORKS:
        raise InputError(
            f"{path}: plans the network {name}; expected one of {', '.join(_NETWORKS)}"
        )
    return str(name)


def _configuration(name: str, values: dict[str, Any]) -> Configuration:
    """Read one configuration."""
    network = values["architecture"]["arch_kwargs"]
    blocks = network.get("n_blocks_per_stage") or network["n_conv_per_stage"]
    return Configuration(
        name=name,
        spacing=tuple(map(float, values["spacing"])),
        median_shape=tuple(values["median_image_size_in_voxels"]),
        patch_size=tuple(values["patch_size"]),
        batch_size=int(values["batch_size"]),
        features=tuple(network["features_per_stage"]),
        kernel_sizes=tuple(map(tuple, network["kernel_sizes"])),
        strides=tuple(map(tuple, network["strides"][1:])),
        blocks=tuple(blocks),
        decoder_blocks=tuple(network["n_conv_per_stage_decoder"]),
        batch_dice=bool(values["batch_dice"]),
    )
