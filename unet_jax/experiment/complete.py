"""Fills in the values that a config leaves to the data."""

from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.augment.spatial import Rotation
from unet_jax.data.fingerprint import Fingerprint, Settings, fingerprint, suggest
from unet_jax.data.folder.dataset import FolderDataset
from unet_jax.data.folder.splits import DEFAULT_FOLDS
from unet_jax.errors import InputError
from unet_jax.experiment.memory_class import (
    MemoryChoice,
    activation_bytes,
    choose_memory,
)
from unet_jax.experiment.options import given_options
from unet_jax.experiment.planned import (
    memory_of_plan,
    plan_of_folder,
    values_for_cases,
    with_batch_dice,
)
from unet_jax.experiment.regions import regions_of, with_regions
from unet_jax.models.network import sizes_of
from unet_jax.models.presets import create_model, network_row
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
    memory: MemoryChoice | None = None,
) -> ConfigDict:
    """Fill in the values that a config leaves to the data, and print them.

    Args:
        config: a config with None for these values; it is not changed.
        recorded: config of a run to resume; its values are kept, also on another number
            of devices.
        tpu_chips: number of chips of the slice to plan for; None for the devices of
            this machine.
        memory: memory to choose for; None takes the config's, or this machine's.

    Returns:
        A config without these Nones, locked.
    """
    config = _with_folds(config, data, recorded)
    config = with_regions(config, getattr(data, "regions", ()), recorded)
    memory = memory or choose_memory(config)
    if memory is not None and config.train.memory_gib is None and config.model.plan:
        memory = memory_of_plan(memory, config.model.plan)
    if config.data.source != "folder":
        key = config.data.spacing_key
        origin = f"from the feature {key!r}" if key else "the set states none"
        print(f"data        {config.data.name}: nothing left out; spacing: {origin}")
        return config if memory is None else _with_memory(config, memory.gib).lock()
    assert memory is not None, "a folder gets a memory"
    filled = fill_config(
        config, data, gib=memory.gib, recorded=recorded, tpu_chips=tpu_chips
    )
    for line in data.notes:
        print(f"data        {line}")
    print(settings_text(fingerprint(data.traits), filled))
    print(f"memory      {memory}")
    return filled


def fill_config(
    config: ConfigDict,
    data: FolderDataset,
    *,
    gib: float,
    recorded: Mapping[str, Any] | None = None,
    tpu_chips: int | None = None,
    resolution: str | None = None,
) -> ConfigDict:
    """Return a config with the values that a folder gives, locked.

    Args:
        gib: value of ``train.memory_gib``.
        resolution: configuration of the plan that ``model.plan`` makes; None for
            "2d" or "3d_fullres".

    The other arguments are those of `complete_config`.
    """
    filled = _with_memory(config, gib)
    found = fingerprint(data.traits)
    values, options = _chosen(filled, data, found, tpu_chips, resolution)
    before = {} if recorded is None else recorded
    batch_dice = values.pop("loss.batch_dice", None)
    # A reference of a spacing has the type of "median".
    with filled.unlocked(), filled.ignore_type():
        if not filled.data.label_map:
            filled.data.label_map = tuple(data.label_map)
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            planned = key == "data.spacing" and filled.data.spacing == "median"
            if filled[section][name] is None or planned:
                old = before.get(section, {}).get(name)
                filled[section][name] = value if old is None else old
        recorded_options = before.get("model", {}).get("options", {})
        for name, value in options.items():
            filled.model.options[name] = recorded_options.get(name, value)
        if batch_dice is not None:
            filled.loss = with_batch_dice(filled.loss, batch_dice)
    return filled.lock()


def _with_folds(
    config: ConfigDict, data: Any, recorded: Mapping[str, Any] | None
) -> ConfigDict:
    """Return a config with the number of folds that were drawn, or would be."""
    if config.data.folds is not None:
        return config
    found = getattr(data, "folds", 0) or DEFAULT_FOLDS
    before = {} if recorded is None else recorded.get("data", {})
    filled = config.copy_and_resolve_references()
    with filled.unlocked():
        filled.data.folds = before.get("folds", found)
    return filled.lock()


def _with_memory(config: ConfigDict, gib: float) -> ConfigDict:
    """Return a copy of a config with the chosen memory."""
    filled = config.copy_and_resolve_references()
    with filled.unlocked():
        filled.train.memory_gib = gib
    return filled


def _chosen(
    config: ConfigDict,
    data: FolderDataset,
    found: Fingerprint,
    tpu_chips: int | None,
    resolution: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose values of keys that are left to the data, and of network options."""
    patch = config.train.patch_size
    dims = config.data.dims if patch is None else len(patch)
    if dims is None and config.data.get("adjacent_slices"):
        dims = 2
    if dims is not None and dims > found.axes:
        key = "data.dims" if patch is None else "train.patch_size"
        raise InputError(
            f"{key}: found {dims if patch is None else tuple(patch)} for pictures, "
            "which have two axes; expected 2-D"
        )
    devices = jax.device_count() if tpu_chips is None else tpu_chips
    accelerated = tpu_chips is not None or jax.default_backend() != "cpu"
    chosen = suggest(
        found,
        dims=dims,
        slice_axis=config.data.slice_axis,
        base_features=config.model.base_features,
        max_features=config.model.max_features,
        batch_size=config.train.batch_size,
        patch_size=patch,
        max_patch=config.train.max_patch,
        memory_bytes=activation_bytes(config.train.memory_gib, accelerated=accelerated),
        accelerated=accelerated,
        devices=devices,
    )
    names = tuple(data.class_names)
    values = {
        "data.class_names": names,
        "data.class_colors": class_colors(
            len(names), colored_background=config.data.include_background
        ),
        "data.slice_axis": chosen.slice_axis,
        "data.crop_nonzero": chosen.crop_nonzero,
        "data.intensity": data.intensity or chosen.intensity,
        "data.zero_outside": chosen.zero_outside,
        "train.patch_size": chosen.patch_size,
        "train.batch_size": chosen.batch_size,
        "augment.flip_axes": chosen.flip_axes,
        "augment.rotation_degrees_2d": chosen.rotation_degrees,
        "augment.rotation_degrees_3d": Rotation().degrees_3d,
    }
    if config.data.labels_only:  # its values say nothing about drawn images
        values |= {"data.intensity": "zscore", "data.zero_outside": True}
    if config.model.plan:
        plan = plan_of_folder(config, data, data.intensity or chosen.intensity)
        planned = values_for_cases(
            config,
            data.traits,
            plan=plan,
            resolution=resolution or ("2d" if chosen.dims == 2 else "3d_fullres"),
            devices=devices,
        )
        given = given_options(config)
        return values | planned.values, {
            key: value for key, value in planned.options.items() if key not in given
        }
    patch, options = _network_for_data(config, chosen)
    return values | {"train.patch_size": patch}, options


def _network_for_data(
    config: ConfigDict, chosen: Settings
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Choose the options that a network leaves to the data, and a patch that fits."""
    given = given_options(config)
    row = network_row(config.model.name)
    try:
        if row.suit is not None:
            suggestion = row.suit(
                given,
                features=chosen.features,
                kernel_sizes=chosen.kernel_sizes,
                strides=chosen.strides,
                patch_size=chosen.patch_size,
                fixed_patch=config.train.patch_size is not None,
            )
            return suggestion.patch_size, suggestion.options
        network = create_model(name=config.model.name, num_classes=2, **given)
        sizes = sizes_of(network, len(chosen.patch_size))
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"model.options: {error}") from None
    return sizes.tiling_size(chosen.patch_size), {}


def fingerprint_text(found: Fingerprint) -> str:
    """Say what was found in the data."""
    size = " x ".join(map(str, found.shape))
    spacing = "no known spacing"
    if found.spacing is not None:
        spacing = " x ".join(f"{part:.3g}" for part in found.spacing) + " mm"
    channels = "1 channel" if found.channels == 1 else f"{found.channels} channels"
    cases = "1 case" if found.cases == 1 else f"{found.cases} cases"
    return (
        f"{cases}, median size {size}, {spacing}, {channels}, {' '.join(found.dtypes)}"
    )


def settings_text(found: Fingerprint, config: ConfigDict) -> str:
    """Say what was found in the data and what was chosen for it."""
    patch = " x ".join(map(str, config.train.patch_size))
    options = sorted(given_options(config).items())
    beside = config.data.get("adjacent_slices")
    slices = f"with {beside} slices on each side, " if beside else ""
    lines = [
        f"data        {fingerprint_text(found)}",
        f"classes     {', '.join(config.data.class_names)}",
        *_regions_text(config),
        f"network     {len(config.train.patch_size)}-D {config.model.name}"
        + "".join(f", {key} {_words(value)}" for key, value in options),
        f"training    {config.train.batch_size} crops of {patch} an update, {slices}"
        f"intensity {config.data.intensity!r}{_outside(found, config)}",
    ]
    return "\n".join(lines)


def _regions_text(config: ConfigDict) -> list[str]:
    """Say which regions are trained, and how they are written into a label map."""
    regions = regions_of(config)
    if regions is None:
        return []
    parts = (
        f"{name} (classes {' '.join(map(str, classes))}, written as {written})"
        for name, classes, written in regions.entries
    )
    return [f"regions     a sigmoid each: {', '.join(parts)}"]


def _outside(found: Fingerprint, config: ConfigDict) -> str:
    """Say that the empty part of images is left at zero, and why."""
    if not config.data.zero_outside or config.data.intensity != "zscore":
        return ""
    if config.data.labels_only:
        return " of what is imaged"
    empty = 1 - found.nonzero_fraction
    return f" of what is imaged: {empty:.0%} of an image is empty and stays zero"


def _words(value: Any) -> str:
    """Write the value of an option in few characters."""
    if isinstance(value, tuple | list):
        return " ".join(
            "x".join(map(str, one)) if isinstance(one, tuple | list) else str(one)
            for one in value
        )
    return str(value)
