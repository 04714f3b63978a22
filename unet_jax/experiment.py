"""From a config to the objects of a run. Below this room no ConfigDict is read."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from unet_jax.augment.options import resolve_options
from unet_jax.data.case import Case, Source
from unet_jax.data.pipeline import PreparedCases
from unet_jax.data.preprocess import Preprocessing, apply_label, fit
from unet_jax.data.sources.tfds import TfdsSource
from unet_jax.errors import InputError
from unet_jax.models.unet import create_model
from unet_jax.segment import PredictFn, make_forward, make_predict_fn, stack_axis
from unet_jax.training.checkpoint import Checkpoints
from unet_jax.training.compilation import use_compilation_cache
from unet_jax.training.optimizer import create_optimizer, create_schedule
from unet_jax.workdir import read_finished_record

SPLITS = ("train", "validation", "test")


def check_config(config: ConfigDict) -> None:
    """Refuse what no run can be made of, before anything is read.

    Args:
        config: the resolved config.

    Raises:
        InputError: a value is out of range or two do not fit together.
    """
    data, train = config.data, config.train
    if len(data.class_names) < 2 or len(set(data.class_names)) < len(data.class_names):
        raise InputError(
            f"data.class_names: found {tuple(data.class_names)}, expected at least two "
            "different names, the background's first"
        )
    if len(data.class_colors) != len(data.class_names):
        raise InputError(
            f"data.class_colors: found {len(data.class_colors)} colours for "
            f"{len(data.class_names)} classes; give one (red, green, blue) a class"
        )
    if len(train.patch_size) not in (2, 3):
        raise InputError(
            f"train.patch_size: found {tuple(train.patch_size)}, expected two sizes "
            "(2-D network) or three (3-D)"
        )
    _check_colors(data.class_colors)
    for key, (low, high) in _LIMITS.items():
        section, _, name = key.rpartition(".")
        value = config[section][name] if section else config[name]
        if not low <= value <= high:
            raise InputError(f"{key}: found {value}, expected {low} to {high}")
    _check_sizes(
        "train.patch_size", train.patch_size, len(train.patch_size), whole=True
    )
    if data.size is not None:
        _check_sizes("data.size", data.size, 2, whole=True)
    if data.spacing not in (None, "median"):
        _check_sizes("data.spacing", data.spacing, 3, whole=False)
    for name in ("features", "convolutions_per_stage", "kernel_sizes", "strides"):
        _check_counts(f"model.{name}", config.model[name])


_MANY = 10**9
_LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data.slice_axis": (0, 2),
    "data.foreground_oversampling": (0, 1),
    "data.cache_gib": (0, _MANY),
    "data.num_threads": (0, _MANY),
    "data.prefetch_batches": (1, _MANY),
    "train.steps": (1, _MANY),
    "train.batch_size": (1, _MANY),
    "train.accumulation": (1, _MANY),
    "train.ema_decay": (0, 0.999999),
    "train.early_stopping_patience": (0, _MANY),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.final_fraction": (0, 1),
    "optimizer.power": (0, _MANY),
    "optimizer.weight_decay": (0, _MANY),
    "optimizer.momentum": (0, 0.999999),
    "optimizer.gradient_clip": (0, math.inf),
    "eval.every_steps": (1, _MANY),
    "eval.train_images": (1, _MANY),
    "eval.overlap": (0, 0.99),
    "eval.window_batch": (1, _MANY),
    "eval.tolerance_mm": (0, _MANY),
    "eval.tolerance_px": (0, _MANY),
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


def _check_colors(colors: Any) -> None:
    """Refuse what is not red, green and blue of each class."""
    for index, color in enumerate(colors):
        rgb = tuple(color) if isinstance(color, tuple | list) else (color,)
        if len(rgb) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in rgb):
            raise InputError(
                f"data.class_colors[{index}]: found {color!r}, expected (red, green, "
                "blue), whole numbers from 0 to 255"
            )


def _check_sizes(key: str, sizes: Any, count: int, *, whole: bool) -> None:
    """Refuse what is not so many positive numbers."""
    kinds = int if whole else (int, float)
    valid = isinstance(sizes, tuple | list) and len(sizes) == count
    if not valid or not all(isinstance(n, kinds) and n > 0 for n in sizes):
        noun = "whole numbers" if whole else "numbers"
        raise InputError(f"{key}: found {sizes!r}, expected {count} {noun} above 0")


def create_source(config: ConfigDict, split: str) -> TfdsSource:
    """Open one split of the data set.

    Args:
        config: the resolved config.
        split: "train", "validation" or "test".

    Returns:
        Its cases, read when they are asked for.

    Raises:
        InputError: the data set or the split is not there.
    """
    data = config.data
    return TfdsSource(
        name=data.name,
        split=data[f"{split}_split"],
        data_dir=data.data_dir or None,
        image_key=data.image_key,
        label_key=data.label_key,
        label_map=tuple(data.label_map) or None,
        num_classes=len(data.class_names),
        volume_key=data.volume_key or None,
        slice_index_key=data.slice_index_key or None,
        spacing_key=data.spacing_key or None,
        group_key=data.group_key or None,
        mean_key=data.mean_key or None,
        deviation_key=data.deviation_key or None,
    )


def fit_preprocessing(config: ConfigDict, source: Source) -> Preprocessing:
    """Learn from the training split what the config leaves to the data.

    Args:
        config: the resolved config.
        source: the training cases.

    Returns:
        The preprocessing of training and of every later prediction.
    """
    data = config.data
    return fit(
        (source[index] for index in range(len(source))),
        network_dims=len(config.train.patch_size),
        slice_axis=data.slice_axis,
        spacing=data.spacing,
        size=data.size,
        crop_nonzero=data.crop_nonzero,
        intensity=data.intensity,
    )


def create_prepared_cases(
    config: ConfigDict, source: Source, preprocessing: Preprocessing
) -> PreparedCases:
    """Put the training cases on the training grid, slices of volumes first.

    Args:
        config: the resolved config.
        source: the training cases.
        preprocessing: learnt from them.

    Returns:
        Random access to examples: pictures, volumes, or slices of volumes.
    """
    axis = stack_axis(preprocessing, source[0].image.ndim - 1)

    def prepare(case: Case) -> tuple[np.ndarray, np.ndarray]:
        assert case.label is not None, "PreparedCases refuses cases without one"
        image, inverse = preprocessing.apply(
            case.image,
            case.spacing,
            name=f"case {case.id}",
            reference=case.reference,
        )
        label = apply_label(case.label, inverse)
        if axis is not None:
            image, label = np.moveaxis(image, axis, 0), np.moveaxis(label, axis, 0)
        return np.ascontiguousarray(image), np.ascontiguousarray(label)

    return PreparedCases(
        source,
        prepare,
        num_classes=len(config.data.class_names),
        spatial_dims=preprocessing.network_dims,
        by_slice=axis is not None,
        cache_bytes=int(config.data.cache_gib * 2**30),
        seed=config.seed,
        num_threads=config.data.num_threads,
    )


def create_network(config: ConfigDict, *, axis_name: str | None) -> nn.Module:
    """Build the network of a config.

    Args:
        config: the resolved config.
        axis_name: of the mapped devices in training; None in inference.

    Returns:
        A linen module ``(batch, *spatial, channels) -> logits``.

    Raises:
        InputError: the model or an option of it is unknown.
    """
    options = {
        key: value
        for key, value in config.model.items()
        if key not in ("name", "dtype") and value is not None
    }
    patch = jax.ShapeDtypeStruct((1, *config.train.patch_size, 1), np.float32)
    try:
        network = create_model(
            name=config.model.name,
            num_classes=len(config.data.class_names),
            dtype=config.model.dtype,
            axis_name=axis_name,
            **options,
        )
        # Shapes alone, on no device: what does not fit together shows here.
        jax.eval_shape(network.init, jax.random.key(0), patch)
        return network
    except (ValueError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"model: {first_line}") from None


def create_augmentation(config: ConfigDict) -> dict[str, Any] | None:
    """Check the augmentation's options.

    Args:
        config: the resolved config.

    Returns:
        Options of ``augment_batch``; None where augmentation is off.

    Raises:
        InputError: a value is out of bounds.
    """
    options = config.augment.to_dict()
    if not options.pop("enabled"):
        return None
    try:
        resolve_options(options)
    except ValueError as error:
        raise InputError(f"augment: {error}") from None
    return options


def create_optimizer_and_schedule(
    config: ConfigDict,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Build the optimiser and the learning rate of each step.

    Args:
        config: the resolved config.

    Returns:
        Both, for a run of ``train.steps``.

    Raises:
        InputError: an unknown name, or a warm-up longer than the run.
    """
    options = config.optimizer
    schedule = create_schedule(
        name=options.schedule,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        total_steps=config.train.steps,
        final_fraction=options.final_fraction,
        power=options.power,
    )
    optimizer = create_optimizer(
        name=options.name,
        schedule=schedule,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        gradient_clip=options.gradient_clip,
    )
    return optimizer, schedule


def create_predict_fn_maker(
    config: ConfigDict, preprocessing: Preprocessing
) -> Callable[[dict[str, Any]], PredictFn]:
    """Build ``variables -> predict_fn``; all of them share one compiled network.

    Args:
        config: the resolved config.
        preprocessing: learnt from the training split.

    Returns:
        A function of the network's variables.
    """
    forward = make_forward(create_network(config, axis_name=None))

    def with_variables(variables: dict[str, Any]) -> PredictFn:
        return make_predict_fn(
            forward,
            variables,
            preprocessing,
            num_classes=len(config.data.class_names),
            patch_size=tuple(config.train.patch_size),
            overlap=config.eval.overlap,
            window_batch=config.eval.window_batch,
        )

    return with_variables


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run's network, ready to segment.

    Attributes:
        config: of the run.
        preprocessing: learnt by the run.
        step: of the checkpoint.
        predict_fn: the network.
    """

    config: ConfigDict
    preprocessing: Preprocessing
    step: int | None
    predict_fn: PredictFn


def load_run(workdir: pathlib.Path) -> TrainedRun:
    """Load the best checkpoint of a run; nothing but its workdir is needed.

    Args:
        workdir: folder of the run.

    Returns:
        The run's network with its preprocessing.

    Raises:
        InputError: there is no run, or no checkpoint that can be read.
    """
    record = read_finished_record(workdir)
    config = ConfigDict(_tuples(record["config"]))
    preprocessing = Preprocessing.from_dict(record["preprocessing"])
    use_compilation_cache(config.compilation_cache_dir)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.best_step()
        if step is None:
            step = checkpoints.latest_step()
        state = checkpoints.restore_raw(step)
    variables = {
        "params": state.get("ema_params") or state["params"],
        "batch_stats": state.get("batch_stats") or {},
    }
    predict_fn = create_predict_fn_maker(config, preprocessing)(variables)
    return TrainedRun(config, preprocessing, step, predict_fn)


def _tuples(value: Any) -> Any:
    """Turn the lists that JSON made of tuples back."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value
