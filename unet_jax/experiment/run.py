"""What a run is made of: data, network, optimiser, step and first state."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from unet_jax.data.case import Source
from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.images_alone import ImagesAlone
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import InputError
from unet_jax.evaluation.loss_metrics import create_held_out_losses, held_out_spec
from unet_jax.experiment.check import check_config
from unet_jax.experiment.complete import complete_config
from unet_jax.experiment.data import SPLITS, fit_preprocessing, open_dataset
from unet_jax.experiment.finished import read_steps
from unet_jax.experiment.network import (
    create_augmentation,
    create_network,
    create_optimizer_and_schedule,
    create_train_step,
)
from unet_jax.experiment.record import (
    as_tuples,
    check_same_run,
    make_record,
    read_finished_record,
    read_record,
    write_record,
)
from unet_jax.hosts import agree
from unet_jax.losses.terms import (
    LossTerm,
    create_loss_terms,
    needs_class_fractions,
    reads_labels,
)
from unet_jax.runtime.compilation import use_compilation_cache
from unet_jax.training.checkpoint import Checkpoints, transfer
from unet_jax.training.images_alone import check_losses_of_images
from unet_jax.training.memory import StepMemory, step_memory
from unet_jax.training.optimizer import Schedule
from unet_jax.training.resume import has_checkpoint
from unet_jax.training.state import (
    TrainState,
    create_train_state,
    distribute,
    replicate,
)
from unet_jax.training.step import STOP, check_batch_size, pmap_train_step


def check(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse what can be refused before any work.

    Args:
        config: with its source resolved.
        workdir: folder of the run.

    Raises:
        InputError: the config cannot be used.
    """
    check_config(config)
    create_optimizer_and_schedule(config)
    names = config.data.class_names
    known = {
        "head": config.model.head,
        "num_classes": None if names is None else len(names),
    }
    create_loss_terms(config.loss, **known)
    create_held_out_losses(held_out_spec(config.eval.metrics, config.loss), **known)
    check_losses_of_images(
        config.loss,
        model=config.model.name,
        padding=config.model.padding,
        deep_supervision=config.model.deep_supervision,
        foreground_oversampling=config.data.foreground_oversampling,
    )
    create_augmentation(config)
    read_steps(workdir, config.eval.postprocess)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is made of, once the data have been seen.

    Attributes:
        config: complete.
        workdir: folder of the run.
        profile: steps to trace, or None.
        sources: the cases of each split.
        seen: the same as training may see them: without labels if no loss reads one.
        preprocessing: learnt from the training split.
        optimizer: the gradient transformation.
        schedule: the learning rate of each step.
        loss_terms: the summands of the loss.
    """

    config: ConfigDict
    workdir: pathlib.Path
    profile: tuple[int, int] | None
    sources: dict[str, Source]
    seen: dict[str, Source]
    preprocessing: Preprocessing
    optimizer: optax.GradientTransformation
    schedule: Schedule
    loss_terms: tuple[LossTerm, ...]


def prepare(
    config: ConfigDict, workdir: pathlib.Path, profile: tuple[int, int] | None
) -> Run:
    """Open the data, fill in what is left to them, and write the record of the run.

    Args:
        config: that `check` let pass.
        workdir: folder of the run.
        profile: first and last step of a jax profiler trace, or None.

    Returns:
        What the run is made of.

    Raises:
        InputError: the data, or the workdir, cannot be used.
    """
    record = read_record(workdir)
    if not has_checkpoint(workdir):
        record = None  # it saved nothing: this config may be another
    use_compilation_cache(config.compilation_cache_dir)
    given_axis = config.data.slice_axis
    agree.on_first(lambda: open_dataset(config, workdir).fingerprint)  # prepares it
    dataset = open_dataset(config, workdir)
    config = complete_config(
        config,
        dataset,
        recorded=None if record is None else as_tuples(record["config"]),
    )
    check_config(config, complete=True)
    if config.data.slice_axis != (2 if given_axis is None else given_axis):
        # As every later start will open it: slabs are cut along the slices.
        dataset = open_dataset(config, workdir)
    _check_profile(profile, config.train.steps)
    sources = {split: dataset.source(split) for split in SPLITS}
    seen = dict(sources)
    if not reads_labels(config.loss):
        # Up to the last checkpoint nothing has a label to read.
        seen = {split: ImagesAlone(source) for split, source in sources.items()}
    if record is not None:
        check_same_run(workdir, record, config.to_dict(), dataset.fingerprint)
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
    else:
        preprocessing = fit_preprocessing(config, seen["train"])
    optimizer, schedule = create_optimizer_and_schedule(config)
    run = Run(
        config=config,
        workdir=workdir,
        profile=profile,
        sources=sources,
        seen=seen,
        preprocessing=preprocessing,
        optimizer=optimizer,
        schedule=schedule,
        loss_terms=loss_terms_of(config, seen["train"]),
    )
    create_step(config, optimizer, run.loss_terms)  # refuses before anything is written
    new_record = make_record(
        config.to_dict(),
        preprocessing=preprocessing.to_dict(),
        dataset=dataset.fingerprint,
    )
    agree.on_first(lambda: write_record(workdir, new_record))
    return run


def loss_terms_of(config: ConfigDict, source: Source) -> tuple[LossTerm, ...]:
    """Build the losses; those weighted by class count the training split.

    Args:
        config: the resolved config.
        source: the training cases.

    Returns:
        The summands of the loss.
    """
    shares, names = None, tuple(config.data.class_names)
    if needs_class_fractions(config.loss):
        counted = class_fractions(source, names, limit=len(source))
        shares = tuple(counted.shares.values())
    return create_loss_terms(
        config.loss, head=config.model.head, shares=shares, num_classes=len(names)
    )


def create_step(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    loss_terms: tuple[LossTerm, ...],
) -> Any:
    """Build the pmap-ed step, for a batch that the devices can share.

    Args:
        config: the resolved config.
        optimizer: the gradient transformation.
        loss_terms: the summands of the loss.

    Returns:
        The mapped step, not compiled yet.

    Raises:
        InputError: the batch does not divide by the devices.
    """
    check_batch_size(
        config.train.batch_size,
        devices=jax.device_count(),
        accumulation=config.train.accumulation,
        processes=jax.process_count(),
    )
    return pmap_train_step(
        create_train_step(config, optimizer, loss_terms),
        votes=jax.process_count() > 1,
    )


def create_state(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    preprocessing: Preprocessing,
) -> TrainState:
    """Initialise the state on all devices.

    Args:
        config: the resolved config.
        optimizer: the gradient transformation.
        preprocessing: learnt from the training split.

    Returns:
        The state of step 0.
    """
    state = create_train_state(
        create_network(config, axis_name=None),
        optimizer,
        seed=config.seed,
        input_shape=(*config.train.patch_size, preprocessing.channels),
        ema=config.train.ema_decay > 0,
    )
    return replicate(state)


def init_from(state: TrainState, workdir: pathlib.Path) -> TrainState:
    """Take the weights of another run's best checkpoint, naming what does not fit.

    Args:
        state: of step 0.
        workdir: folder of the other run.

    Returns:
        The state with its weights and statistics.

    Raises:
        InputError: there is no such run.
    """
    read_finished_record(workdir)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.best_step()
        raw = checkpoints.restore_raw(step)
    params, skipped = transfer(state.params, raw.get("ema_params") or raw["params"])
    batch_stats, unmatched = transfer(state.batch_stats, raw.get("batch_stats") or {})
    skipped += [f"batch_stats/{line}" for line in unmatched]
    print(f"init_from {workdir} (step {step or 'latest'}): {len(skipped)} skipped")
    for line in skipped:
        print(f"  skipped {line}")
    ema_params = state.ema_params
    if ema_params is not None:
        ema_params = jax.tree.map(lambda leaf: leaf.copy(), params)
    return dataclasses.replace(
        state, params=params, batch_stats=batch_stats, ema_params=ema_params
    )


def batch_shapes(config: ConfigDict, preprocessing: Preprocessing) -> dict[str, Any]:
    """Describe a sharded batch, so that the step compiles before data is there.

    Args:
        config: the resolved config.
        preprocessing: learnt from the training split.

    Returns:
        Shapes, or with several processes zeros, by key.
    """
    devices = jax.local_device_count()
    rows = (devices, config.train.batch_size // jax.device_count())
    patch = tuple(config.train.patch_size)
    shapes = {
        "image": ((*rows, *patch, preprocessing.channels), np.float32),
        "label": ((*rows, *patch), np.int32),
        "example_index": (rows, np.int32),
    }
    if jax.process_count() == 1:
        return {key: jax.ShapeDtypeStruct(*kind) for key, kind in shapes.items()}
    # With several processes pmap is lowered for arrays only.
    shapes[STOP] = ((devices,), np.int32)
    return distribute({key: np.zeros(*kind) for key, kind in shapes.items()})


def count_memory(
    config: ConfigDict, state: TrainState, shapes: dict[str, Any]
) -> StepMemory:
    """Count what is known of the step before it is compiled.

    Args:
        config: the resolved config.
        state: of the run.
        shapes: of its batches.
    """
    return step_memory(
        state,
        shapes,
        batch_size=config.train.batch_size,
        accumulation=config.train.accumulation,
        devices=jax.device_count(),
        device=jax.local_devices()[0],
    )


def _check_profile(profile: tuple[int, int] | None, steps: int) -> None:
    """Refuse a trace that the run would never begin or end."""
    if profile is not None and not 1 <= profile[0] < profile[1] <= steps:
        raise InputError(
            f"--profile: found {profile[0]}:{profile[1]}, expected two steps of the "
            f"run, 1 to train.steps={steps}, the first one smaller"
        )
