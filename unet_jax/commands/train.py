"""Trains a network: `train_and_evaluate` is a run from its config to its scores.

Read it from top to bottom: the run is built (`experiment/run.py`), `_train` opens what
the loop needs, `_train_steps` is the loop, and what it calls follows in order.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from ml_collections import ConfigDict

from unet_jax.bucket.mirror import Mirror
from unet_jax.bucket.place import copy_of
from unet_jax.commands.evaluate import read_scores, score_run
from unet_jax.commands.report import refresh_page
from unet_jax.data.pipeline import TrainIterator
from unet_jax.errors import RunError, Stopped, setting
from unet_jax.experiment.complete import resolve_source
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.finished import form_of, init_from
from unet_jax.experiment.logs import draw_curves, open_log, print_summary
from unet_jax.experiment.network import input_channels
from unet_jax.experiment.record import check_same_draws, check_same_labels, read_record
from unet_jax.experiment.run import Run, check, create_run
from unet_jax.experiment.validation import (
    Rows,
    create_validation,
    score_of,
    updated_best,
    validation_line,
)
from unet_jax.hosts import agree
from unet_jax.report.figure import problem_of_drawing
from unet_jax.runtime.profiler import check_profile, trace
from unet_jax.runtime.shown_path import shown
from unet_jax.runtime.stop import Stop
from unet_jax.training.devices import distribute, local_copy, shard_batch
from unet_jax.training.guard import Guard, guarding
from unet_jax.training.log import Row, TrainingLog
from unet_jax.training.memory import explained
from unet_jax.training.nonfinite import reading_data
from unet_jax.training.pace import Pace, create_pace
from unet_jax.training.resume import RunCheckpoints, last_good
from unet_jax.training.step import TrainState

_NEW_RECORD = {"score": None, "step": None, "evaluations_since": 0, "stopped": False}
"""Record of the best score, before the first validation."""


def train_and_evaluate(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    profile: tuple[int, int] | None = None,
    stop: Stop | None = None,
    bucket: Mirror | None = None,
) -> dict[str, Any]:
    """Train a network, choose its best checkpoint and score the test split.

    A workdir with a checkpoint is resumed; a complete one is left alone.

    Args:
        profile: first and last step of a jax profiler trace, or None.
        stop: requests to stop; None if there are none.
        bucket: the bucket that the workdir is a copy of; None for a plain folder.

    Returns:
        The content of test_metrics.json.

    Raises:
        InputError: the config, the data or the workdir cannot be used.
        RunError: the loss or a gradient became NaN or infinite, a case became
            unreadable, memory ran out, or a disk failed.
        Stopped: the run was asked to stop, and saved its state.
    """
    began = time.monotonic()
    config = resolve_source(config)
    check(config, workdir)
    read_record(workdir)  # refuses the folder of something else before it is touched
    with guarding(
        workdir,
        stop=stop or Stop(),
        step_timeout=config.train.step_timeout,
        last_good=bucket.last_good if bucket else lambda: last_good(workdir),
    ) as guard:
        run = create_run(config, workdir)
        check_profile(profile, run.config.train.steps)
        best_step = _train(run, guard, began=began, profile=profile, bucket=bucket)
        return _finish(run, best_step, bucket)


@dataclasses.dataclass(frozen=True)
class _Session:
    """What the loop holds open beside state and step."""

    run: Run
    guard: Guard
    batches: TrainIterator
    checkpoints: RunCheckpoints
    pace: Pace
    log: TrainingLog
    validate: Callable[[dict[str, Any]], Rows]


def _train(
    run: Run,
    guard: Guard,
    *,
    began: float,
    profile: tuple[int, int] | None,
    bucket: Mirror | None,
) -> int | None:
    """Resume or begin a run, train it, and return the step whose weights are kept."""
    config, workdir = run.config, run.workdir
    seen, previous = run.seen["train"], run.previous
    batches = create_batches(
        config, seen, run.preprocessing, workdir, previous=previous
    )
    with (
        contextlib.closing(batches),
        RunCheckpoints(workdir, bucket=bucket) as checkpoints,
        guard.leaving_when_lost(),
    ):
        state, first_step, record = _first_state(run, batches, checkpoints)
        pace = create_pace(
            minutes=config.train.max_minutes,
            steps=config.train.steps,
            every_steps=config.eval.every_steps,
            log_steps=config.log.every_steps,
            record=record,
            first_step=first_step,
            began=began,
        )
        if first_step:
            print(f"resumed at step {first_step} of {pace.total_steps}")
        if (pace.is_over or record["stopped"]) and not record.get("evaluation_due"):
            return checkpoints.best_step() or checkpoints.latest_step()
        if not pace.is_over:
            check_same_draws(workdir, config, run.draws_version)
            check_same_labels(
                workdir,
                config,
                run.labels_version,
                resampled=run.preprocessing.resamples,
            )

        train_step, memory = run.compile_step(state)
        print_summary(run, state, train_step)
        with (
            open_log(run, batches, state, first_step, pace, record) as log,
            explained(memory.explain, RunError),
        ):
            validate = create_validation(run, stop=guard.stop)
            session = _Session(run, guard, batches, checkpoints, pace, log, validate)
            best_step = _train_steps(
                session, train_step, state, first_step, record, profile=profile
            )
        if account := pace.account():
            print(f"time        {account}")
        return best_step


def _train_steps(
    session: _Session,
    train_step: Callable[..., Any],
    state: TrainState,
    first_step: int,
    record: Mapping[str, Any],
    *,
    profile: tuple[int, int] | None,
) -> int | None:
    """Train, validate and save until the run is over; return the step to keep."""
    run, guard, pace, log = session.run, session.guard, session.pace, session.log
    best = {key: record[key] for key in _NEW_RECORD}
    over = pace.is_over
    pace.ready()
    with guard.stop.saving():
        if record.get("evaluation_due"):  # the run was stopped just before it
            best = _validate(session, state, first_step, best)
        for step in itertools.count(first_step + 1):
            if over or best["stopped"]:
                break
            if guard.must_stop(step - 1):
                with guard.watching(f"step {step - 1}"):
                    rows = log.pending(step - 1)
                _save_and_stop(session, state, step - 1, best, rows=rows)
            trace(profile, step, run.workdir)

            # ---- One step: handed to the device; the log waits for its metrics.
            with guard.watching(f"step {step}"):
                with reading_data(step):
                    rows_here = shard_batch(
                        next(session.batches), jax.local_device_count()
                    )
                rate = run.schedule(pace.place(step))
                state, metrics = train_step(
                    state.with_learning_rate(rate), distribute(guard.vote(rows_here))
                )
                log.add(guard.count_votes(metrics), learning_rate=rate)
                due, over = pace.after(step)
                if due or pace.logs(step):
                    log.write_steps(step)
            log.show_step(step, total=pace.total_steps)

            if due:
                if guard.must_stop(step):
                    _save_and_stop(session, state, step, best, evaluation_due=True)
                best = _validate(session, state, step, best)
    with guard.watching("the last checkpoint"):
        session.checkpoints.wait()
    return best["step"] or session.checkpoints.latest_step()


def _validate(
    session: _Session, state: TrainState, step: int, best: dict[str, Any]
) -> dict[str, Any]:
    """Validate and save after a step; return the new record of the best."""
    guard, log = session.guard, session.log
    with guard.watching(f"step {step}"):
        jax.block_until_ready(state)  # steps under way are no validation
    began = time.monotonic()
    try:
        with _validating(step, session.run.config):
            scores = session.validate(local_copy(state.eval_variables))
    except Stopped:
        _save_and_stop(session, state, step, best, evaluation_due=True)
    log.write_scores(step, scores)
    score = score_of(scores)
    choice = score if session.run.config.eval.choose == "best" else float(step)
    best = updated_best(best, step, choice, session.run.config)
    with guard.watching(f"the checkpoint of step {step}"):
        guard.lease.check()
        session.checkpoints.save(
            step,
            state,
            place=session.batches.get_state(),
            record={**best, **session.pace.record(), **log.record()},
            score=choice,
        )
    seconds = time.monotonic() - began
    session.pace.validated(seconds)
    line = validation_line(step, scores, best)
    log.show_validation(step, score=score, line=line, seconds=seconds)
    refresh_page(session.run.workdir)
    return best


@contextlib.contextmanager
def _validating(step: int, config: ConfigDict) -> Iterator[None]:
    """Name the step and the fix if a case, or memory, is missing in validation."""
    line = (
        f"step {step}: validation ran out of memory; give "
        f"{setting('eval.window_batch', max(1, config.eval.window_batch // 2))} (now "
        f"{config.eval.window_batch}), or lower train.patch_size"
    )
    with reading_data(step), explained(lambda _: line, RunError):
        yield


def _save_and_stop(
    session: _Session,
    state: TrainState,
    step: int,
    best: dict[str, Any],
    *,
    rows: list[Row] | None = None,
    evaluation_due: bool = False,
) -> NoReturn:
    """Save the run as it stands after a step, and stop it."""
    guard, checkpoints = session.guard, session.checkpoints
    if step:
        record = {
            **{**best, **session.pace.record(), **session.log.record()},
            **{"window": rows or [], "evaluation_due": evaluation_due},
        }
        with guard.watching(f"the checkpoint of step {step}"):
            guard.lease.check()
            checkpoints.wait()
            if step != checkpoints.latest_step():
                checkpoints.save_interrupted(
                    step, state, place=session.batches.get_state(), record=record
                )
    raise guard.stopped(step) from None


def _first_state(
    run: Run, batches: TrainIterator, checkpoints: RunCheckpoints
) -> tuple[TrainState, int, dict[str, Any]]:
    """Return state, steps done and record: resumed, from another run, or new."""
    if checkpoints.latest_step():
        step, state, place, record = checkpoints.restore(run.state_shapes())
        batches.set_state(place)
        return state, step, record
    state = run.create_state()
    if run.config.init_from:
        with copy_of(run.config.init_from) as source:
            channels = input_channels(run.config, run.preprocessing)
            form = form_of(run.config, channels)
            state = init_from(state, source, run.network, form)
    return state, 0, dict(_NEW_RECORD)


def _finish(
    run: Run, checkpoint_step: int | None, bucket: Mirror | None
) -> dict[str, Any]:
    """Draw the curves and score the best checkpoint, unless that is done."""
    workdir = run.workdir
    results = read_scores(workdir, run.config, checkpoint_step)
    if results is not None:
        print(
            f"{shown(workdir)} is complete: nothing to do; its scores are in "
            f"{shown(workdir / 'test_metrics.json')}"
        )
        return results
    if agree.is_first() and (problem := problem_of_drawing(draw_curves, run)):
        print(f"curves.png is not drawn ({problem})")
    if bucket is not None:
        bucket.distribute()  # the checkpoints, which the first process alone has
    return score_run(workdir, run.sources, compiled=run.compiled)
