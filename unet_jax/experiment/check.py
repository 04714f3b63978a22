"""Validates a config: keys, types, names and limits."""

from typing import Any

from ml_collections import ConfigDict

from unet_jax.configs.base import KEYS
from unet_jax.data.label_map import LabelMap
from unet_jax.data.schemes import check_intensity
from unet_jax.errors import InputError, setting
from unet_jax.evaluation.metric_table import LOSS_PREFIX, check_metric_names
from unet_jax.experiment.labels_only import check_labels_only
from unet_jax.experiment.partly_labelled import check_labelled_classes
from unet_jax.experiment.record import flat_config
from unet_jax.experiment.regions import check_regions
from unet_jax.inference.temperature import HIGHEST, LOWEST


def check_config(config: ConfigDict, *, complete: bool = False) -> None:
    """Refuse what no run can be made of.

    Args:
        complete: whether the data have filled in what was left to them; before that,
            None is accepted for those keys.

    Raises:
        InputError: a value is out of range or two do not fit together.
    """
    _check_given(config)
    _check_values(config)
    data, train = config.data, config.train
    _check_plan(config)
    _check_adjacent_slices(config)
    _check_previous_stage(config)
    _check_colors("data.palette", data.palette)
    _check_channels(data.get("channels", ()))
    if data.label_map:
        count = _MANY_CLASSES if data.class_names is None else len(data.class_names)
        LabelMap(tuple(data.label_map), num_classes=count)
    check_labels_only(config)
    check_labelled_classes(config)
    check_regions(config)
    if complete or data.source != "folder":
        _check_filled(config)
    if data.class_names is not None:
        _check_classes(data.class_names, data.class_colors)
    if train.patch_size is not None:
        if len(train.patch_size) not in (2, 3):
            raise InputError(
                f"train.patch_size: found {tuple(train.patch_size)}, expected two "
                "sizes (2-D network) or three (3-D)"
            )
        _check_sizes(
            "train.patch_size", train.patch_size, len(train.patch_size), whole=True
        )
    metrics = tuple(config.eval.metrics)
    # The rows of the losses tell their names and parameters.
    losses = [m for m in metrics if isinstance(m, str) and m.startswith(LOSS_PREFIX)]
    check_metric_names(metrics, losses=losses)
    _check_temperature(config.eval.get("temperature"))
    _check_risk(config.eval.get("risk"), data.class_names)
    _check_rates(config.train.get("freeze", ()), config.optimizer)
    if config.train.early_stopping_patience and config.eval.choose == "last":
        raise InputError(
            "train.early_stopping_patience: stops after the best checkpoint, but "
            "eval.choose='last' scores the last; set one of them alone"
        )
    if data.intensity is not None:
        check_intensity(data.intensity)
    if data.size is not None:
        _check_sizes("data.size", data.size, 2, whole=True)
    if data.spacing not in (None, "median"):
        _check_sizes("data.spacing", data.spacing, 3, whole=False)
    for key in config.model:
        if key not in _MODEL:
            raise InputError(
                f"model.{key}: unknown key; expected one of {', '.join(_MODEL)}. An "
                f"option of the network is "
                f"{setting(f'model.options.{key}', config.model[key])}"
            )


def _check_plan(config: ConfigDict) -> None:
    """Refuse a planner for what it does not plan."""
    if not config.model.get("plan"):
        return
    for key, found, expected in (
        ("model.name", config.model.name, "unet"),
        ("data.source", config.data.source, "folder"),
    ):
        if found != expected:
            raise InputError(
                f"{key}: found {found!r}, expected {expected!r} for "
                f"model.plan={config.model.plan!r}; change it, or give "
                f"{setting('model.plan', '')}"
            )


def _check_adjacent_slices(config: ConfigDict) -> None:
    """Refuse neighbouring slices for what has no slices, or no image of them."""
    data, patch = config.data, config.train.patch_size
    if not data.get("adjacent_slices"):
        return
    found = f"data.adjacent_slices: found {data.adjacent_slices}"
    if (data.dims if patch is None else len(patch)) == 3:
        raise InputError(
            f"{found} for a 3-D network, which sees the volume itself, expected 0; "
            f"write {setting('data.adjacent_slices', 0)}, or train a 2-D network"
        )
    if config.augment.enabled and config.augment.get("synthesis"):
        raise InputError(
            f"{found} with augment.synthesis=True, which draws single slices from "
            f"labels; write {setting('data.adjacent_slices', 0)}, or "
            f"{setting('augment.synthesis', False)}"
        )


def _check_previous_stage(config: ConfigDict) -> None:
    """Refuse a first stage beside what it does not go with."""
    data = config.data
    if not data.get("previous_stage"):
        return
    drawn = config.augment.enabled and config.augment.get("synthesis")
    for key, found, expected in (
        ("data.adjacent_slices", data.get("adjacent_slices", 0), 0),
        ("data.labels_only", data.get("labels_only", False), False),
        ("augment.synthesis", bool(drawn), False),
    ):
        if found != expected:
            raise InputError(
                f"data.previous_stage: found with {key}={found}, expected "
                f"{expected}, since the first stage predicts stored images; write "
                f"{setting(key, expected)}"
            )


_MODEL = (
    *("name", "options", "head", "dtype", "clusters"),
    *("base_features", "max_features", "plan"),
)


def _value(config: ConfigDict, key: str) -> Any:
    """Return the value of a dotted key; None if a record is older than the key."""
    section, _, name = key.rpartition(".")
    return (config[section] if section else config).get(name)


def _check_given(config: ConfigDict) -> None:
    """Refuse None for a key that needs a value."""
    for key, value in flat_config(config.to_dict()).items():
        spec = KEYS.get(key)
        # Options of a model and of augmentations have defaults of their own.
        optional = spec is None or spec.kind is not None or spec.from_data
        if value is None and not optional:
            raise InputError(
                f"{key}: found None, expected a value, see configs/base.py"
            )


_MANY_CLASSES = 2**15
"""Where the data give the names of the classes, no map leads to more."""


def _check_filled(config: ConfigDict) -> None:
    """Refuse None where the data have not given a value."""
    given = flat_config(config.to_dict())
    for key, spec in KEYS.items():
        # A record that is older than a key lacks it.
        if spec.from_data and key in given and given[key] is None:
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


def _check_values(config: ConfigDict) -> None:
    """Refuse numbers outside of their limits, and values that are no choice."""
    for key, spec in KEYS.items():
        value = _value(config, key)
        if value is None:
            continue
        if spec.choices and value not in spec.choices:
            names = ", ".join(map(repr, spec.choices))
            raise InputError(f"{key}: found {value!r}, expected one of {names}")
        if not spec.has_limits:
            continue
        number = isinstance(value, int | float)
        if not number or not spec.low <= value <= spec.high:
            raise InputError(f"{key}: found {value!r}, expected {spec.limits}")


def _check_temperature(value: Any) -> None:
    """Refuse a temperature that is no positive number of moderate size."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value in (None, "fit") or (number and LOWEST <= value <= HIGHEST):
        return
    raise InputError(
        f"eval.temperature: found {value!r}, expected 'fit', a number from {LOWEST} to "
        f"{HIGHEST}, or None"
    )


def _check_risk(value: Any, names: Any) -> None:
    """Refuse what is no class and limit; without names the class is any text."""
    if value is None:
        return
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    wanted, alpha = pair if len(pair) == 2 else (None, None)
    if names is None:
        known = isinstance(wanted, str | int)
    elif isinstance(wanted, str):
        known = wanted in names
    else:
        known = isinstance(wanted, int) and 0 <= wanted < len(names)
    if isinstance(wanted, bool) or not known or not _is_fraction(alpha):
        classes = "" if names is None else f" (one of {', '.join(map(repr, names))})"
        example = "lesion" if names is None else names[-1]
        raise InputError(
            f"eval.risk: found {value!r}, expected None, or a class{classes} and the "
            "largest fraction of it that may be missed, between 0 and 1; write "
            f"{setting('eval.risk', (example, 0.1))}"
        )


def _is_fraction(value: Any) -> bool:
    """Return whether a value is a number between 0 and 1."""
    return isinstance(value, float) and 0 < value < 1


def _check_rates(freeze: Any, optimizer: ConfigDict) -> None:
    """Refuse parts that are no names, and factors that are no numbers."""
    if not all(isinstance(part, str) for part in freeze):
        raise InputError(
            f"train.freeze: found {tuple(freeze)}, expected names of parts; write "
            f"{setting('train.freeze', ('encoder',))}"
        )
    for pair in optimizer.get("rate_factors", ()):
        match pair:
            case [str(), int() | float() as factor] if factor >= 0:
                pass
            case _:
                raise InputError(
                    f"optimizer.rate_factors: found {pair!r}, expected a part and a "
                    "factor of at least 0; write "
                    f"{setting('optimizer.rate_factors', (('encoder', 0.1),))}"
                )


def _check_channels(endings: Any) -> None:
    """Refuse endings of files that are no text, or there twice."""
    text = all(isinstance(one, str) for one in endings)
    if not text or len(set(endings)) < len(endings):
        raise InputError(
            f"data.channels: found {tuple(endings)}, expected a different ending for "
            f"each channel; write {setting('data.channels', ('_t1', '_t2'))}"
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
    """Refuse sizes that are not the expected number of positive numbers."""
    kinds = int if whole else (int, float)
    valid = isinstance(sizes, tuple | list) and len(sizes) == count
    if not valid or not all(isinstance(n, kinds) and n > 0 for n in sizes):
        noun = "whole numbers" if whole else "numbers"
        raise InputError(f"{key}: found {sizes!r}, expected {count} {noun} above 0")
