"""Opens the data of a run: splits, preprocessing, prepared cases and batches."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source, facts_of, read_case
from unet_jax.data.folder.division import RecordedSplits
from unet_jax.data.folder.open import open_folder
from unet_jax.data.folder.options import FolderOptions
from unet_jax.data.folder.watch import Watch
from unet_jax.data.grids import apply_label
from unet_jax.data.memory import CaseMemory
from unet_jax.data.pipeline import TrainIterator, make_train_iterator
from unet_jax.data.prepared import PreparedCases
from unet_jax.data.preprocess import Preprocessing, fit
from unet_jax.data.regions import regions_from
from unet_jax.data.schemes import learns_percentiles
from unet_jax.data.tfds.source import TfdsSource
from unet_jax.errors import InputError, setting
from unet_jax.experiment.drawn_images import DrawnImages, draw_images
from unet_jax.experiment.kept_cases import kept_cases
from unet_jax.experiment.labels_only import labels_only
from unet_jax.experiment.network import crop_size
from unet_jax.experiment.previous_stage import has_previous, previous_changes
from unet_jax.inference.member import Previous, stack_axis
from unet_jax.losses.terms import reads_labels
from unet_jax.report.progress import ReadingBar
from unet_jax.runtime.home import expanded

SPLITS = ("train", "validation", "test")


class Dataset(Protocol):
    """A data set that is cut into splits."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Entry of config.json; equal for equal content and splits."""
        ...

    @property
    def splits_record(self) -> dict[str, Any] | None:
        """What a workdir keeps of drawn splits beside their ids; None if none are."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Lines on how files were paired, labels mapped and splits made."""
        ...

    def source(self, split: str) -> Source:
        """Return the cases of one of ``SPLITS``."""
        ...


def check_same_spacing(
    workdir: pathlib.Path, record: Mapping[str, Any], dataset: Dataset
) -> None:
    """Refuse a folder without spacings if the run took the median of spacings.

    Version 0.1 took the resolution in dpi of a TIFF for the size of a pixel.

    Raises:
        InputError: the first training case has no spacing now.
    """
    trained = record["preprocessing"].get("spacing")
    source = dataset.source("train")
    of_median = record["config"]["data"].get("spacing") == "median"
    if trained is None or not of_median or not hasattr(source, "facts"):
        return
    first = facts_of(source, 0)
    if first.spacing is None:
        raise InputError(
            f"--workdir {workdir}: its run was trained on pixels of {tuple(trained)} "
            f"mm, but the case {first.id} states no pixel size; expected one, and a "
            "resolution in dpi is none; train again in another --workdir"
        )


def create_memory(config: ConfigDict) -> CaseMemory:
    """Make the memory for cases that are read before training and prepared later."""
    return CaseMemory(_cache_bytes(config))


def _cache_bytes(config: ConfigDict) -> int:
    """Return the memory for cases in bytes."""
    return int(config.data.cache_gib * 2**30)


def open_dataset(
    config: ConfigDict,
    workdir: pathlib.Path | None,
    *,
    memory: CaseMemory | None = None,
    recorded: RecordedSplits | None = None,
    watch: Watch | None = None,
) -> Dataset:
    """Open the data set.

    Args:
        workdir: folder of the run; keeps the facts of the cases of a folder. None to
            read all files again and to keep nothing.
        memory: memory for the training cases, so that each is read once; None if
            nothing is trained.
        recorded: splits of a folder that the run recorded; None for a new run.
        watch: is told what is read of a folder; None for a bar alone.

    Raises:
        InputError: the data set does not exist, or has problems.
    """
    match config.data.source:
        case "tfds":
            return _TfdsDataset(config, memory or CaseMemory(0))
        case "folder":
            if workdir is not None:
                _check_apart(config.data.path, workdir)
            with contextlib.closing(ReadingBar()) as bar:
                opened = open_folder(
                    _folder_options(config),
                    # Not the run's seed: runs of several seeds have the same splits.
                    seed=config.data.get("split_seed", config.seed),
                    num_threads=config.data.num_threads,
                    scan_cache=None if workdir is None else workdir / "dataset.json",
                    memory=memory,
                    recorded=recorded,
                    watch=watch or Watch(bar.step),
                )
            # A record of an earlier version has no such key.
            return draw_images(config, opened) if labels_only(config) else opened
        case _:
            raise InputError(
                f"data.source: unknown source {config.data.source!r}; expected one of "
                "'tfds', 'folder', 'path_or_tfds'"
            )


def recorded_splits(record: Mapping[str, Any] | None) -> RecordedSplits | None:
    """Return the splits of a folder that a run recorded; None for no record."""
    if record is None or record["config"]["data"]["source"] != "folder":
        return None
    if not record["dataset"]:
        raise InputError(
            "--workdir: holds an imported network without data. To score it, import it "
            "again with --config=configs/folder.py --config.data.path=FOLDER; to train "
            "on, name the folder in --config.init_from of a new run."
        )
    try:
        ids = {split: record["dataset"][split]["ids"] for split in SPLITS}
        return RecordedSplits(ids, **(record["splits"] or {}))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"config.json: does not describe the splits of a run ({error!r}); restore "
            "the file"
        ) from None


def _check_apart(path: str, workdir: pathlib.Path) -> None:
    """Refuse a run in the folder of its data, where files could have the same names.

    nnU-Net's data sets, for example, have a dataset.json.
    """
    if path and pathlib.Path(expanded(path)).resolve() == workdir.resolve():
        raise InputError(
            f"--workdir {workdir}: is data.path, the folder of the images; name another"
        )


def _folder_options(config: ConfigDict) -> FolderOptions:
    """Take the options of a folder from the config."""
    if not config.data.path:
        raise InputError(
            "data.path: found nothing, expected a folder with images and masks; give "
            "--config.data.path=FOLDER"
        )
    keys = [field.name for field in dataclasses.fields(FolderOptions)]
    # A record of an earlier version has not all keys.
    values = {key: config.data[key] for key in keys if key in config.data}
    # Until the axis of slices is known, the last axis of RAS is the likeliest.
    values["slice_axis"] = 2 if values["slice_axis"] is None else values["slice_axis"]
    regions = regions_from(config.data.get("regions"), class_names=None)
    values["regions"] = () if regions is None else regions.entries
    return FolderOptions(**values)


class _TfdsDataset:
    """Opens the splits of a TFDS set that the config names."""

    def __init__(self, config: ConfigDict, memory: CaseMemory) -> None:
        """Open nothing yet: scoring the test split needs no other split."""
        self._config = config
        self._memory = memory
        self._sources: dict[str, TfdsSource] = {}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Describe every split."""
        return {split: self.source(split).fingerprint for split in SPLITS}

    @property
    def splits_record(self) -> None:
        """Nothing: the set comes with its splits."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: a set states its labels and splits itself."""
        return ()

    def source(self, split: str) -> TfdsSource:
        """Return the cases of one split."""
        if split not in self._sources:
            # Only training prepares and so releases its cases.
            memory = self._memory if split == "train" else CaseMemory(0)
            self._sources[split] = _tfds_source(self._config, split, memory)
        return self._sources[split]


def _tfds_source(config: ConfigDict, split: str, memory: CaseMemory) -> TfdsSource:
    """Open one split of a TFDS set."""
    data = config.data
    return TfdsSource(
        name=data.name,
        split=data[f"{split}_split"],
        image_key=data.image_key,
        label_key=data.label_key,
        label_map=tuple(data.label_map) or None,
        num_classes=len(data.class_names),
        memory=memory,
        **{key: data[key] or None for key in _TFDS_KEYS},
    )


_TFDS_KEYS = (
    *("data_dir", "volume_key", "slice_index_key"),
    *("spacing_key", "group_key", "mean_key", "std_key"),
)
"""Keys whose "" is None in `TfdsSource`."""


def fit_preprocessing(config: ConfigDict, source: Source) -> Preprocessing:
    """Learn the preprocessing from the training split; read pixels only if needed."""
    data = config.data
    adjacent = data.get("adjacent_slices", 0)
    if adjacent and len(source) and facts_of(source, 0).axes == 2:
        raise InputError(
            f"data.adjacent_slices: found {adjacent} for pictures, expected 0; write "
            f"{setting('data.adjacent_slices', 0)}, or {setting('data.stack', True)} "
            "where a folder holds the slices of a volume"
        )
    look = read_case if learns_percentiles(data.intensity) else facts_of
    if has_previous(config):
        axes = facts_of(source, 0).axes if len(source) else 3
        if axes != len(config.train.patch_size):
            raise InputError(
                "data.previous_stage: found a 2-D network of volumes, expected a 3-D "
                f"one; write {setting('data.dims', 3)}"
            )
    return fit(
        (look(source, index) for index in range(len(source))),
        network_dims=len(config.train.patch_size),
        slice_axis=data.slice_axis,
        spacing=data.spacing,
        size=data.size,
        crop_nonzero=data.crop_nonzero,
        intensity=data.intensity,
        zero_outside=data.get("zero_outside", False),
        resampling=data.get("resampling", "linear"),
        adjacent_slices=adjacent,
    )


def create_prepared_cases(
    config: ConfigDict,
    source: Source,
    preprocessing: Preprocessing,
    store: pathlib.Path,
    previous: Previous | None = None,
) -> PreparedCases:
    """Bring the training cases to the training grid, and keep what fits into memory.

    With the network of a previous stage the class that it gives is one more channel.
    """
    if isinstance(source, DrawnImages) and config.augment.enabled:
        # The step draws the images, another one for every crop.
        source, preprocessing = source.label_maps, preprocessing.without_scaling()
    axis = stack_axis(preprocessing, facts_of(source, 0).axes)

    def prepare(case: Case) -> tuple[np.ndarray, np.ndarray]:
        image, inverse = preprocessing.apply(
            case.image, case.spacing, name=f"case {case.id}", reference=case.reference
        )
        if previous is not None:
            labels = previous(case.image, case.spacing, reference=case.reference)
            classes = apply_label(labels, inverse)[..., None].astype(np.float32)
            image = np.concatenate([image, classes], axis=-1)
        if case.label is None:  # training on images alone, which reads no label
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
        adjacent_slices=preprocessing.adjacent_slices,
        previous_classes=0 if previous is None else previous.classes,
        cache_bytes=_cache_bytes(config),
        seed=config.seed,
        store=store,
        labelled=reads_labels(config.loss),
        kept=kept_cases(config, source, preprocessing, whole=previous is None),
        num_threads=config.data.num_threads,
    )


def create_batches(
    config: ConfigDict,
    source: Source,
    preprocessing: Preprocessing,
    workdir: pathlib.Path,
    *,
    whole: bool = False,
    augmented: bool = True,
    previous: Previous | None = None,
) -> TrainIterator:
    """Start the input pipeline of this process.

    Args:
        workdir: folder for the cases that do not fit into memory.
        whole: whether every process gets whole batches instead of its own rows.
        augmented: whether crops have the pixels beside them that augmentation reads.
        previous: network of the previous stage; None where there is none.
    """
    patch = tuple(config.train.patch_size)
    spacing = preprocessing.grid_spacing
    store = workdir / "prepared" / str(jax.process_index())
    return make_train_iterator(
        create_prepared_cases(config, source, preprocessing, store, previous),
        seed=config.seed,
        global_batch_size=config.train.batch_size,
        patch_size=patch,
        source_size=crop_size(config, spacing) if augmented else patch,
        change=previous_changes(config) if augmented else None,
        foreground_oversampling=config.data.foreground_oversampling,
        process_index=0 if whole else jax.process_index(),
        process_count=1 if whole else jax.process_count(),
        rows_at_once=None if whole else jax.local_device_count(),
        num_threads=config.data.num_threads,
        prefetch_batches=config.data.prefetch_batches,
    )
