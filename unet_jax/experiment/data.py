"""Opens the data of a run: splits, preprocessing, prepared cases and batches."""

import dataclasses
import pathlib
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.folder.dataset import FolderOptions, open_folder
from unet_jax.data.grids import apply_label
from unet_jax.data.pipeline import PreparedCases, TrainIterator, make_train_iterator
from unet_jax.data.preprocess import Preprocessing, fit
from unet_jax.data.tfds.source import TfdsSource
from unet_jax.errors import InputError
from unet_jax.inference.segmenter import (
    stack_axis,
)
from unet_jax.losses.terms import reads_labels

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
        InputError: the data set is not there, or has problems.
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
        std_key=data.std_key or None,
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
