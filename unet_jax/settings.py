"""Is a config one that a run can be made of, and what the data fill in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
from ml_collections import ConfigDict

from unet_jax.data.fingerprint import (
    Fingerprint,
    Traits,
    fingerprint,
    suggest,
)
from unet_jax.data.preprocess import INTENSITIES
from unet_jax.data.sources.label_map import LabelMap
from unet_jax.errors import InputError
from unet_jax.metrics.names import LOSS_PREFIX, check_metric_names
from unet_jax.models.presets import create_model
from unet_jax.models.sizes import fit_stages, tiling_size
from unet_jax.models.unet import UNet
from unet_jax.report.palette import class_colors
from unet_jax.workdir import flat_config


def check_config(config: ConfigDict, *, complete: bool = False) -> None:
    """Refuse what no run can be made of.

    Args:
        config: the config.
        complete: whether the data have filled in what was left to them; before that,
            None is accepted for those keys.

    Raises:
        InputError: a value is out of range or two do not fit together.
    """
    _check_given(config)
    _check_data(config.data)
    if complete or config.data.source != "folder":
        _check_filled(config)
    data, train = config.data, config.train
    if data.class_names is not None:
        _check_classes(data.class_names, data.class_colors)
    _check_numbers(config)
    if train.patch_size is not None:
        if len(train.patch_size) not in (2, 3):
            raise InputError(
                f"train.patch_size: found {tuple(train.patch_size)}, expected two "
                "sizes (2-D network) or three (3-D)"
            )
        _check_sizes(
            "train.patch_size", train.patch_size, len(train.patch_size), whole=True
        )
    if config.model.head not in ("softmax", "sigmoid"):
        raise InputError(
            f"model.head: found {config.model.head!r}, expected 'softmax' or 'sigmoid'"
        )
    metrics = tuple(config.eval.metrics)
    # Which losses there are, and with what parameters, the losses say.
    check_metric_names(metrics, losses=[m for m in metrics if _is_loss(m)])
    if config.eval.surface not in ("area", "voxel"):
        raise InputError(
            f"eval.surface: found {config.eval.surface!r}, expected 'area' or 'voxel'"
        )
    if data.size is not None:
        _check_sizes("data.size", data.size, 2, whole=True)
    if data.spacing not in (None, "median"):
        _check_sizes("data.spacing", data.spacing, 3, whole=False)
    for name in (
        "features",
        "convolutions_per_stage",
        "decoder_convolutions",
        "kernel_sizes",
        "strides",
    ):
        _check_counts(f"model.{name}", config.model[name])
    _check_rates("model.dropout", config.model.dropout)


def _check_given(config: ConfigDict) -> None:
    """Refuse None for a key that has to say something."""
    for key, value in flat_config(config.to_dict()).items():
        # A model and an augmentation have defaults of their own.
        left = key in (*FROM_DATA, *_OPTIONAL) or key.startswith(("model.", "augment."))
        if value is None and (not left or key in _NEEDED):
            raise InputError(
                f"{key}: found None, expected a value, see configs/base.py"
            )


def _check_data(data: ConfigDict) -> None:
    """Refuse names that are unknown, colours that are none, a map that is none."""
    for key, known in (
        ("source", ("tfds", "folder", "path_or_tfds")),
        ("intensity", (None, *INTENSITIES)),
    ):
        if data[key] not in known:
            names = ", ".join(repr(name) for name in known if name)
            raise InputError(
                f"data.{key}: unknown {key} {data[key]!r}; expected one of {names}"
            )
    _check_colors("data.palette", data.palette)
    if data.label_map:
        count = _MANY_CLASSES if data.class_names is None else len(data.class_names)
        LabelMap(tuple(data.label_map), num_classes=count)


_MANY_CLASSES = 2**15
"""Where the data give the names of the classes, no map leads to more."""


def _is_loss(metric: Any) -> bool:
    """Whether a metric is named after a loss."""
    return isinstance(metric, str) and metric.startswith(LOSS_PREFIX)


def resolve_source(config: ConfigDict) -> ConfigDict:
    """Choose the source of a config that leaves it to ``data.path``.

    Args:
        config: the config; it is not changed.

    Returns:
        One whose ``data.source`` is "folder" where a path is named, else "tfds", if it
        was "path_or_tfds"; any other as it is.
    """
    if config.data.source != "path_or_tfds":
        return config
    chosen = config.copy_and_resolve_references()
    with chosen.unlocked():
        chosen.data.source = "folder" if config.data.path else "tfds"
    return chosen.lock()


FROM_DATA = (
    "data.class_names",
    "data.class_colors",
    "data.slice_axis",
    "data.crop_nonzero",
    "data.intensity",
    "train.patch_size",
    "train.batch_size",
    "augment.spatial_axes_flip",
    "augment.rotation_degrees_2d",
)
"""Keys that may be None for the folder source: the data fill them in."""


_OPTIONAL = ("data.dims", "data.size", "data.spacing", "eval.postprocess")
_NEEDED = ("model.name", "model.head", "model.dtype", "augment.enabled")


def _check_filled(config: ConfigDict) -> None:
    """Refuse None where a value is needed."""
    for key in FROM_DATA:
        section, _, name = key.rpartition(".")
        if config[section][name] is None:
            raise InputError(
                f"{key}: found None, expected a value; only data.source='folder' finds "
                "it in the data"
            )


def _check_classes(names: Any, colors: Any) -> None:
    """Refuse names that are too few or equal, and colours that do not fit them."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"data.class_names: found {tuple(names)}, expected at least two different "
            "names, the background's first"
        )
    if colors is None:
        return
    if len(colors) != len(names):
        raise InputError(
            f"data.class_colors: found {len(colors)} colours for {len(names)} classes; "
            "give one (red, green, blue) a class"
        )
    _check_colors("data.class_colors", colors)


def _check_numbers(config: ConfigDict) -> None:
    """Refuse numbers out of their limits."""
    for key, (low, high) in _LIMITS.items():
        section, _, name = key.rpartition(".")
        # The record of a run may be older than a key; None is left to the data, or to
        # the preset.
        value = (config[section] if section else config).get(name)
        if value is None:
            continue
        if not low <= value <= high:
            raise InputError(f"{key}: found {value}, expected {low} to {high}")


_MANY = 10**9
_LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data.palette_tolerance": (0, 255),
    "data.dims": (2, 3),
    "data.split_seed": (0, 2**31 - 1),
    "data.fold": (-1, 999),
    "data.folds": (2, 1000),
    "data.test_share": (0, 0.9),
    "data.validation_share": (0.001, 0.9),
    "data.slice_axis": (0, 2),
    "data.foreground_oversampling": (0, 1),
    "data.cache_gib": (0, _MANY),
    "data.num_threads": (0, _MANY),
    "data.prefetch_batches": (1, _MANY),
    "train.steps": (1, _MANY),
    "train.max_minutes": (0, _MANY),
    "train.memory_gib": (0.001, _MANY),
    "train.batch_size": (1, _MANY),
    "train.accumulation": (1, _MANY),
    "train.ema_decay": (0, 0.999999),
    "train.early_stopping_patience": (0, _MANY),
    "train.skip_nonfinite": (0, _MANY),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.final_fraction": (0, 1),
    "optimizer.power": (0, _MANY),
    "optimizer.weight_decay": (0, _MANY),
    "optimizer.momentum": (0, 0.999999),
    "optimizer.gradient_clip": (0, math.inf),
    "eval.every_steps": (1, _MANY),
    "eval.train_images": (1, _MANY),
    "model.deep_supervision": (0, 9),
    "model.base_features": (1, _MANY),
    "model.clusters": (2, 65536),
    "model.max_features": (1, _MANY),
    "train.max_patch": (8, _MANY),
    "eval.overlap": (0, 0.99),
    "eval.validation_overlap": (0, 0.99),
    "eval.window_batch": (1, _MANY),
    "eval.tolerance_mm": (0, _MANY),
    "eval.tolerance_px": (0, _MANY),
    "compare.w_net_steps": (1, _MANY),
    "log.every_steps": (1, _MANY),
    "log.overlays": (0, _MANY),
}
"""Smallest and largest value of each number in the config."""


def _check_counts(key: str, value: Any) -> None:
    """Refuse what is not a whole number above 0, or tuples of such numbers."""
    if isinstance(value, tuple | list):
        for entry in value:
            _check_counts(key, entry)
    elif value is not None and not (isinstance(value, int) and value > 0):
        raise InputError(f"{key}: found {value!r}, expected whole numbers above 0")


def _check_rates(key: str, value: Any) -> None:
    """Refuse what is not a share below 1, or one a stage."""
    for rate in value if isinstance(value, tuple | list) else (value,):
        if rate is not None and not (isinstance(rate, int | float) and 0 <= rate < 1):
            raise InputError(
                f"{key}: found {value!r}, expected a share from 0 to below 1, or one a "
                "stage"
            )


def _check_colors(key: str, colors: Any) -> None:
    """Refuse what is not red, green and blue of each class."""
    for index, color in enumerate(colors):
        rgb = tuple(color) if isinstance(color, tuple | list) else (color,)
        if len(rgb) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in rgb):
            raise InputError(
                f"{key}[{index}]: found {color!r}, expected (red, green, "
                "blue), whole numbers from 0 to 255"
            )


def _check_sizes(key: str, sizes: Any, count: int, *, whole: bool) -> None:
    """Refuse what is not so many positive numbers."""
    kinds = int if whole else (int, float)
    valid = isinstance(sizes, tuple | list) and len(sizes) == count
    if not valid or not all(isinstance(n, kinds) and n > 0 for n in sizes):
        noun = "whole numbers" if whole else "numbers"
        raise InputError(f"{key}: found {sizes!r}, expected {count} {noun} above 0")


class FolderData(Protocol):
    """What a folder of files tells of itself."""

    @property
    def traits(self) -> Sequence[Traits]:
        """What is known of each case."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """How files were paired, labels mapped and splits made."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        ...

    @property
    def label_map(self) -> tuple[Any, ...]:
        """Stored values and their classes."""
        ...


def complete_config(
    config: ConfigDict,
    data: Any,
    *,
    recorded: Mapping[str, Any] | None = None,
    tpu_chips: int | None = None,
) -> ConfigDict:
    """Fill in what a config leaves to the data.

    Args:
        config: with None for what is left; it is not changed.
        data: the opened data set; `FolderData` if it is a folder.
        recorded: config of the run that goes on: what it chose stays, also on another
            number of devices.
        tpu_chips: of the slice that a plan is made for; None for the devices at hand.

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
    config: ConfigDict, data: FolderData, found: Fingerprint, tpu_chips: int | None
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
            return {
                "train.patch_size": tiling_size(network, values["train.patch_size"])
            }
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
