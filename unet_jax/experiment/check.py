"""Validates a config: keys, types, names and limits."""

import math
from typing import Any

from ml_collections import ConfigDict

from unet_jax.data.folder.label_map import LabelMap
from unet_jax.data.preprocess import INTENSITIES
from unet_jax.errors import InputError
from unet_jax.evaluation.metric_table import LOSS_PREFIX, check_metric_names
from unet_jax.experiment.record import flat_config


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
    "data.test_fraction": (0, 0.9),
    "data.validation_fraction": (0.001, 0.9),
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
