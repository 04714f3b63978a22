"""The one training loop, from a config to the scores of the test split."""

import contextlib
import dataclasses
import itertools
import json
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source
from unet_jax.data.images_alone import ImagesAlone
from unet_jax.data.pipeline import TrainIterator, make_train_iterator
from unet_jax.data.preprocess import Preprocessing
from unet_jax.data.shares import class_shares
from unet_jax.errors import InputError
from unet_jax.evaluate import PredictFn, evaluate
from unet_jax.experiment import (
    SPLITS,
    create_augmentation,
    create_network,
    create_optimizer_and_schedule,
    create_predict_fn_maker,
    create_prepared_cases,
    create_train_step,
    fit_preprocessing,
    open_dataset,
    read_steps,
)
from unet_jax.report.curves import write_curves
from unet_jax.report.progress import Progress
from unet_jax.report.summary import run_summary
from unet_jax.report.writer import MetricWriter
from unet_jax.score import score_run
from unet_jax.segment import stack_axis
from unet_jax.settings import check_config, complete_config, resolve_source
from unet_jax.training.checkpoint import Checkpoints, has_checkpoint, transfer
from unet_jax.training.compilation import step_cost, use_compilation_cache
from unet_jax.training.held_out import create_held_out_losses, held_out_spec
from unet_jax.training.images_alone import check_losses_of_images, make_validation
from unet_jax.training.loss_terms import (
    LossTerm,
    create_loss_terms,
    needs_shares,
    reads_labels,
)
from unet_jax.training.pace import ClockPace, Pace, StepPace
from unet_jax.training.state import TrainState, create_train_state, replicate
from unet_jax.training.step import (
    check_batch_size,
    pmap_train_step,
    shard_batch,
)
from unet_jax.training.window import MetricWindow
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
) -> dict[str, Any]:
    """Train a network, choose its best checkpoint and score the test split.

    A workdir with a checkpoint is resumed; one that is complete is left alone.

    Args:
        config: the resolved config.
        workdir: folder of the run.
        profile: first and last step of a jax profiler trace, or None.

    Returns:
        The content of test_metrics.json.

    Raises:
        InputError: the config, the data or the workdir cannot be used.
        RunError: the loss became NaN or infinite.
    """
    # ---- What can be checked before any work ----
    began = time.monotonic()
    config = resolve_source(config)
    check_config(config)
    optimizer, schedule = create_optimizer_and_schedule(config)
    create_loss_terms(config.loss, head=config.model.head)
    create_held_out_losses(
        held_out_spec(config.eval.metrics, config.loss), head=config.model.head
    )
    check_losses_of_images(
        config.loss,
        model=config.model.name,
        padding=config.model.padding,
        deep_supervision=config.model.deep_supervision,
        foreground_oversampling=config.data.foreground_oversampling,
    )
    create_augmentation(config)
    read_steps(workdir, config.eval.postprocess)
    record = read_record(workdir)
    if not has_checkpoint(workdir / "checkpoints"):
        record = None  # it saved nothing: this config may be another
    use_compilation_cache(config.compilation_cache_dir)

    # ---- Data, and the settings that are left to it ----
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
    loss_terms = _create_loss_terms(config, seen["train"])
    step_function = _create_step(config, optimizer, loss_terms)
    if record is not None:
        check_same_run(workdir, record, config.to_dict(), dataset.fingerprint)
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
    else:
        preprocessing = fit_preprocessing(config, seen["train"])
    write_record(
        workdir,
        make_record(
            config.to_dict(),
            preprocessing=preprocessing.to_dict(),
            dataset=dataset.fingerprint,
        ),
    )
    batches = _create_batches(config, seen["train"], preprocessing, workdir)

    # ---- State: from the last checkpoint, from another run, or new ----
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = _create_state(config, optimizer, preprocessing)
    first_step = checkpoints.latest_step() or 0
    best = {"score": None, "step": None, "evaluations_since": 0, "stopped": False}
    if first_step:
        state, place, best = checkpoints.restore(None, state)
        batches.set_state(place)
    elif config.init_from:
        state = _init_from(state, pathlib.Path(config.init_from))
    pace = _create_pace(config, best, first_step, began)
    if first_step:
        print(f"resumed at step {first_step} of {pace.total_steps}")
    if pace.is_over or best["stopped"]:
        batches.close()
        return _finish(config, workdir, sources, checkpoints.best_step())

    # ---- Compile, and say what will run ----
    state = replicate(state)
    shapes = _batch_shapes(config, preprocessing)
    compiled = step_function.lower(state, shapes).compile()
    print(
        run_summary(
            model=config.model.name,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            step_cost=step_cost(compiled),
            splits={
                name: class_shares(source, tuple(config.data.class_names))
                for name, source in seen.items()
            },
        )
    )
    validate = _create_validation(config, preprocessing, seen, loss_terms, workdir)

    # ---- The loop ----
    with (
        checkpoints,
        contextlib.closing(batches),
        contextlib.closing(MetricWriter(workdir, resume_step=first_step)) as writer,
        Progress(
            pace.total_steps,
            images_per_step=config.train.batch_size,
            initial=first_step,
            score_name="val Dice" if reads_labels(config.loss) else "minus val loss",
        ) as progress,
    ):
        window = MetricWindow(config.train.batch_size)
        pace.ready()
        for step in itertools.count(first_step + 1):
            _trace(profile, step, workdir)
            batch = shard_batch(next(batches), jax.local_device_count())
            rate = float(schedule(pace.place(step)))
            state, metrics = compiled(
                dataclasses.replace(state, learning_rate=jnp.float32(rate)), batch
            )
            window.add(metrics, learning_rate=rate)
            evaluates, last = pace.after(step)
            if evaluates or step % config.log.every_steps == 0:
                window.write(step, writer, last_good=checkpoints.latest_step())
            progress.update(step, loss=window.last_loss, total=pace.total_steps)
            if not evaluates:
                continue
            jax.block_until_ready(metrics)  # Steps under way are no validation.
            paused = time.monotonic()
            rows = validate(state.eval_variables)
            for split, scores in rows.items():
                writer.write(step, split, scores)
            writer.flush()
            # Without labels it is the loss that chooses, and never Dice.
            values = rows["val"]
            score = values["dice"] if "dice" in values else -values["loss"]
            best = _updated(best, step, score, config)
            checkpoints.save(
                step,
                state,
                iterator_state=batches.get_state(),
                record={**best, **pace.record()},
                score=score,
            )
            pace.validated(time.monotonic() - paused)
            progress.paused(time.monotonic() - paused)
            progress.update(step, score=score)
            progress.write(_validation_line(step, rows, best))
            window.restart_clock()
            if last or best["stopped"]:
                break
    return _finish(config, workdir, sources, best["step"])


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
    shares = None
    if needs_shares(config.loss):
        counted = class_shares(source, tuple(config.data.class_names))
        shares = tuple(counted.shares.values())
    return create_loss_terms(config.loss, head=config.model.head, shares=shares)


def _create_step(
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    loss_terms: tuple[LossTerm, ...],
) -> Any:
    """Build the pmap-ed step, for a batch that the devices can share."""
    check_batch_size(
        config.train.batch_size,
        devices=jax.device_count(),
        accumulation=config.train.accumulation,
        processes=jax.process_count(),
    )
    return pmap_train_step(create_train_step(config, optimizer, loss_terms))


def _create_batches(
    config: ConfigDict,
    source: Source,
    preprocessing: Preprocessing,
    workdir: pathlib.Path,
    *,
    whole: bool = False,
) -> TrainIterator:
    """Start the input pipeline of this process, of its part or the whole batches."""
    store = workdir / "prepared" / str(jax.process_index())
    return make_train_iterator(
        create_prepared_cases(config, source, preprocessing, store),
        seed=config.seed,
        global_batch_size=config.train.batch_size,
        patch_size=tuple(config.train.patch_size),
        foreground_oversampling=config.data.foreground_oversampling,
        process_index=0 if whole else jax.process_index(),
        process_count=1 if whole else jax.process_count(),
        num_threads=config.data.num_threads,
        prefetch_batches=config.data.prefetch_batches,
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


def _sample(source: Source, count: int, preprocessing: Preprocessing) -> list[Case]:
    """Choose training images to score on the same footing as the validation split.

    They are ``count`` pictures, or as many slices of the first volume, spread evenly.
    """
    first = source[0]
    axis = stack_axis(preprocessing, first.image.ndim - 1)
    if axis is None:
        chosen = np.linspace(0, len(source) - 1, min(count, len(source)), dtype=int)
        return [source[int(index)] for index in chosen]
    size = first.image.shape[axis]
    chosen = np.linspace(0, size - 1, min(count, size), dtype=int)
    return [
        Case(
            id=f"{first.id}:sample",
            image=np.take(first.image, chosen, axis),
            label=None if first.label is None else np.take(first.label, chosen, axis),
            spacing=first.spacing,
            group=first.group,
            reference=first.reference,
        )
    ]


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


def _create_validation(
    config: ConfigDict,
    preprocessing: Preprocessing,
    sources: dict[str, Source],
    loss_terms: tuple[LossTerm, ...],
    workdir: pathlib.Path,
) -> Callable[[dict[str, Any]], dict[str, dict[str, float]]]:
    """Build ``variables -> {split: scores}``: Dice, or of images alone the loss."""
    if reads_labels(config.loss):
        maker = create_predict_fn_maker(config, preprocessing, validation=True)
        sample = _sample(sources["train"], config.eval.train_images, preprocessing)
        return lambda variables: {
            "train": _validate(config, maker(variables), sample),
            "val": _validate(config, maker(variables), sources["validation"]),
        }
    count = -(-config.eval.train_images // config.train.batch_size)
    folder = workdir / "validation"
    # The same crops in every process: they have to agree on the best step.
    crops = _create_batches(
        config, sources["validation"], preprocessing, folder, whole=True
    )
    with contextlib.closing(crops):
        images = [batch["image"] for batch in itertools.islice(crops, count)]
    network = create_network(config, axis_name=None)
    validate = make_validation(network, loss_terms, images)
    return lambda variables: {"val": validate(variables)}


def _validate(
    config: ConfigDict, predict_fn: PredictFn, cases: Source | list[Case]
) -> dict[str, float]:
    """Score Dice of each class and of the foreground; NaN where there is none."""
    results = evaluate(
        predict_fn,
        (cases[index] for index in range(len(cases))),
        class_names=tuple(config.data.class_names),
        include_background=config.data.include_background,
        metrics=("dice",),  # surfaces take their time
    )
    values = {"dice": results["mean"]["dice"]}
    for name, scores in results["per_class"].items():
        values[f"dice/{name}"] = scores["dice"]
    return {key: math.nan if v is None else v for key, v in values.items()}


def _updated(
    best: dict[str, Any], step: int, score: float, config: ConfigDict
) -> dict[str, Any]:
    """Return the best-score record after a validation; a NaN is never better."""
    if math.isfinite(score) and (best["score"] is None or score > best["score"]):
        return {"score": score, "step": step, "evaluations_since": 0, "stopped": False}
    since = best["evaluations_since"] + 1
    patience = config.train.early_stopping_patience
    stopped = patience > 0 and since >= patience
    return {**best, "evaluations_since": since, "stopped": stopped}


def _validation_line(
    step: int, rows: dict[str, dict[str, float]], best: dict[str, Any]
) -> str:
    """Write one line for the log."""
    validation = rows["val"]
    parts = ", ".join(
        f"{key.removeprefix('dice/').removesuffix('_loss')} {value:.3f}"
        for key, value in validation.items()
        if key not in ("dice", "loss")
    )
    note = " (best)" if best["step"] == step else ""
    if best["stopped"]:
        note = f"; no better for {best['evaluations_since']} validations: stopping"
    if "dice" not in validation:
        return f"step {step}: validation loss {validation['loss']:.4f}{note} [{parts}]"
    return (
        f"step {step}: Dice train {rows['train']['dice']:.4f}, validation "
        f"{validation['dice']:.4f}{note} [{parts}]"
    )


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
