"""Scores between the steps: they choose the best checkpoint and may end a run."""

import contextlib
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.preprocess import Preprocessing
from unet_jax.errors import Stopped
from unet_jax.evaluation.scorer import evaluate
from unet_jax.experiment.data import create_batches
from unet_jax.experiment.inference import create_predict_fn_maker
from unet_jax.experiment.network import create_network
from unet_jax.hosts import agree
from unet_jax.inference.segmenter import stack_axis
from unet_jax.losses.terms import LossTerm, reads_labels
from unet_jax.method import Method
from unet_jax.runtime.stop import Stop
from unet_jax.training.images_alone import make_validation

Rows = dict[str, dict[str, float]]


def create_validation(
    config: ConfigDict,
    preprocessing: Preprocessing,
    sources: dict[str, Source],
    loss_terms: tuple[LossTerm, ...],
    workdir: pathlib.Path,
    *,
    stop: Stop,
) -> Callable[[dict[str, Any]], Rows]:
    """Build ``variables -> {split: scores}``: Dice, or of images alone the loss.

    Args:
        config: the resolved config.
        preprocessing: learnt from the training split.
        sources: the cases of each split, as training may see them.
        loss_terms: of the training.
        workdir: folder of the run.
        stop: looked at before each case.

    Returns:
        A function of the network's variables. In every process it raises ``Stopped``
        where one of them was asked to stop meanwhile.
    """
    if reads_labels(config.loss):
        maker = create_predict_fn_maker(config, preprocessing, validation=True)
        sample = _sample(sources["train"], config.eval.train_images, preprocessing)
        return lambda variables: {
            "train": _validate(config, maker(variables).method, sample, stop),
            "val": _validate(
                config, maker(variables).method, sources["validation"], stop
            ),
        }
    count = -(-config.eval.train_images // config.train.batch_size)
    folder = workdir / "validation"
    # The same crops in every process: they have to agree on the best step.
    crops = create_batches(
        config, sources["validation"], preprocessing, folder, whole=True
    )
    with contextlib.closing(crops):
        images = [batch["image"] for batch in itertools.islice(crops, count)]
    network = create_network(config, axis_name=None)
    validate = make_validation(network, loss_terms, images)
    return lambda variables: {"val": validate(variables)}


def _sample(source: Source, count: int, preprocessing: Preprocessing) -> list[Case]:
    """Choose training images to score on the same footing as the validation split.

    They are ``count`` pictures, or as many slices of the first volume, spread evenly
    over those that have a labelled pixel: the ends of a volume often show nothing.
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


def _validate(
    config: ConfigDict,
    method: Method,
    cases: Source | list[Case],
    stop: Stop,
) -> dict[str, float]:
    """Score Dice of each class and of the foreground; NaN where there is none."""
    results = evaluate(
        method,
        _until_stopped(cases, stop),
        class_names=tuple(config.data.class_names),
        include_background=config.data.include_background,
        metrics=("dice",),  # surfaces take their time
        gather=lambda mine: _gather_unless_stopped(mine, stop),
    )
    values = {"dice": results["mean"]["dice"]}
    for name, scores in results["per_class"].items():
        values[f"dice/{name}"] = scores["dice"]
    return {key: math.nan if v is None else v for key, v in values.items()}


def _until_stopped(cases: Source | list[Case], stop: Stop) -> Iterator[Case]:
    """Read this process's share case by case, looking whether to stop before each."""
    for index in agree.share(len(cases)):
        if stop.reason is not None:
            return
        yield read_case(cases, index)


def _gather_unless_stopped(mine: Sequence[Any], stop: Stop) -> list[Any]:
    """Put the shares together, or leave in all processes where one was cut off."""
    reason = stop.reason or ""
    reasons = [text.decode() for text in agree.gather(reason.encode())]
    for asked in filter(None, reasons):
        raise Stopped(asked, code=stop.code)
    return agree.gather_shares(mine)


def score_of(rows: Rows) -> float:
    """The number that chooses: Dice, or, of images alone, the loss and never Dice.

    Args:
        rows: of a validation.
    """
    values = rows["val"]
    return values["dice"] if "dice" in values else -values["loss"]


def updated_best(
    best: dict[str, Any], step: int, score: float, config: ConfigDict
) -> dict[str, Any]:
    """Return the best-score record after a validation; a NaN is never better.

    Args:
        best: the record before.
        step: that was validated.
        score: of it.
        config: the resolved config.
    """
    if math.isfinite(score) and (best["score"] is None or score > best["score"]):
        return {"score": score, "step": step, "evaluations_since": 0, "stopped": False}
    since = best["evaluations_since"] + 1
    patience = config.train.early_stopping_patience
    stopped = patience > 0 and since >= patience
    return {**best, "evaluations_since": since, "stopped": stopped}


def validation_line(step: int, rows: Rows, best: dict[str, Any]) -> str:
    """Write one line for the log.

    Args:
        step: that was validated.
        rows: its scores.
        best: the record after it.
    """
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
