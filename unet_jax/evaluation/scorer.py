"""Scores a segmentation method on labelled cases: a threshold and a U-Net alike."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.data.case import Case
from unet_jax.data.labelled_classes import merged_probabilities, with_background
from unet_jax.errors import InputError, RunError
from unet_jax.evaluation.case_scores import (
    CaseScores,
    Rules,
    case_reliability,
    case_scores,
)
from unet_jax.evaluation.metric_table import (
    Metric,
    check_metric_names,
    metric_named,
)
from unet_jax.evaluation.packing import pack_scores, unpack_scores
from unet_jax.evaluation.pooled import pooled_confusion, pooled_reliability
from unet_jax.evaluation.summary import Summary, number, summarise
from unet_jax.labels import IGNORE
from unet_jax.method import Method
from unet_jax.metrics.defaults import DEFAULT_METRICS
from unet_jax.metrics.surface_elements import Surface
from unet_jax.runtime.atomic import atomic_path

PredictFn = Method | Callable[..., Any]
"""``predict_fn(image, spacing) -> labels (*spatial)``, or a `Method` of such a function
that also takes the reference of a slab or fills probabilities."""

Finish = Callable[[Case, np.ndarray], np.ndarray]
"""``finish(case, labels) -> labels``: called with what a method gave for a case."""

Gather = Callable[[Sequence[Any]], list[Any]]
"""Takes the entries of this process's cases, ready for JSON; returns the entries of all
cases in their order."""

_IN_MEMORY = 2**30
"""Largest probabilities, in bytes, that are kept in memory and not in a file."""


def evaluate(
    predict_fn: PredictFn,
    cases: Iterable[Case],
    *,
    class_names: Sequence[str],
    regions: Mapping[str, Sequence[int]] | None = None,
    include_background: bool = False,
    metrics: Sequence[str] = DEFAULT_METRICS,
    surface: Surface | bool = "area",
    tolerance_mm: float = 1.0,
    tolerance_px: float = 1.0,
    slice_axis: int | None = None,
    losses: Mapping[str, Metric] | None = None,
    bootstrap_samples: int = 1000,
    seed: int = 0,
    finish: Finish | None = None,
    gather: Gather | None = None,
) -> dict[str, Any]:
    """Score a method on cases, on their original grid.

    Each value belongs to one case and class; it is averaged over cases, then over
    classes. A class absent from both label and prediction of a case is left out and
    counted as ``n_absent``. A class present in only one of them gets the worst value:
    0 for Dice, IoU, NSD and similar scores, the image diagonal for distances.
    A class that was not labelled in a case is left out there, counted as
    ``n_unlabelled``, and background in label and prediction.
    ``dice_micro`` and ``iou_micro`` divide counts summed over all cases. IGNORE pixels
    are not counted, and are background to surfaces and lesions. docs/metrics.md
    describes every metric.

    Args:
        predict_fn: method to score, see `PredictFn`; it never sees a label.
        cases: labelled cases; each is read just before it is scored.
        class_names: name of each class index, background first.
        regions: classes of each region to score instead of classes, by name; regions
            may overlap, and have no metrics of probabilities. None scores classes.
        include_background: score class 0 too.
        metrics: names of metrics; ``dice`` and ``iou`` are always computed.
        surface: elements of the surfaces, "area" or "voxel"; True means "area", False
            leaves metrics of surfaces out.
        tolerance_mm: distance within which surfaces agree, for cases with a spacing.
        tolerance_px: distance in pixels for cases without a spacing; their metrics are
            named ``hd95_px``, ``nsd_px`` and so on.
        slice_axis: spatial axis along which volumes also get Dice and IoU of each
            slice.
        losses: losses that ``metrics`` may name, by name ("loss/focal").
        bootstrap_samples: number of bootstrap samples for the intervals.
        seed: seed of the bootstrap.
        finish: function that gets each case with its labels and returns the labels to
            score; it can write them, or name clusters. None scores what the method
            gave.
        gather: function that puts the entries of several processes in order, where
            they divide the cases; every process then returns the results of all cases.

    Returns: A JSON-ready dict without times, so that equal input gives equal bytes:
        ``mean`` ``{metric: value}``, ``ci95`` ``{metric: [low, high]}`` of that mean or
        None with the reason in ``ci95_note``, ``per_class`` ``{name: {metric: value,
        "n_absent": int}}``, ``per_case`` (a row for each case and class, with volumes
        in mL or areas in mm2 where the spacing is known), ``case_level`` (a row for
        each case, with the metrics that have one value for a case), ``per_slice`` (a
        row for each case and class with a list of values along ``slice_axis``),
        ``n_cases``, ``n_groups``, ``tolerance`` ``{"mm": ..., "px": ...}``,
        ``confusion`` ``{"classes": names, "pixels": rows}`` over all pixels, a row for
        each labelled and a column for each predicted class; with "ece" and
        probabilities also ``reliability`` ``{"ece", "bins"}`` over all pixels. None
        stands for NaN. A method that calibrates also has "ece_uncalibrated".

    Raises:
        InputError: no cases, an unknown metric, a case without a label, or a label that
            does not fit its image or the classes.
        ValueError: a prediction that does not fit its image or the classes, or
            probabilities that were not filled.
    """
    method = predict_fn if isinstance(predict_fn, Method) else Method(predict_fn)
    if method.calibrate is not None and "ece" in metrics:
        metrics = tuple(dict.fromkeys((*metrics, "ece_uncalibrated")))
    rules = Rules(
        metrics=_complete(metrics, surface=surface is not False, losses=losses or {}),
        num_classes=len(class_names),
        first=0 if include_background else 1,
        tolerance_mm=tolerance_mm,
        tolerance_px=tolerance_px,
        surface="area" if isinstance(surface, bool) else surface,
        slice_axis=slice_axis,
        losses=losses or {},
        regions=None if regions is None else tuple(map(tuple, regions.values())),
    )
    scored: list[CaseScores] = []
    ids: list[tuple[str, str]] = []
    for case in cases:
        scored.append(_score_case(method, finish, case, class_names, rules))
        ids.append((case.id, case.group))
    if gather is not None:
        ids, scored = _gathered(ids, scored, gather)
    if not scored:
        raise InputError(
            "evaluation: found 0 cases, expected at least 1; check the split's name "
            "and that its files are there"
        )
    summary = summarise(
        scored,
        groups=[group for _, group in ids],
        names=list(class_names[rules.first :] if regions is None else regions),
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )
    return _results(ids, scored, summary, rules, class_names)


def write_results(path: str | os.PathLike[str], results: dict[str, Any]) -> None:
    """Write results as JSON, whole or not at all.

    Args:
        path: file to write, such as ``workdir/test_metrics.json``.
        results: results of `evaluate`.
    """
    text = json.dumps(results, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _complete(
    metrics: Sequence[str], *, surface: bool, losses: Mapping[str, Metric]
) -> tuple[str, ...]:
    """Names of the metrics to compute; Dice and IoU come first."""
    check_metric_names(metrics, losses=losses)
    return tuple(
        name
        for name in dict.fromkeys(("dice", "iou", *metrics))
        if surface or metric_named(name, losses).reads != "surfaces"
    )


# ---- one case ------------------------------------------------------------------------


def _score_case(
    method: Method,
    finish: Finish | None,
    case: Case,
    class_names: Sequence[str],
    rules: Rules,
) -> CaseScores:
    """Predict one case and score every evaluated class of it."""
    label = _checked_label(case, class_names)
    probabilities = None
    metrics = (metric_named(name, rules.losses) for name in rules.metrics)
    if method.gives_probabilities and any(m.needs_probabilities for m in metrics):
        regions = rules.regions
        channels = rules.num_classes if regions is None else 1 + len(regions)
        probabilities = _empty_probabilities((*label.shape, channels))
    try:
        prediction = method(
            case.image,
            case.spacing,
            reference=case.reference,
            probabilities=probabilities,
        )
    except InputError as error:
        raise InputError(f"case {case.id}: {error}", error.details) from error
    except RunError as error:
        raise RunError(f"case {case.id}: {error}") from error
    # Sigmoids of regions may all be 0; the probabilities of classes add up to 1.
    unfilled = probabilities is not None and not probabilities[(0,) * label.ndim].any()
    if unfilled and rules.regions is None:
        raise ValueError(
            f"predict_fn filled no probabilities for case {case.id!r}; expected them "
            "from a Method with gives_probabilities=True."
        )
    if finish is not None:
        prediction = finish(case, prediction)
    uncalibrated = None
    if probabilities is not None and method.calibrate is not None:
        if "ece_uncalibrated" in rules.metrics:
            partly = merged_probabilities(probabilities, case.labelled_classes)
            known = with_background(label, case.labelled_classes)
            uncalibrated = case_reliability(rules, probabilities=partly, labels=known)
        method.calibrate(probabilities)
    return case_scores(
        rules,
        prediction=_checked_prediction(prediction, case, class_names),
        label=label,
        probabilities=probabilities,
        spacing=case.spacing,
        uncalibrated=uncalibrated,
        labelled_classes=case.labelled_classes,
    )


def _empty_probabilities(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros in memory, or in an unnamed temporary file where they are large."""
    if 4 * np.prod(shape, dtype=np.int64) <= _IN_MEMORY:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _checked_label(case: Case, class_names: Sequence[str]) -> np.ndarray:
    """Return the label of a case, or raise where it does not fit."""
    spatial = case.image.shape[:-1]
    if case.label is None:
        raise InputError(
            f"case {case.id!r}: found no label, expected one; scores need labelled "
            "cases, use --mode=predict for the others"
        )
    label = np.asarray(case.label)
    if label.shape != spatial:
        raise InputError(
            f"case {case.id!r}: the label has shape {label.shape}, expected {spatial} "
            "as its image; check that the two files belong together"
        )
    low, high = int(label.min()), int(label.max())
    if low < IGNORE or high >= len(class_names):
        raise InputError(
            f"case {case.id!r}: the label has values {low}..{high}, expected "
            f"0..{len(class_names) - 1} or {IGNORE} (ignored); map them with label_map"
        )
    return label


def _checked_prediction(
    prediction: Any, case: Case, class_names: Sequence[str]
) -> np.ndarray:
    """Return a prediction as integers, or raise where it does not fit."""
    prediction = np.asarray(prediction)
    spatial = case.image.shape[:-1]
    if prediction.shape != spatial:
        raise ValueError(
            f"predict_fn gave shape {prediction.shape} for case {case.id!r}; "
            f"expected {spatial}."
        )
    if prediction.dtype == bool:
        prediction = prediction.astype(np.uint8)
    if not np.issubdtype(prediction.dtype, np.integer):
        raise ValueError(
            f"predict_fn gave {prediction.dtype} for case {case.id!r}; "
            "expected integer class indices."
        )
    low, high = int(prediction.min()), int(prediction.max())
    if low < 0 or high >= len(class_names):
        raise ValueError(
            f"predict_fn gave classes {low}..{high} for case {case.id!r}; "
            f"expected 0..{len(class_names) - 1}."
        )
    return prediction


def _gathered(
    ids: list[tuple[str, str]], scored: list[CaseScores], gather: Gather
) -> tuple[list[tuple[str, str]], list[CaseScores]]:
    """Put the scores of all processes together."""
    mine = [
        {"id": key, "scores": pack_scores(scores)}
        for key, scores in zip(ids, scored, strict=True)
    ]
    every = gather(mine)
    return (
        [(entry["id"][0], entry["id"][1]) for entry in every],
        [unpack_scores(entry["scores"]) for entry in every],
    )


# ---- all cases -----------------------------------------------------------------------


def _results(
    ids: Sequence[tuple[str, str]],
    scored: Sequence[CaseScores],
    summary: Summary,
    rules: Rules,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Put the results of `evaluate` together."""
    names = list(summary.per_class)
    pairs = list(zip(ids, scored, strict=True))
    return {
        "mean": summary.mean,
        "ci95": summary.ci95,
        "ci95_note": summary.ci95_note,
        "per_class": summary.per_class,
        "per_case": [
            row for key, case in pairs for row in _case_rows(key, case, names)
        ],
        "case_level": [row for key, case in pairs for row in _whole_rows(key, case)],
        "per_slice": [
            row
            for (name, _), case in pairs
            for row in _slice_rows(name, case, names, rules.slice_axis)
        ],
        "n_cases": len(scored),
        "n_groups": len({group for _, group in ids}),
        "tolerance": {
            unit: value
            for unit, key, value in (
                ("mm", "nsd", rules.tolerance_mm),
                ("px", "nsd_px", rules.tolerance_px),
            )
            if key in summary.mean
        },
        **pooled_reliability(scored),
        "confusion": pooled_confusion(scored, class_names),
    }


def _case_rows(
    key: tuple[str, str], case: CaseScores, names: list[str]
) -> list[dict[str, Any]]:
    """One row for each class."""
    columns = case.by_class | case.sizes
    return [
        {"id": key[0], "group": key[1], "class": name}
        | {metric: number(values[i]) for metric, values in columns.items()}
        for i, name in enumerate(names)
    ]


def _whole_rows(key: tuple[str, str], case: CaseScores) -> list[dict[str, Any]]:
    """One row of the metrics with one value for a case, if any has a value."""
    values = {metric: number(value) for metric, value in case.whole.items()}
    if all(value is None for value in values.values()):
        return []
    return [{"id": key[0], "group": key[1], **values}]


def _slice_rows(
    case_id: str, case: CaseScores, names: list[str], axis: int | None
) -> list[dict[str, Any]]:
    """One row for each class of a volume, with lists of values along the slice axis."""
    if case.slices is None:
        return []
    return [
        {"id": case_id, "class": name, "slice_axis": axis}
        | {m: [number(v) for v in values[:, i]] for m, values in case.slices.items()}
        for i, name in enumerate(names)
    ]
