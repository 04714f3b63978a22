"""Fills in the values that a config leaves to the data."""

from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.data.fingerprint import Fingerprint, fingerprint, suggest
from unet_jax.data.folder.dataset import FolderDataset
from unet_jax.errors import InputError
from unet_jax.models.presets import create_model
from unet_jax.models.unet import UNet
from unet_jax.models.unet_for_data import fit_stages
from unet_jax.report.palette import class_colors


def resolve_source(config: ConfigDict) -> ConfigDict:
    """Choose the source of a config that leaves it to ``data.path``.

    Args:
        config: the config; it is not changed.

    Returns:
        A config whose ``data.source`` is "folder" if it has a path, else "tfds"; a
        config with another source than "path_or_tfds" stays as it is.
    """
    if config.data.source != "path_or_tfds":
        return config
    chosen = config.copy_and_resolve_references()
    with chosen.unlocked():
        chosen.data.source = "folder" if config.data.path else "tfds"
    return chosen.lock()


def complete_config(
    config: ConfigDict,
    data: Any,
    *,
    recorded: Mapping[str, Any] | None = None,
    tpu_chips: int | None = None,
) -> ConfigDict:
    """Fill in the values that a config leaves to the data.

    Args:
        config: a config with None for these values; it is not changed.
        data: the opened data set; `FolderDataset` for a folder.
        recorded: config of a run to resume; its values are kept, also on another number
            of devices.
        tpu_chips: number of chips of the slice to plan for; None for the devices of
            this machine.

    Returns:
        A config without these Nones, locked.
    """
    if config.data.source != "folder":
        return config
    found = fingerprint(data.traits)
    values = _chosen(config, data, found, tpu_chips)
    filled = config.copy_and_resolve_references()
    with filled.unlocked():
        if not filled.data.label_map:
            filled.data.label_map = tuple(data.label_map)
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            if filled[section][name] is None:
                old = None if recorded is None else recorded[section].get(name)
                filled[section][name] = value if old is None else old
    for line in data.notes:
        print(f"data        {line}")
    print(settings_text(found, filled))
    return filled.lock()


def _chosen(
    config: ConfigDict, data: FolderDataset, found: Fingerprint, tpu_chips: int | None
) -> dict[str, Any]:
    """Choose a value for each key that may be left to the data."""
    patch = config.train.patch_size
    dims = config.data.dims if patch is None else len(patch)
    if dims is not None and dims > found.axes:
        key = "data.dims" if patch is None else "train.patch_size"
        raise InputError(
            f"{key}: found {dims if patch is None else tuple(patch)} for pictures, "
            "which have two axes; expected 2-D"
        )
    chosen = suggest(
        found,
        dims=dims,
        slice_axis=config.data.slice_axis,
        base_features=config.model.base_features,
        max_features=config.model.max_features,
        batch_size=config.train.batch_size,
        patch_size=patch,
        max_patch=config.train.max_patch,
        memory_bytes=config.train.memory_gib * 2**30,
        accelerated=tpu_chips is not None or jax.default_backend() != "cpu",
        devices=jax.device_count() if tpu_chips is None else tpu_chips,
    )
    names = tuple(data.class_names)
    values = {
        "data.class_names": names,
        "data.class_colors": class_colors(
            len(names), colored_background=config.data.include_background
        ),
        "data.slice_axis": chosen.slice_axis,
        "data.crop_nonzero": chosen.crop_nonzero,
        "data.intensity": chosen.intensity,
        "train.patch_size": chosen.patch_size,
        "train.batch_size": chosen.batch_size,
        "augment.spatial_axes_flip": chosen.flip_axes,
        "augment.rotation_degrees_2d": chosen.rotation_degrees,
    }
    model = config.model
    if model.name != "unet":  # a preset has values of its own
        return values | _without_padding(config, values)
    values |= {"model.features": chosen.features, "model.norm": "batch"}
    if model.features is None:
        values["model.kernel_sizes"] = chosen.kernel_sizes
        values["model.strides"] = chosen.strides
    coarser = max(0, len(model.features or chosen.features) - 2)
    values["model.deep_supervision"] = (
        0 if model.padding == "VALID" else min(2, coarser)
    )
    return values | _without_padding(config, values)


_SIZED_BY = (
    "features",
    "convolutions_per_stage",
    "decoder_convolutions",
    "kernel_sizes",
    "strides",
    "block",
    "padding",
)
"""Keys of ``model`` that decide which sizes fit a network without padding."""


def _without_padding(config: ConfigDict, values: dict[str, Any]) -> dict[str, Any]:
    """Choose a patch, and stages, that fit a network without padding."""
    model, patch = config.model, config.train.patch_size
    options: dict[str, Any] = {
        key: values.get(f"model.{key}") if model[key] is None else model[key]
        for key in _SIZED_BY
    }
    try:
        network = create_model(name=model.name, num_classes=2, **options)
        if not isinstance(network, UNet) or network.padding == "SAME":
            return {}
        if "model.kernel_sizes" not in values:  # a network that the user named
            sizes = network.sizes(len(values["train.patch_size"]))
            return {"train.patch_size": sizes.tiling_size(values["train.patch_size"])}
        network, size = fit_stages(
            network, patch or values["train.patch_size"], fixed=patch is not None
        )
    except (TypeError, ValueError):
        return {}  # when the network is made, it says what is wrong
    return {
        "train.patch_size": size,
        "model.features": tuple(network.features),
        "model.kernel_sizes": tuple(network.kernel_sizes or ()),
        "model.strides": tuple(network.strides or ()),
    }


def settings_text(found: Fingerprint, config: ConfigDict) -> str:
    """Say what was found in the data and what was chosen for it.

    Args:
        found: the data in numbers.
        config: the completed config.

    Returns:
        Lines of text.
    """
    size = " x ".join(map(str, found.shape))
    spacing = "no known spacing"
    if found.spacing is not None:
        spacing = " x ".join(f"{part:.3g}" for part in found.spacing) + " mm"
    channels = "1 channel" if found.channels == 1 else f"{found.channels} channels"
    patch = " x ".join(map(str, config.train.patch_size))
    lines = [
        f"data        {found.cases} cases, median size {size}, {spacing}, {channels}, "
        f"{' '.join(found.dtypes)}",
        f"classes     {', '.join(config.data.class_names)}",
        f"network     {len(config.train.patch_size)}-D {config.model.name}"
        + (
            f" of {len(config.model.features)} stages, {config.model.features[0]} to "
            f"{max(config.model.features)} channels"
            if config.model.features
            else ""
        ),
        f"training    {config.train.batch_size} crops of {patch} an update, "
        f"intensity {config.data.intensity!r}",
    ]
    return "\n".join(lines)
