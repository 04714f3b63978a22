"""Builds a run from its config: data, network, losses, optimizer and step."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from unet_jax.data.case import Source
from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.images_alone import ImagesAlone
from unet_jax.data.labelled_classes import with_all_labelled
from unet_jax.data.preprocess import Preprocessing
from unet_jax.evaluation.loss_metrics import create_held_out_losses, held_out_spec
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import complete_config
from unet_jax.experiment.data import (
    Dataset,
    check_same_spacing,
    create_memory,
    fit_preprocessing,
    open_dataset,
    recorded_splits,
)
from unet_jax.experiment.finished import load_run, read_steps
from unet_jax.experiment.inference import CompiledNetwork, compile_network
from unet_jax.experiment.memory_class import MemoryChoice, choose_memory
from unet_jax.experiment.network import (
    create_augmentation,
    create_network_with_shapes,
    create_optimizer_and_schedule,
    crop_size,
    input_channels,
    score_channels,
)
from unet_jax.experiment.options import given_options
from unet_jax.experiment.previous_stage import (
    PreviousStage,
    adopt_previous_stage,
    has_previous,
    previous_channels,
    previous_stage_of,
)
from unet_jax.experiment.record import (
    DRAWS_VERSION,
    LABELS_VERSION,
    NETWORKS_VERSION,
    as_tuples,
    check_same_run,
    make_record,
    network_of,
    read_record,
    write_record,
)
from unet_jax.experiment.regions import regions_of
from unet_jax.experiment.risk import sources_of
from unet_jax.hosts import agree
from unet_jax.losses.terms import (
    LossTerm,
    create_loss_terms,
    needs_class_fractions,
    reads_labels,
)
from unet_jax.method import Spacing
from unet_jax.models.network import Outputs
from unet_jax.models.presets import check_options
from unet_jax.runtime.compilation import compiler_options, use_compilation_cache
from unet_jax.training.devices import (
    AXIS,
    batch_shapes,
    check_batch_size,
    replicate,
    replicated_shapes,
)
from unet_jax.training.images_alone import check_losses_of_images
from unet_jax.training.memory import StepMemory, compile_step, step_memory
from unet_jax.training.optimizer import Schedule
from unet_jax.training.resume import has_checkpoint
from unet_jax.training.step import (
    TrainState,
    TrainStep,
    create_train_state,
    make_train_step,
    pmap_train_step,
)


def check(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse a config that cannot be used with an InputError, before any work."""
    check_config(config)
    create_optimizer_and_schedule(config)
    names = config.data.class_names
    known = {
        "head": config.model.head,
        "num_classes": None if names is None else len(names),
        "patch_size": config.train.patch_size,
    }
    create_loss_terms(config.loss, **known)
    create_held_out_losses(held_out_spec(config.eval.metrics, config.loss), **known)
    check_losses_of_images(
        config.loss, foreground_oversampling=config.data.foreground_oversampling
    )
    check_options(config.model.name, given_options(config))
    create_augmentation(config)
    read_steps(workdir, config.eval.postprocess)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is made of once the data have been seen; each part is built once.

    Attributes:
        seen: cases of each split as training sees them: without labels if no loss
            reads one.
        compiled: the network for the windows of validation and the test split.
        step: training step mapped over all devices, not compiled yet.
        previous: first stage of this run; None where it has none.
        draws_version: version of the random draws that training began with.
        labels_version: version of how labels change grid that training began with.
    """

    config: ConfigDict
    workdir: pathlib.Path
    sources: dict[str, Source]
    seen: dict[str, Source]
    preprocessing: Preprocessing
    network: nn.Module
    compiled: CompiledNetwork
    optimizer: optax.GradientTransformation
    schedule: Schedule
    loss_terms: tuple[LossTerm, ...]
    step: Any
    previous: PreviousStage | None = None
    draws_version: int = DRAWS_VERSION
    labels_version: int = LABELS_VERSION

    def create_state(self) -> TrainState:
        """Initialise the state of step 0 on all devices."""
        return replicate(self._local_state())

    def state_shapes(self) -> TrainState:
        """Describe the state on all devices, without computing it."""
        return replicated_shapes(jax.eval_shape(self._local_state))

    def _local_state(self) -> TrainState:
        """Initialise the state of step 0."""
        config, channels = self.config, input_channels(self.config, self.preprocessing)
        return create_train_state(
            self.network,
            self.optimizer,
            seed=config.seed,
            input_shape=(*config.train.patch_size, channels),
            ema=config.train.ema_decay > 0,
        )

    def compile_step(self, state: TrainState) -> tuple[Any, StepMemory]:
        """Compile the step, before a batch is there.

        Returns:
            The compiled ``step(state, batch) -> (state, metrics)``, and its memory.

        Raises:
            InputError: the step does not fit into the memory of a device.
        """
        config, train = self.config, self.seen["train"]
        all_labelled = len(with_all_labelled(train)) == len(train)
        shapes = batch_shapes(
            config.train.batch_size,
            patch_size=crop_size(config, self.preprocessing.grid_spacing),
            channels=input_channels(config, self.preprocessing),
            labelled=0 if all_labelled else len(config.data.class_names),
        )
        compiled, memory = compile_step(
            self.step,
            state,
            shapes,
            step_memory(
                state,
                shapes,
                batch_size=config.train.batch_size,
                accumulation=config.train.accumulation,
                devices=jax.device_count(),
                device=jax.local_devices()[0],
            ),
            options=compiler_options(config.deterministic),
        )
        # One process may find the step in its cache while another compiles: the first
        # step would be taken for one that hangs.
        agree.wait_for_compiles()
        return compiled, memory


def create_run(config: ConfigDict, workdir: pathlib.Path) -> Run:
    """Open the data, complete the config, build the run and write its record.

    Args:
        config: a config that `check` accepted.

    Raises:
        InputError: the data, or the workdir, cannot be used.
    """
    record = read_record(workdir)
    if not has_checkpoint(workdir):
        record = None  # it saved nothing: this config may be another
    networks_version = NETWORKS_VERSION
    if record is not None:
        networks_version = record["networks_version"]
        config = _with_network_of(config, networks_version)
    use_compilation_cache(config.compilation_cache_dir)
    config, dataset, memory = _open_and_complete(config, workdir, record)
    sources = sources_of(config, dataset)
    seen = dict(sources)
    if not reads_labels(config.loss):
        # Nothing can read a label before the last checkpoint.
        seen = {split: ImagesAlone(source) for split, source in sources.items()}
    preprocessing, versions = _preprocessing_of(config, workdir, record, dataset, seen)
    run = assemble_run(config, workdir, sources, seen, preprocessing)
    new_record = make_record(
        config.to_dict(),
        preprocessing=preprocessing.to_dict(),
        dataset=dataset.fingerprint,
        memory_source=None if memory is None else memory.source,
        splits=dataset.splits_record,
        networks_version=networks_version,
        **versions,
    )
    agree.on_first(lambda: write_record(workdir, new_record))
    previous = previous_stage_of(config, workdir, load_run)
    return dataclasses.replace(run, previous=previous, **versions)


def _preprocessing_of(
    config: ConfigDict,
    workdir: pathlib.Path,
    record: dict[str, Any] | None,
    dataset: Dataset,
    seen: Mapping[str, Source],
) -> tuple[Preprocessing, dict[str, Any]]:
    """Fit preprocessing and bring the first stage, or take those of the workdir.

    Returns: Preprocessing, and versions of draws and labels that training began with.
    """
    versions: dict[str, Any] = {
        "draws_version": DRAWS_VERSION,
        "labels_version": LABELS_VERSION,
    }
    if record is not None:
        check_same_run(workdir, record, config.to_dict(), dataset.fingerprint)
        check_same_spacing(workdir, record, dataset)
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        versions = {key: record[key] for key in versions}
    else:
        preprocessing = fit_preprocessing(config, seen["train"])
        if has_previous(config):
            agree.on_each_folder(lambda: adopt_previous_stage(config, workdir))
    if has_previous(config):
        agree.on_each_folder(lambda: _predict_first_stage(config, workdir, seen))
    return preprocessing, versions


def _predict_first_stage(
    config: ConfigDict, workdir: pathlib.Path, seen: Mapping[str, Source]
) -> None:
    """Keep the labels of all cases but those of the test split, and no network."""
    previous = previous_stage_of(config, workdir, load_run)
    assert previous is not None, "the run is a second stage"
    for split, source in seen.items():
        if split != "test":
            previous.keep(split, source)


def _open_and_complete(
    config: ConfigDict, workdir: pathlib.Path, record: dict[str, Any] | None
) -> tuple[ConfigDict, Dataset, MemoryChoice | None]:
    """Open the data and fill in what they decide; each process reads the cases once.

    Returns:
        The complete config, the data, and the memory that it is chosen for.
    """
    given_axis, case_memory = config.data.slice_axis, create_memory(config)

    def opened() -> Dataset:
        recorded = recorded_splits(record)
        found = open_dataset(config, workdir, memory=case_memory, recorded=recorded)
        _ = found.fingerprint  # reads every split
        return found

    # The first process prepares the data, or keeps their facts, for all.
    dataset = agree.on_first(opened) or opened()
    memory = choose_memory(config, recorded=record)
    config = complete_config(
        config,
        dataset,
        recorded=None if record is None else as_tuples(record["config"]),
        memory=memory,
    )
    check_config(config, complete=True)
    if config.data.slice_axis != (2 if given_axis is None else given_axis):
        # Slabs are cut along the slices: open it as every later start does.
        dataset = opened()
    return config, dataset, memory


def _with_network_of(config: ConfigDict, networks_version: int) -> ConfigDict:
    """Return a config whose network is the one that its name was in some version."""
    with (found := config.copy_and_resolve_references()).unlocked():
        found.model.name = network_of(config.model.name, networks_version)
    return found.lock()


def assemble_run(
    config: ConfigDict,
    workdir: pathlib.Path,
    sources: dict[str, Source],
    seen: dict[str, Source],
    preprocessing: Preprocessing,
) -> Run:
    """Build network, losses, optimizer and step of a complete config."""
    check_batch_size(
        config.train.batch_size,
        devices=jax.device_count(),
        accumulation=config.train.accumulation,
        processes=jax.process_count(),
    )
    # One network for all: outside of the step its axis name is not read.
    network, shapes = create_network_with_shapes(config, axis_name=AXIS)
    optimizer, schedule = create_optimizer_and_schedule(config)
    loss_terms = loss_terms_of(config, seen.get("train", ()))
    spacing = preprocessing.grid_spacing
    train_step = create_train_step(
        config, network, optimizer, loss_terms, shapes, spacing
    )
    return Run(
        config=config,
        workdir=workdir,
        sources=sources,
        seen=seen,
        preprocessing=preprocessing,
        network=network,
        compiled=compile_network(config, network),
        optimizer=optimizer,
        schedule=schedule,
        loss_terms=loss_terms,
        step=pmap_train_step(train_step, votes=jax.process_count() > 1),
    )


def create_train_step(
    config: ConfigDict,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    loss_terms: Sequence[LossTerm],
    shapes: Outputs,
    spacing: Spacing = None,
) -> TrainStep:
    """Build ``train_step(state, batch, *, axis_name)`` of a config.

    Args:
        shapes: shapes of the network's outputs in training.
        spacing: millimetres per pixel of the training grid, or None.
    """
    augmentation = create_augmentation(config)
    if augmentation is not None:
        patch = tuple(config.train.patch_size)
        augmentation |= {
            "patch_size": patch,
            "spacing": spacing,
            "num_classes": len(config.data.class_names),
            "zero_outside": config.data.zero_outside
            and config.data.intensity == "zscore",
            "full_range": config.data.intensity == "full_range",
            "labels_only": config.data.labels_only,
            "slices": 2 * config.data.get("adjacent_slices", 0) + 1,
            "previous": previous_channels(config),
        }
    regions = regions_of(config)
    num_classes = len(config.data.class_names)
    return make_train_step(
        network,
        optimizer,
        num_classes=num_classes,
        regions=None if regions is None else regions.members(num_classes),
        shapes=shapes,
        loss_terms=loss_terms,
        include_background=config.data.include_background,
        augmentation=augmentation,
        seed=config.seed,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
    )


def loss_terms_of(config: ConfigDict, source: Source) -> tuple[LossTerm, ...]:
    """Build the losses; the source is read only for class weights."""
    fractions, names = None, tuple(config.data.class_names)
    if needs_class_fractions(config.loss):
        counted = class_fractions(source, names, limit=len(source))
        fractions = tuple(counted.fractions.values())
        if (regions := regions_of(config)) is not None:
            fractions = tuple(np.array(fractions) @ regions.members(len(names)))
    return create_loss_terms(
        config.loss,
        head=config.model.head,
        class_fractions=fractions,
        num_classes=score_channels(config),
        patch_size=config.train.patch_size,
    )
