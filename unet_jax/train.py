"""The one training loop, from a config to the scores of the test split."""

import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from unet_jax.data.case import Source
from unet_jax.data.images_alone import ImagesAlone
from unet_jax.data.preprocess import Preprocessing
from unet_jax.data.shares import class_shares
from unet_jax.errors import InputError
from unet_jax.experiment import (
    SPLITS,
    create_augmentation,
    create_batches,
    create_network,
    create_optimizer_and_schedule,
    fit_preprocessing,
    open_dataset,
    read_steps,
)
from unet_jax.guard.disk import disk_faults
from unet_jax.guard.lease import Lease
from unet_jax.guard.stop import Stop
from unet_jax.guard.watchdog import Watchdog
from unet_jax.loop import Loop
from unet_jax.report.curves import write_curves
from unet_jax.report.progress import Progress
from unet_jax.report.summary import run_summary
from unet_jax.report.writer import MetricWriter
from unet_jax.score import score_run
from unet_jax.settings import check_config, complete_config, resolve_source
from unet_jax.training.checkpoint import Checkpoints, transfer
from unet_jax.training.compilation import step_cost, use_compilation_cache
from unet_jax.training.held_out import create_held_out_losses, held_out_spec
from unet_jax.training.images_alone import check_losses_of_images
from unet_jax.training.loss_terms import (
    LossTerm,
    create_loss_terms,
    needs_shares,
    reads_labels,
)
from unet_jax.training.pace import ClockPace, Pace, StepPace
from unet_jax.training.resume import RunCheckpoints, has_checkpoint, last_good
from unet_jax.training.state import AXIS, TrainState, create_train_state, replicate
from unet_jax.training.step import (
    check_batch_size,
    make_train_step,
    pmap_train_step,
)
from unet_jax.validation import create_validation
from unet_jax.workdir import (
    as_tuples,
    check_same_run,
    make_record,
    read_finished_record,
    read_record,
    write_record,
)


def train_and_evaluate(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    profile: tuple[int, int] | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Train a network, choose its best checkpoint and score the test split.

    A workdir with a checkpoint is resumed; one that is complete is left alone.

    Args:
        config: the resolved config.
        workdir: folder of the run.
        profile: first and last step of a jax profiler trace, or None.
        stop: tells when the run is asked to stop; None where nobody asks.

    Returns:
        The content of test_metrics.json.

    Raises:
        InputError: the config, the data or the workdir cannot be used.
        RunError: the loss became NaN or infinite, or a disk failed.
        Stopped: the run was asked to stop, and has saved where it stands.
    """
    began = time.monotonic()
    stop = stop or Stop()
    config = resolve_source(config)
    _check(config, workdir)
    read_record(workdir)  # a folder that is no run's stays as it is
    with Lease(workdir) as lease:
        stop.on_exit(lease.release)
        run = _prepare(config, workdir, profile)
        with disk_faults(workdir, last_good=lambda: last_good(workdir)):
            best_step = _train(run, began=began, lease=lease, stop=stop)
            return _finish(run.config, workdir, run.sources, best_step)


def _check(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse what can be refused before any work."""
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
class _Run:
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
    schedule: optax.Schedule
    loss_terms: tuple[LossTerm, ...]


def _prepare(
    config: ConfigDict, workdir: pathlib.Path, profile: tuple[int, int] | None
) -> _Run:
    """Open the data, fill in what is left to them, and write the record of the run."""
    record = read_record(workdir)
    if not has_checkpoint(workdir):
        record = None  # it saved nothing: this config may be another
    use_compilation_cache(config.compilation_cache_dir)
    given_axis = config.data.slice_axis
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
    run = _Run(
        config=config,
        workdir=workdir,
        profile=profile,
        sources=sources,
        seen=seen,
        preprocessing=preprocessing,
        optimizer=optimizer,
        schedule=schedule,
        loss_terms=_create_loss_terms(config, seen["train"]),
    )
    create_step(config, optimizer, run.loss_terms)  # refuses before anything is written
    write_record(
        workdir,
        make_record(
            config.to_dict(),
            preprocessing=preprocessing.to_dict(),
            dataset=dataset.fingerprint,
        ),
    )
    return run


_NEW_RECORD = {"score": None, "step": None, "evaluations_since": 0, "stopped": False}


def _train(run: _Run, *, began: float, lease: Lease, stop: Stop) -> int | None:
    """Take up the last checkpoint, train to the end, and return the best step."""
    config, workdir = run.config, run.workdir
    batches = create_batches(config, run.seen["train"], run.preprocessing, workdir)
    with contextlib.closing(batches), RunCheckpoints(workdir) as checkpoints:
        # ---- State: from the last checkpoint, from another run, or new ----
        state = _create_state(config, run.optimizer, run.preprocessing)
        first_step, record = checkpoints.latest_step(), dict(_NEW_RECORD)
        if first_step:
            _, state, place, record = checkpoints.restore(state)
            batches.set_state(place)
        elif config.init_from:
            state = _init_from(state, pathlib.Path(config.init_from))
        pace = _create_pace(config, record, first_step, began)
        if first_step:
            print(f"resumed at step {first_step} of {pace.total_steps}")
        due = bool(record.get("evaluation_due"))
        if (pace.is_over or record["stopped"]) and not due:
            return checkpoints.best_step()

        # ---- Compile, and say what will run ----
        state = replicate(state)
        step_function = create_step(config, run.optimizer, run.loss_terms)
        shapes = _batch_shapes(config, run.preprocessing)
        compiled = step_function.lower(state, shapes).compile()
        _print_summary(run, state, compiled)
        with (
            contextlib.closing(
                MetricWriter(
                    workdir,
                    resume_step=first_step,
                    resume_size=record.get("metrics_bytes"),
                )
            ) as writer,
            Progress(
                pace.total_steps,
                images_per_step=config.train.batch_size,
                initial=first_step,
                score_name=_score_name(config),
            ) as progress,
            Watchdog(
                config.train.step_timeout, last_good=lambda: last_good(workdir)
            ) as watchdog,
        ):
            loop = Loop(
                config=config,
                step_function=compiled,
                schedule=run.schedule,
                batches=batches,
                validate=create_validation(
                    config,
                    run.preprocessing,
                    run.seen,
                    run.loss_terms,
                    workdir,
                    check=stop.check,
                ),
                checkpoints=checkpoints,
                pace=pace,
                writer=writer,
                progress=progress,
                watchdog=watchdog,
                lease=lease,
                stop=stop,
                trace=lambda step: _trace(run.profile, step, workdir),
            )
            return loop.run(state, step=first_step, record=record)


def _print_summary(run: _Run, state: TrainState, compiled: Any) -> None:
    """Say what will run."""
    names = tuple(run.config.data.class_names)
    print(
        run_summary(
            model=run.config.model.name,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            step_cost=step_cost(compiled),
            splits={
                name: class_shares(source, names) for name, source in run.seen.items()
            },
        )
    )


def _score_name(config: ConfigDict) -> str:
    """The name of the number that chooses, for the progress line."""
    return "val Dice" if reads_labels(config.loss) else "minus val loss"


def _create_pace(
    config: ConfigDict, record: dict[str, Any], first_step: int, began: float
) -> Pace:
    """Count steps, or look at the clock."""
    train = config.train
    if not train.max_minutes:
        return StepPace(
            train.steps, every_steps=config.eval.every_steps, first_step=first_step
        )
    if jax.process_count() > 1:
        raise InputError(
            "train.max_minutes: clocks of several processes differ; give train.steps"
        )
    print(
        f"this run ends after {train.max_minutes:g} minutes of training: how many "
        "steps that is differs from time to time, so its weights cannot be reproduced "
        "bit by bit"
    )
    return ClockPace(
        train.max_minutes,
        schedule_steps=train.steps,
        record=record,
        first_step=first_step,
        began=began,
    )


def _create_loss_terms(config: ConfigDict, source: Source) -> tuple[LossTerm, ...]:
    """Build the losses; those weighted by class count the training split."""
    shares, names = None, tuple(config.data.class_names)
    if needs_shares(config.loss):
        counted = class_shares(source, names, limit=len(source))
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
        make_train_step(
            create_network(config, axis_name=AXIS),
            optimizer,
            loss_terms=loss_terms,
            include_background=config.data.include_background,
            augmentation=create_augmentation(config),
            seed=config.seed,
            accumulation=config.train.accumulation,
            ema_decay=config.train.ema_decay,
        )
    )


def _create_state(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    preprocessing: Preprocessing,
) -> TrainState:
    """Initialise the state on all devices."""
    state = create_train_state(
        create_network(config, axis_name=None),
        optimizer,
        seed=config.seed,
        input_shape=(*config.train.patch_size, preprocessing.channels),
        ema=config.train.ema_decay > 0,
    )
    return replicate(state)


def _init_from(state: TrainState, workdir: pathlib.Path) -> TrainState:
    """Take the weights of another run's best checkpoint, naming what does not fit."""
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


def _batch_shapes(
    config: ConfigDict, preprocessing: Preprocessing
) -> dict[str, jax.ShapeDtypeStruct]:
    """Describe a sharded batch, so that the step compiles before data is there."""
    devices = jax.local_device_count()
    rows = (devices, config.train.batch_size // jax.device_count())
    patch = tuple(config.train.patch_size)
    return {
        "image": jax.ShapeDtypeStruct(
            (*rows, *patch, preprocessing.channels), np.float32
        ),
        "label": jax.ShapeDtypeStruct((*rows, *patch), np.int32),
        "example_index": jax.ShapeDtypeStruct(rows, np.int32),
    }


def _check_profile(profile: tuple[int, int] | None, steps: int) -> None:
    """Refuse a trace that the run would never begin or end."""
    if profile is not None and not 1 <= profile[0] < profile[1] <= steps:
        raise InputError(
            f"--profile: found {profile[0]}:{profile[1]}, expected two steps of the "
            f"run, 1 to train.steps={steps}, the first one smaller"
        )


def _trace(profile: tuple[int, int] | None, step: int, workdir: pathlib.Path) -> None:
    """Start and stop the jax profiler at the steps that the user named."""
    if profile is not None and step == profile[0]:
        jax.profiler.start_trace(str(workdir / "profile"))
    if profile is not None and step == profile[1]:
        jax.profiler.stop_trace()
        print(f"profile of steps {profile[0]} to {profile[1]}: {workdir / 'profile'}")


def _finish(
    config: ConfigDict,
    workdir: pathlib.Path,
    sources: dict[str, Source],
    checkpoint_step: int | None,
) -> dict[str, Any]:
    """Draw the curves and score the best checkpoint, if that is still to do."""
    path = workdir / "test_metrics.json"
    if path.exists():
        results = json.loads(path.read_text())
        if results.get("checkpoint_step") == checkpoint_step:
            print(f"{workdir} is complete: nothing to do; its scores are in {path}")
            return results
    write_curves(
        workdir / "metrics.jsonl",
        workdir / "figures" / "curves.png",
        class_names=tuple(config.data.class_names),
        class_colors=tuple(config.data.class_colors),
    )
    return score_run(workdir, sources)
