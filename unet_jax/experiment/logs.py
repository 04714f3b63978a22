"""Opens the logs of a run: metrics, progress line, summary and curves."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.pipeline import TrainIterator
from unet_jax.experiment.regions import regions_of, scored_names
from unet_jax.experiment.run import Run
from unet_jax.hosts import agree
from unet_jax.losses.terms import reads_labels
from unet_jax.report.curves import write_curves
from unet_jax.report.progress import Progress
from unet_jax.report.summary import run_summary
from unet_jax.report.writer import MetricWriter, NoWriter
from unet_jax.runtime.compilation import step_cost
from unet_jax.training.log import TrainingLog
from unet_jax.training.nonfinite import NonfiniteSteps, group_names
from unet_jax.training.pace import Pace
from unet_jax.training.step import TrainState


@contextlib.contextmanager
def open_log(
    run: Run,
    batches: TrainIterator,
    state: TrainState,
    first_step: int,
    pace: Pace,
    record: dict[str, Any],
) -> Iterator[TrainingLog]:
    """Open metrics.jsonl and the progress line; only the first process writes.

    Args:
        batches: training batches, which can name an example.
        record: record of the checkpoint that is resumed.
    """
    config = run.config
    writer: MetricWriter | NoWriter = NoWriter()
    if agree.is_first():
        size = record.get("metrics_bytes")
        writer = MetricWriter(run.workdir, resume_step=first_step, resume_size=size)
    with (
        contextlib.closing(writer),
        Progress(
            pace.total_steps,
            images_per_step=config.train.batch_size,
            initial=first_step,
            score_name="val Dice" if reads_labels(config.loss) else "minus val loss",
            stream=None if agree.is_first() else open(os.devnull, "w"),
        ) as progress,
    ):
        nonfinite = NonfiniteSteps(
            allowed=config.train.skip_nonfinite,
            record=record,
            groups=group_names(state.params),
            name_example=batches.name,
            report=progress.write,
        )
        yield TrainingLog(
            writer,
            progress,
            nonfinite,
            batch_size=config.train.batch_size,
            rows=record.get("window"),
        )


def print_summary(run: Run, state: TrainState, compiled: Any) -> None:
    """Print model, cost of a step and data."""
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
            extents={
                name: source.extent()
                for name, source in run.sources.items()
                if hasattr(source, "extent")
            },
        )
    )
    for split, source in run.sources.items():
        if split != "train" and hasattr(source, "thinnest_slab"):
            text = thin_slab(split, source.thinnest_slab(), run.config.train.patch_size)
            if text is not None:
                print(text)


def thin_slab(
    split: str, slab: tuple[int, int] | None, patch_size: Sequence[int]
) -> str | None:
    """Say that windows are mostly padding where a slab is scored without the rest.

    Args:
        slab: axis and number of planes of the split's thinnest slab; None for none.
        patch_size: size of a window; of two axes for a 2-D network, which sees a slab's
            slices whole.
    """
    if slab is None or len(patch_size) == 2:
        return None
    axis, planes = slab
    if 2 * planes > patch_size[axis]:
        return None
    return (
        f"warning     {split}: a slab of {planes} planes fills less than half of a "
        f"window of {patch_size[axis]}; the rest is padding, so scores are lower than "
        "for a whole image: give more images, or train in 2-D"
    )


def draw_curves(run: Run) -> None:
    """Draw the curves of metrics.jsonl."""
    colors = tuple(run.config.data.class_colors)
    if (regions := regions_of(run.config)) is not None:
        colors = tuple(colors[one.written] for one in regions.entries)
    write_curves(
        run.workdir / "metrics.jsonl",
        run.workdir / "figures" / "curves.png",
        class_names=scored_names(run.config),
        class_colors=colors,
    )
