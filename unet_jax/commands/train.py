"""From a config to a trained network and the scores of its test split."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from unet_jax.bucket.mirror import Mirror
from unet_jax.bucket.place import copy_of
from unet_jax.commands.evaluate import score_run
from unet_jax.commands.loop import Loop
from unet_jax.data.case import Source
from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.pipeline import TrainIterator
from unet_jax.errors import InputError, RunError
from unet_jax.experiment.complete import resolve_source
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.record import read_record
from unet_jax.experiment.run import (
    Run,
    batch_shapes,
    check,
    count_memory,
    create_state,
    create_step,
    init_from,
    prepare,
)
from unet_jax.experiment.validation import create_validation
from unet_jax.hosts import agree
from unet_jax.hosts.lost import leaving_when_lost
from unet_jax.losses.terms import reads_labels
from unet_jax.report.curves import write_curves
from unet_jax.report.progress import Progress
from unet_jax.report.summary import run_summary
from unet_jax.report.writer import MetricWriter, NoWriter
from unet_jax.runtime.compilation import compiler_options, step_cost
from unet_jax.runtime.disk import disk_problems
from unet_jax.runtime.lease import Lease, NoLease
from unet_jax.runtime.stop import Stop
from unet_jax.runtime.watchdog import Watchdog
from unet_jax.training.finite import group_names
from unet_jax.training.memory import StepMemory, compile_step, explained
from unet_jax.training.nonfinite import NonfiniteSteps
from unet_jax.training.pace import ClockPace, Pace, StepPace
from unet_jax.training.resume import RunCheckpoints, last_good
from unet_jax.training.state import TrainState


def train_and_evaluate(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    profile: tuple[int, int] | None = None,
    stop: Stop | None = None,
    bucket: Mirror | None = None,
) -> dict[str, Any]:
    """Train a network, choose its best checkpoint and score the test split.

    A workdir with a checkpoint is resumed; one that is complete is left alone.

    Args:
        config: the resolved config.
        workdir: folder of the run.
        profile: first and last step of a jax profiler trace, or None.
        stop: tells when the run is asked to stop; None where nobody asks.
        bucket: of which the workdir is a copy; None where the workdir is all there is.

    Returns:
        The content of test_metrics.json.

    Raises:
        InputError: the config, the data or the workdir cannot be used.
        RunError: the loss or a gradient became NaN or infinite, a case could not be
            read any more, memory ran out, or a disk failed.
        Stopped: the run was asked to stop, and has saved where it stands.
    """
    began = time.monotonic()
    stop = stop or Stop()
    config = resolve_source(config)
    check(config, workdir)
    read_record(workdir)  # a folder that is no run's stays as it is
    safe = bucket.last_good if bucket is not None else lambda: last_good(workdir)
    with (
        leaving_when_lost(stop, safe=safe),
        _lease(workdir) as lease,
    ):
        stop.on_exit(lease.release)
        agree.check_shared(workdir)
        run = prepare(config, workdir, profile)
        with disk_problems(workdir, last_good=safe):
            best_step = _train(
                run, began=began, lease=lease, stop=stop, bucket=bucket, safe=safe
            )
            return _finish(run.config, workdir, run.sources, best_step, bucket)


@contextlib.contextmanager
def _lease(workdir: pathlib.Path) -> Iterator[Lease | NoLease]:
    """Take the lease of the workdir: one process for all of them."""
    taken: list[Lease] = []
    agree.on_first(lambda: taken.append(Lease(workdir)))
    with taken[0] if taken else NoLease() as lease:
        yield lease


_NEW_RECORD = {"score": None, "step": None, "evaluations_since": 0, "stopped": False}


def _train(
    run: Run,
    *,
    began: float,
    lease: Lease | NoLease,
    stop: Stop,
    bucket: Mirror | None,
    safe: Callable[[], str],
) -> int | None:
    """Take up the last checkpoint, train to the end, and return the best step."""
    config, workdir = run.config, run.workdir
    batches = create_batches(config, run.seen["train"], run.preprocessing, workdir)
    with (
        contextlib.closing(batches),
        RunCheckpoints(workdir, bucket=bucket) as checkpoints,
    ):
        state, first_step, record = _first_state(run, batches, checkpoints)
        pace = _create_pace(config, record, first_step, began)
        if first_step:
            print(f"resumed at step {first_step} of {pace.total_steps}")
        due = bool(record.get("evaluation_due"))
        if (pace.is_over or record["stopped"]) and not due:
            return checkpoints.best_step()

        compiled, memory = _compile(run, state)
        _print_summary(run, state, compiled)
        with (
            contextlib.closing(_open_writer(workdir, first_step, record)) as writer,
            Progress(
                pace.total_steps,
                images_per_step=config.train.batch_size,
                initial=first_step,
                score_name=_score_name(config),
                stream=None if agree.is_first() else open(os.devnull, "w"),
            ) as progress,
            Watchdog(config.train.step_timeout, last_good=safe) as watchdog,
            explained(
                lambda text: f"{memory.explain(text)}; {checkpoints.last_good()}",
                RunError,
            ),
        ):
            nonfinite = NonfiniteSteps(
                allowed=config.train.skip_nonfinite,
                record=record,
                groups=group_names(state.params),
                name_example=batches.name,
                report=progress.write,
            )
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
                    stop=stop,
                ),
                checkpoints=checkpoints,
                pace=pace,
                nonfinite=nonfinite,
                writer=writer,
                progress=progress,
                watchdog=watchdog,
                lease=lease,
                stop=stop,
                trace=lambda step: _trace(run.profile, step, workdir),
            )
            with leaving_when_lost(stop, safe=safe):
                return loop.run(state, step=first_step, record=record)


def _first_state(
    run: Run, batches: TrainIterator, checkpoints: RunCheckpoints
) -> tuple[TrainState, int, dict[str, Any]]:
    """Give state, steps done and record: of a checkpoint, of another run, or new."""
    config = run.config
    state = create_state(config, run.optimizer, run.preprocessing)
    if checkpoints.latest_step():
        step, state, place, record = checkpoints.restore(state)
        batches.set_state(place)
        return state, step, record
    if config.init_from:
        with copy_of(config.init_from) as source:
            state = init_from(state, source)
    return state, 0, dict(_NEW_RECORD)


def _compile(run: Run, state: TrainState) -> tuple[Any, StepMemory]:
    """Compile the step, and count what memory it takes."""
    config = run.config
    shapes = batch_shapes(config, run.preprocessing)
    compiled, memory = compile_step(
        create_step(config, run.optimizer, run.loss_terms),
        state,
        shapes,
        count_memory(config, state, shapes),
        options=compiler_options(config.deterministic),
    )
    # One process may find the step in its cache while another compiles: the first
    # step would be taken for one that hangs.
    agree.wait_for_compiles()
    return compiled, memory


def _open_writer(
    workdir: pathlib.Path, first_step: int, record: dict[str, Any]
) -> MetricWriter | NoWriter:
    """Write down what the first process sees, from where the run goes on."""
    if not agree.is_first():
        return NoWriter()
    return MetricWriter(
        workdir, resume_step=first_step, resume_size=record.get("metrics_bytes")
    )


def _print_summary(run: Run, state: TrainState, compiled: Any) -> None:
    """Say what will run."""
    names = tuple(run.config.data.class_names)
    print(
        run_summary(
            model=run.config.model.name,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            step_cost=step_cost(compiled),
            splits={
                name: class_fractions(source, names)
                for name, source in run.seen.items()
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
    bucket: Mirror | None,
) -> dict[str, Any]:
    """Draw the curves and score the best checkpoint, if that is still to do."""
    path = workdir / "test_metrics.json"
    try:
        results = json.loads(path.read_text())
        if results["checkpoint_step"] == checkpoint_step:
            print(f"{workdir} is complete: nothing to do; its scores are in {path}")
            return results
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # missing or damaged: they are made anew
    if agree.is_first():
        _draw_curves(config, workdir)
    if bucket is not None:
        bucket.share()  # the checkpoints, which the first process alone has
    return score_run(workdir, sources)


def _draw_curves(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Draw the curves of metrics.jsonl."""
    write_curves(
        workdir / "metrics.jsonl",
        workdir / "figures" / "curves.png",
        class_names=tuple(config.data.class_names),
        class_colors=tuple(config.data.class_colors),
    )
