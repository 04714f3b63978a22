"""From a config to the objects of a run. Below this room no ConfigDict is read."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from unet_jax.augment.options import resolve_options
from unet_jax.compilation import onednn_options, use_compilation_cache
from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.grids import apply_label
from unet_jax.data.pipeline import PreparedCases, TrainIterator, make_train_iterator
from unet_jax.data.preprocess import Preprocessing, fit
from unet_jax.data.sources.folder import FolderOptions, open_folder
from unet_jax.data.sources.tfds import TfdsSource
from unet_jax.errors import InputError
from unet_jax.inference.postprocess import Step, apply_steps
from unet_jax.models.presets import create_model
from unet_jax.models.sizes import margin, tiling_size, total_stride
from unet_jax.models.unet import UNet
from unet_jax.models.wnet import WNet
from unet_jax.segment import (
    Segmenter,
    WindowForward,
    make_forward,
    make_predict_fn,
    stack_axis,
)
from unet_jax.settings import check_config
from unet_jax.training.checkpoint import Checkpoints, check_fit
from unet_jax.training.loss_terms import LossTerm, reads_labels
from unet_jax.training.optimizer import Schedule, create_optimizer, create_schedule
from unet_jax.training.state import AXIS
from unet_jax.training.step import TrainStep, make_train_step
from unet_jax.workdir import as_tuples, check_same_data, read_finished_record

SPLITS = ("train", "validation", "test")


class Dataset(Protocol):
    """A data set that is cut into splits."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What config.json keeps of it; equal for equal content and splits."""
        ...

    def source(self, split: str) -> Source:
        """Return the cases of one of ``SPLITS``."""
        ...


def open_dataset(config: ConfigDict, workdir: pathlib.Path) -> Dataset:
    """Open the data set.

    Args:
        config: as given, or completed.
        workdir: of the run; keeps what was found in a folder of files.

    Returns:
        The data set; cases are read when they are asked for.

    Raises:
        InputError: the data set is not there, or has faults.
    """
    match config.data.source:
        case "tfds":
            return _TfdsDataset(config)
        case "folder":
            _check_apart(config.data.path, workdir)
            return open_folder(
                _folder_options(config),
                # Seeds of one split can be compared, and their mean scored.
                seed=config.data.get("split_seed", config.seed),
                num_threads=config.data.num_threads,
                scan_cache=workdir / "dataset.json",
            )
        case _:
            raise InputError(
                f"data.source: unknown source {config.data.source!r}; expected one of "
                "'tfds', 'folder', 'path_or_tfds'"
            )


def _check_apart(path: str, workdir: pathlib.Path) -> None:
    """Refuse a run in the folder of its data: files there could have its names.

    nnU-Net's data sets, for one, have a dataset.json.
    """
    if path and pathlib.Path(path).expanduser().resolve() == workdir.resolve():
        raise InputError(
            f"--workdir {workdir}: is data.path, the folder of the images; name another"
        )


def _folder_options(config: ConfigDict) -> FolderOptions:
    """Take the keys of the folder source out of the config."""
    if not config.data.path:
        raise InputError(
            "data.path: found nothing, expected a folder with images and masks; give "
            "--config.data.path=FOLDER"
        )
    keys = [field.name for field in dataclasses.fields(FolderOptions)]
    values = {key: config.data[key] for key in keys}
    # Before slices have an axis, that of RAS volumes is the likeliest.
    values["slice_axis"] = 2 if values["slice_axis"] is None else values["slice_axis"]
    return FolderOptions(**values)


class _TfdsDataset:
    """A TFDS set; the keys of the config name its splits."""

    def __init__(self, config: ConfigDict) -> None:
        """Open nothing yet: who scores the test split needs no other."""
        self._config = config
        self._sources: dict[str, TfdsSource] = {}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Describe every split."""
        return {split: self.source(split).fingerprint for split in SPLITS}

    def source(self, split: str) -> TfdsSource:
        """Return the cases of one split."""
        if split not in self._sources:
            self._sources[split] = _tfds_source(self._config, split)
        return self._sources[split]


def _tfds_source(config: ConfigDict, split: str) -> TfdsSource:
    """Open one split of a TFDS set."""
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
        (read_case(source, index) for index in range(len(source))),
        network_dims=len(config.train.patch_size),
        slice_axis=data.slice_axis,
        spacing=data.spacing,
        size=data.size,
        crop_nonzero=data.crop_nonzero,
        intensity=data.intensity,
    )


def create_prepared_cases(
    config: ConfigDict,
    source: Source,
    preprocessing: Preprocessing,
    store: pathlib.Path,
) -> PreparedCases:
    """Put the training cases on the training grid, slices of volumes first.

    Args:
        config: the resolved config.
        source: the training cases.
        preprocessing: learnt from them.
        store: folder for what does not fit into ``data.cache_gib``.

    Returns:
        Random access to examples: pictures, volumes, or slices of volumes.
    """
    axis = stack_axis(preprocessing, source[0].image.ndim - 1)

    def prepare(case: Case) -> tuple[np.ndarray, np.ndarray]:
        image, inverse = preprocessing.apply(
            case.image,
            case.spacing,
            name=f"case {case.id}",
            reference=case.reference,
        )
        if case.label is None:  # of images alone: nothing reads what stands here
            label = np.zeros(image.shape[:-1], np.int8)
        else:
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
        store=store,
        labelled=reads_labels(config.loss),
        num_threads=config.data.num_threads,
    )


def create_batches(
    config: ConfigDict,
    source: Source,
    preprocessing: Preprocessing,
    workdir: pathlib.Path,
    *,
    whole: bool = False,
) -> TrainIterator:
    """Start the input pipeline of this process, of its part or the whole batches.

    Args:
        config: the resolved config.
        source: the cases to draw from.
        preprocessing: learnt from the training split.
        workdir: folder for what does not fit into memory.
        whole: give every process the whole batches.

    Returns:
        Endless batches.
    """
    store = workdir / "prepared" / str(jax.process_index())
    return make_train_iterator(
        create_prepared_cases(config, source, preprocessing, store),
        seed=config.seed,
        global_batch_size=config.train.batch_size,
        patch_size=tuple(config.train.patch_size),
        foreground_oversampling=config.data.foreground_oversampling,
        process_index=0 if whole else jax.process_index(),
        process_count=1 if whole else jax.process_count(),
        rows_at_once=None if whole else jax.local_device_count(),
        num_threads=config.data.num_threads,
        prefetch_batches=config.data.prefetch_batches,
    )


_NOT_THE_NETWORKS = (
    "name",
    "head",
    "dtype",
    "base_features",
    "max_features",
    "clusters",
)
"""Keys of ``model`` that are no attributes of a network."""


def _channels(config: ConfigDict) -> int:
    """Channels of the scores: classes, or the clusters of a W-Net."""
    classes, clusters = len(config.data.class_names), config.model.get("clusters")
    if clusters is None:
        return classes
    if config.model.name != "wnet" or clusters < classes:
        raise InputError(
            f"model.clusters: found {clusters} with model.name={config.model.name!r}; "
            f"expected None, or with 'wnet' at least {classes}, the number of classes"
        )
    return int(clusters)


def create_network(
    config: ConfigDict, *, axis_name: str | None, formulation: str | None = None
) -> UNet | WNet:
    """Build the network of a config.

    Args:
        config: the resolved config.
        axis_name: of the mapped devices in training; None in inference.
        formulation: of its operations, to compile for another platform; None for what
            suits this one.

    Returns:
        A linen module ``(batch, *spatial, channels) -> logits``.

    Raises:
        InputError: the model or an option of it is unknown.
    """
    options = {
        key: value
        for key, value in config.model.items()
        if key not in _NOT_THE_NETWORKS
    }
    size = tuple(config.train.patch_size)
    patch = jax.ShapeDtypeStruct((1, *size, 1), np.float32)
    try:
        network = create_model(
            name=config.model.name,
            num_classes=_channels(config),
            dtype=config.model.dtype,
            axis_name=axis_name,
            formulation=formulation or _formulation(config),
            **options,
        )
        # Shapes alone, on no device: what does not fit together shows here.
        jax.eval_shape(network.init, jax.random.key(0), patch)
        return network
    except (ValueError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"model: {first_line}") from None


def _formulation(config: ConfigDict) -> str | None:
    """What suits this platform, and the options that networks are compiled with."""
    if config.model.dtype == "float32" and onednn_options() is not None:
        return "onednn"
    return None


def create_augmentation(config: ConfigDict) -> dict[str, Any] | None:
    """Check the augmentation's options.

    Args:
        config: the resolved config.

    Returns:
        Options of ``augment_batch``; None where augmentation is off.

    Raises:
        InputError: a value is out of bounds.
    """
    options = {k: v for k, v in config.augment.to_dict().items() if v is not None}
    if not options.pop("enabled"):
        return None
    try:
        resolve_options(options)
    except ValueError as error:
        raise InputError(f"augment: {error}") from None
    return options


def create_optimizer_and_schedule(
    config: ConfigDict,
) -> tuple[optax.GradientTransformation, Schedule]:
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
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        gradient_clip=options.gradient_clip,
    )
    return optimizer, schedule


def create_train_step(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    loss_terms: Sequence[LossTerm],
    *,
    formulation: str | None = None,
) -> TrainStep:
    """Build the training step of a config, to be mapped over ``AXIS``.

    Args:
        config: the resolved config.
        optimizer: from `create_optimizer_and_schedule`.
        loss_terms: the summands of the loss.
        formulation: see `create_network`.

    Returns:
        ``train_step(state, batch, *, axis_name)``.
    """
    return make_train_step(
        create_network(config, axis_name=AXIS, formulation=formulation),
        optimizer,
        loss_terms=loss_terms,
        include_background=config.data.include_background,
        augmentation=create_augmentation(config),
        seed=config.seed,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
    )


def create_forward(
    config: ConfigDict, network: nn.Module, *, mirrored: bool = False
) -> WindowForward:
    """Compile the network for windows.

    Args:
        config: the resolved config.
        network: from `create_network`.
        mirrored: give the mean over the mirror images that training saw.
    """
    return make_forward(
        network,
        head=config.model.head,
        mirror_axes=_mirror_axes(config) if mirrored else (),
        in_turn=_in_turn(config),
    )


def _in_turn(config: ConfigDict) -> bool:
    """Whether the windows of a call go through the network one after the other.

    On a CPU several windows of a volume at once are no faster, and take the memory of
    several; several calls have the system clear that memory for each of them.
    """
    return len(config.train.patch_size) == 3 and jax.default_backend() == "cpu"


def create_predict_fn_maker(
    config: ConfigDict, preprocessing: Preprocessing, *, validation: bool
) -> Callable[[dict[str, Any]], Segmenter]:
    """Build ``variables -> predict_fn``; all of them share one compiled network.

    Args:
        config: the resolved config.
        preprocessing: learnt from the training split.
        validation: for validation between the steps: with its own overlap, and never
            over mirrored images, which takes several times as long.

    Returns:
        A function of the network's variables.
    """
    network = create_network(config, axis_name=None)
    mirrored = config.eval.mirror and not validation
    forward = create_forward(config, network, mirrored=mirrored)
    overlap = config.eval.validation_overlap if validation else config.eval.overlap
    patch = tuple(config.train.patch_size)
    lost, multiple = None, None
    # A W-Net makes the whole image again, so it has no U-Net without padding.
    if isinstance(network, UNet) and network.padding == "VALID":
        lost, multiple = margin(network, len(patch)), total_stride(network, len(patch))
        # A patch may leave logits that suffice to learn from, but not to tile.
        patch = tiling_size(network, patch)

    def with_variables(variables: dict[str, Any]) -> Segmenter:
        predict_fn = make_predict_fn(
            forward,
            variables,
            preprocessing,
            num_classes=_channels(config),
            patch_size=patch,
            overlap=overlap,
            window_batch=_window_batch(config),
            margin=lost,
            multiple=multiple,
        )
        return dataclasses.replace(predict_fn, strict=not validation)

    return with_variables


_BATCH_BYTES, _BATCH_BYTES_IN_TURN = 2**25, 2**24
"""Scores of a batch of windows; a large volume needs the memory for itself."""


def _window_batch(config: ConfigDict) -> int:
    """Windows in one call of the network: those of the config, or fewer if large."""
    patch = tuple(config.train.patch_size)
    most = _BATCH_BYTES_IN_TURN if _in_turn(config) else _BATCH_BYTES
    fitting = most // (4 * math.prod(patch) * _channels(config))
    return max(1, min(config.eval.window_batch, fitting))


def _mirror_axes(config: ConfigDict) -> tuple[int, ...]:
    """Axes that training mirrored."""
    augment = config.augment
    if not (augment.enabled and augment.flip_probability > 0):
        return ()
    axes = len(config.train.patch_size)
    return tuple(axis for axis in augment.spatial_axes_flip if axis < axes)


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
    predict_fn: Segmenter


def _read_run(workdir: pathlib.Path) -> tuple[ConfigDict, Preprocessing]:
    """Read the record of a run as config and preprocessing, if it makes sense."""
    record, path = read_finished_record(workdir), workdir / "config.json"
    try:
        config = ConfigDict(as_tuples(record["config"]))
        check_config(config, complete=True)
        return config, Preprocessing.from_dict(record["preprocessing"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Keys that are missing or of another type: somebody's edit, another version.
        found = " ".join(str(error).split())
        raise InputError(
            f"{path}: does not describe a run ({found}); restore the file, or use the "
            "version of unet_jax that wrote it"
        ) from error


def open_run_data(workdir: pathlib.Path) -> Dataset:
    """Open the data of a run, if they are still those that it was trained on.

    Args:
        workdir: folder of the run.

    Returns:
        The data set; no checkpoint is read for it.

    Raises:
        InputError: there is no run, or its data are gone or changed.
    """
    config, _ = _read_run(workdir)
    dataset = open_dataset(config, workdir)
    check_same_data(workdir, read_finished_record(workdir), dataset.fingerprint)
    return dataset


def _check_weights(
    path: pathlib.Path,
    config: ConfigDict,
    preprocessing: Preprocessing,
    variables: dict[str, Any],
) -> None:
    """Refuse the weights of another network, before they are used."""
    size = (*config.train.patch_size, preprocessing.channels)
    network = create_network(config, axis_name=None)
    patch = jax.ShapeDtypeStruct((1, *size), np.float32)
    expected = dict(jax.eval_shape(network.init, jax.random.key(0), patch))
    check_fit(path, saved=variables, template={"batch_stats": {}, **expected})


def load_run(workdir: pathlib.Path) -> TrainedRun:
    """Load the best checkpoint of a run; nothing but its workdir is needed.

    Args:
        workdir: folder of the run.

    Returns:
        The run's network with its preprocessing.

    Raises:
        InputError: there is no run, or no checkpoint that can be read.
    """
    config, preprocessing = _read_run(workdir)
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
    _check_weights(
        workdir / "checkpoints" / str(step), config, preprocessing, variables
    )
    make_predict_fn = create_predict_fn_maker(config, preprocessing, validation=False)
    predict_fn = make_predict_fn(variables)
    steps = read_steps(workdir, config.eval.postprocess)
    predict_fn = dataclasses.replace(predict_fn, steps=steps)
    predict_fn = predict_fn.named(read_clusters_of_classes(workdir))
    return TrainedRun(config, preprocessing, step, predict_fn)


def read_clusters_of_classes(
    workdir: pathlib.Path,
) -> tuple[tuple[int, ...], ...] | None:
    """Return which clusters are which class, for a run that learnt from images alone.

    Args:
        workdir: folder of the run.

    Returns:
        For each class its clusters, as matched on the training split; None where
        nothing was matched: a run with labels, or one that is not finished.
    """
    path = workdir / "clusters.json"
    if not path.exists():
        return None
    try:
        groups = json.loads(path.read_text())["clusters_of_class"]
        return tuple(tuple(int(one) for one in group) for group in groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    """Say in one line that what a run chose at its end cannot be read."""
    return InputError(
        f"{path}: cannot be read ({type(error).__name__}: {error}); restore it, or "
        "remove it and start the training command again, which makes it"
    )


def read_steps(workdir: pathlib.Path, wanted: Any) -> tuple[Step, ...]:
    """Return what is done to the labels of a run: as configured, or as it was chosen.

    Args:
        workdir: folder of the run.
        wanted: ``eval.postprocess`` of its config.

    Returns:
        The steps; () for "auto" before they are chosen.

    Raises:
        InputError: the steps are of another form.
    """
    path = workdir / "postprocess.json"
    if wanted == "auto":
        if not path.exists():
            return ()
        try:
            wanted = json.loads(path.read_text())["steps"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, error) from error
    try:
        steps = tuple(
            (str(name), int(index), number) for name, index, number in wanted or ()
        )
        apply_steps(np.zeros((1, 1), np.uint8), steps)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"eval.postprocess: {error}; expected 'auto', or steps such as "
            "(('largest_component', 1, None), ('min_size', 1, 20))"
        ) from None
    return steps
