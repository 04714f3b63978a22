"""Validates between the steps: scores choose the best checkpoint, or end the run."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.class_fractions import has_class
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import Stopped
from unet_jax.evaluation.scorer import evaluate
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.inference import create_predict_fn_maker
from unet_jax.experiment.regions import score_groups
from unet_jax.experiment.run import Run
from unet_jax.hosts import agree
from unet_jax.inference.member import stack_axis
from unet_jax.losses.terms import reads_labels
from unet_jax.method import Method
from unet_jax.runtime.stop import Stop
from unet_jax.training.images_alone import make_validation

Rows = dict[str, dict[str, float]]


def create_validation(run: Run, *, stop: Stop) -> Callable[[dict[str, Any]], Rows]:
    """Build ``variables -> {split: scores}``; scores are Dice, or the loss.

    Args:
        run: the run; where no loss reads a label, its loss is the score. Dice is NaN
            where no validation case has a class.

    Returns:
        A function of the network's variables. If some process was asked to stop
        meanwhile, it raises ``Stopped`` in every process.
    """
    config, sources, preprocessing = run.config, run.seen, run.preprocessing
    if reads_labels(config.loss):
        maker = create_predict_fn_maker(
            config,
            run.compiled,
            preprocessing,
            validation=True,
            previous=run.previous,
        )
        sample = _sample(sources["train"], config.eval.train_images, preprocessing)
        has_score = has_class(
            sources["validation"],
            len(config.data.class_names),
            first=0 if config.data.include_background else 1,
        )

        def scores(variables: dict[str, Any]) -> Rows:
            method = maker(variables).method
            rows = {
                "train": _validate(config, method, sample, stop),
                "val": _validate(config, method, sources["validation"], stop),
            }
            if not has_score:  # else a false positive would make it 0
                rows["val"] = dict.fromkeys(rows["val"], math.nan)
            return rows

        return scores
    count = -(-config.eval.train_images // config.train.batch_size)
    folder = run.workdir / "validation"
    # The same crops in every process: they have to agree on the best step.
    crops = create_batches(
        config,
        sources["validation"],
        preprocessing,
        folder,
        whole=True,
        augmented=False,
        previous=run.previous,
    )
    with contextlib.closing(crops):
        images = [batch["image"] for batch in itertools.islice(crops, count)]
    validate = make_validation(run.network, run.loss_terms, images)
    return lambda variables: {"val": validate(variables)}


def _sample(source: Source, count: int, preprocessing: Preprocessing) -> list[Case]:
    """Choose training images to score beside the validation split.

    They are ``count`` pictures, or ``count`` slices of the first volume, spread evenly
    over those that have a labelled pixel: the ends of a volume often show nothing. For
    a network that sees adjacent slices they lie side by side.
    """
    first = source[0]
    axis = stack_axis(preprocessing, first.image.ndim - 1)
    if axis is None:
        chosen = np.linspace(0, len(source) - 1, min(count, len(source)), dtype=int)
        return [source[int(index)] for index in chosen]
    planes = np.arange(first.image.shape[axis])
    if first.label is not None:
        others = tuple(other for other in range(first.label.ndim) if other != axis)
        labelled = np.flatnonzero((first.label > 0).any(others))
        planes = labelled if len(labelled) else planes
    count = min(count, len(planes))
    chosen = planes[(2 * np.arange(count) + 1) * len(planes) // (2 * count)]
    if preprocessing.adjacent_slices:
        middle = int(planes[len(planes) // 2])
        start = min(max(middle - count // 2, 0), first.image.shape[axis] - count)
        chosen = np.arange(start, start + count)
    return [
        Case(
            id=f"{first.id}:sample",
            image=np.take(first.image, chosen, axis),
            label=None if first.label is None else np.take(first.label, chosen, axis),
            spacing=first.spacing,
            group=first.group,
            reference=first.reference,
            labelled_classes=first.labelled_classes,
        )
    ]


def _validate(
    config: ConfigDict, method: Method, cases: Source | list[Case], stop: Stop
) -> dict[str, float]:
    """Score Dice of each class and of the foreground; NaN where a class is absent."""
    results = evaluate(
        method,
        _until_stopped(cases, stop),
        class_names=tuple(config.data.class_names),
        regions=score_groups(config),
        include_background=config.data.include_background,
        metrics=("dice",),  # surfaces take their time
        gather=lambda mine: _gather_unless_stopped(mine, stop),
    )
    values = {"dice": results["mean"]["dice"]}
    for name, scores in results["per_class"].items():
        values[f"dice/{name}"] = scores["dice"]
    return {key: math.nan if v is None else v for key, v in values.items()}


def _until_stopped(cases: Source | list[Case], stop: Stop) -> Iterator[Case]:
    """Read this process's cases one by one, until a request to stop."""
    for index in agree.indices_here(len(cases)):
        if stop.reason is not None:
            return
        yield read_case(cases, index)


def _gather_unless_stopped(mine: Sequence[Any], stop: Stop) -> list[Any]:
    """Collect the scores; raise in every process if one of them was stopped."""
    reason = stop.reason or ""
    reasons = [text.decode() for text in agree.gather(reason.encode())]
    for asked in filter(None, reasons):
        raise Stopped(asked, code=stop.code)
    return agree.gather_items(mine)


def score_of(rows: Rows) -> float:
    """Return the score that chooses the best checkpoint: Dice, or the negative loss."""
    values = rows["val"]
    return values["dice"] if "dice" in values else -values["loss"]


def updated_best(
    best: dict[str, Any], step: int, score: float, config: ConfigDict
) -> dict[str, Any]:
    """Return the record of the best score after a validation.

    A later step replaces one of an equal score, but patience goes on. NaN says nothing:
    it is never better, and no reason to stop.
    """
    if math.isnan(score):
        return best
    higher = best["score"] is None or score > best["score"]
    since = 0 if higher else best["evaluations_since"] + 1
    patience = config.train.early_stopping_patience
    stopped = patience > 0 and since >= patience
    if math.isfinite(score) and (higher or score == best["score"]):
        best = {"score": score, "step": step}
    return {**best, "evaluations_since": since, "stopped": stopped}


def validation_line(step: int, rows: Rows, best: dict[str, Any]) -> str:
    """Describe a validation in one line for the log."""
    validation = rows["val"]
    parts = ", ".join(
        f"{key.removeprefix('dice/').removesuffix('_loss')} {_shown(value, 3)}"
        for key, value in validation.items()
        if key not in ("dice", "loss")
    )
    is_best = best["step"] == step and best["score"] == score_of(rows)
    note = " (best)" if is_best else ""
    if math.isnan(score_of(rows)):
        note = "; no validation case has a class: the last step is kept"
    if best["stopped"]:
        note = f"; no better score in {best['evaluations_since']} validations: stopping"
    if "dice" not in validation:
        return f"step {step}: validation loss {validation['loss']:.4f}{note} [{parts}]"
    return (
        f"step {step}: Dice train {_shown(rows['train']['dice'], 4)}, validation "
        f"{_shown(validation['dice'], 4)}{note} [{parts}]"
    )


def _shown(score: float, digits: int) -> str:
    """Write a score; "-" where no case has the class."""
    return "-" if math.isnan(score) else f"{score:.{digits}f}"
