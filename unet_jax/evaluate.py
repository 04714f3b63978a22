"""The one scorer: a threshold and a U-Net are a ``predict_fn``, and both come here."""

import dataclasses
import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from unet_jax.atomic import atomic_path
from unet_jax.data.case import Case
from unet_jax.errors import InputError
from unet_jax.labels import IGNORE
from unet_jax.metrics.overlap import (
    ConfusionCounts,
    confusion_counts,
    dice_from_counts,
    iou_from_counts,
)
from unet_jax.metrics.surface import surface_scores

PredictFn = Callable[..., Any]
"""``predict_fn(image, spacing) -> labels (*spatial)``; it never sees a label. One with
a keyword ``reference`` is also given the ``Case.reference`` of a slab."""

MIN_GROUPS = 5
"""Fewer groups than this say nothing about the spread between groups."""

_ROWS, _PIXELS = 16, 2**14
"""Shape of one call of the counter: any image is cut and padded to it, so that it is
compiled once and its memory is bounded."""


@dataclasses.dataclass(frozen=True)
class _CaseScores:
    """What one case adds to the results: values of each evaluated class."""

    id: str
    group: str
    scores: dict[str, np.ndarray]  # metric -> (classes), NaN where absent from both
    counts: ConfusionCounts  # (1, classes) int64
    slices: dict[str, np.ndarray] | None  # metric -> (slices, classes)


def evaluate(
    predict_fn: PredictFn,
    cases: Iterable[Case],
    *,
    class_names: Sequence[str],
    include_background: bool = False,
    surface: bool = True,
    tolerance_mm: float = 1.0,
    tolerance_px: float = 1.0,
    slice_axis: int | None = None,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a method on cases, on their original grid.

    Each value is of one case and class, then averaged over cases, then over classes.
    A class absent from both label and prediction of a case is left out and counted as
    ``n_absent``; one present in only one of them scores Dice, IoU and NSD 0 and the
    image diagonal as its distance. ``dice_micro`` and ``iou_micro`` divide counts that
    were added over all cases. IGNORE pixels count for nothing, and are background to
    the surfaces.

    Args:
        predict_fn: gets an image ``(*spatial, channels)`` and its spacing, and gives
            the class index of every pixel ``(*spatial)``.
        cases: labelled cases; each is read when its turn comes.
        class_names: name of each class index, background first.
        include_background: score class 0 too.
        surface: compute HD95 and NSD.
        tolerance_mm: distance within which surfaces agree, for cases with a spacing.
        tolerance_px: the same in pixels, for cases without one; their values are named
            ``hd95_px`` and ``nsd_px``.
        slice_axis: spatial axis along which volumes also get scores for each slice.
        bootstrap_samples: how often the groups are drawn anew for the intervals.
        seed: of the bootstrap.

    Returns:
        A JSON-ready dict without times, so that equal input gives equal bytes: ``mean``
        ``{metric: value}``, ``ci95`` ``{metric: [low, high]}`` of that mean or None
        with the reason in ``ci95_note``, ``per_class`` ``{name: {metric: value,
        "n_absent": int}}``, ``per_case`` (a row a case and class), ``per_slice`` (a row
        a case and class with a list of values along ``slice_axis``), ``n_cases``,
        ``n_groups``, ``tolerance`` ``{"mm": ..., "px": ...}``. None stands for NaN.

    Raises:
        InputError: no cases, a case without a label, or a label that does not fit its
            image or the classes.
        ValueError: a prediction that does not fit its image or the classes.
    """
    first = 0 if include_background else 1
    names = list(class_names[first:])
    tolerances = (tolerance_mm, tolerance_px) if surface else None
    scored = [
        _score_case(predict_fn, case, class_names, first, tolerances, slice_axis)
        for case in cases
    ]
    if not scored:
        raise InputError(
            "evaluation: found 0 cases, expected at least 1; check the split's name "
            "and that its files are there"
        )
    per_class, mean, ci95, note = _summarise(scored, names, bootstrap_samples, seed)
    units = {"mm": tolerance_mm} if "hd95" in mean else {}
    if "hd95_px" in mean:
        units["px"] = tolerance_px
    return {
        "mean": mean,
        "ci95": ci95,
        "ci95_note": note,
        "per_class": per_class,
        "per_case": [row for case in scored for row in _case_rows(case, names)],
        "per_slice": [
            row for case in scored for row in _slice_rows(case, names, slice_axis)
        ],
        "n_cases": len(scored),
        "n_groups": len({case.group for case in scored}),
        "tolerance": units,
    }


def write_results(path: str | os.PathLike[str], results: dict[str, Any]) -> None:
    """Write results as JSON, whole or not at all.

    Args:
        path: the file, such as ``workdir/test_metrics.json``.
        results: from `evaluate`.
    """
    text = json.dumps(results, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


# ---- one case ------------------------------------------------------------------------


def _score_case(
    predict_fn: PredictFn,
    case: Case,
    class_names: Sequence[str],
    first: int,
    tolerances: tuple[float, float] | None,
    slice_axis: int | None,
) -> _CaseScores:
    """Predict one case and score every evaluated class of it."""
    label = _checked_label(case, class_names)
    prediction = predict_fn(case.image, case.spacing, **_context(predict_fn, case))
    prediction = _checked_prediction(prediction, case, class_names)
    axis = slice_axis if label.ndim == 3 else None
    by_slice = _slice_counts(prediction, label, axis, len(class_names), first)
    counts = ConfusionCounts(*(count.sum(axis=0, keepdims=True) for count in by_slice))
    scores = {metric: values[0] for metric, values in _overlap_scores(counts).items()}
    if tolerances is not None:
        classes = range(first, len(class_names))
        scores |= _surface_scores(prediction, label, case, classes, tolerances)
    slices = None if axis is None else _overlap_scores(by_slice)
    return _CaseScores(case.id, case.group, scores, counts, slices)


def _context(predict_fn: PredictFn, case: Case) -> dict[str, Any]:
    """Give the intensities of the whole scan to a method that asks for them."""
    if case.reference is None:
        return {}
    asks = "reference" in inspect.signature(predict_fn).parameters
    return {"reference": case.reference} if asks else {}


def _checked_label(case: Case, class_names: Sequence[str]) -> np.ndarray:
    """The label of a case, if it fits its image and the classes."""
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
    """A prediction as NumPy integers, if it fits its image and the classes."""
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


def _slice_counts(
    prediction: np.ndarray,
    label: np.ndarray,
    axis: int | None,
    num_classes: int,
    first: int,
) -> ConfusionCounts:
    """Counts ``(slices, classes)`` along an axis; the whole is one slice for None."""
    if axis is None:
        prediction, label = prediction[None], label[None]
    else:
        prediction, label = (
            np.moveaxis(prediction, axis, 0),
            np.moveaxis(label, axis, 0),
        )
    slices = label.shape[0]
    predicted = _blocks(prediction.reshape(slices, -1), 0)
    labelled = _blocks(label.reshape(slices, -1), IGNORE)
    calls = [
        np.stack(
            confusion_counts(predictions=p, labels=y, num_classes=num_classes)
        ).astype(np.int64)
        for p, y in zip(predicted, labelled, strict=True)
    ]
    # (4, calls * rows, classes), of which the last rows are padding.
    rows = np.concatenate(calls, axis=1)
    per_slice = -(-label[0].size // _PIXELS)
    rows = rows[:, : slices * per_slice].reshape(4, slices, per_slice, num_classes)
    return ConfusionCounts(*rows.sum(axis=2)[..., first:])


def _overlap_scores(counts: ConfusionCounts) -> dict[str, np.ndarray]:
    """Dice and IoU in float64, shaped as the counts."""
    return {
        "dice": np.asarray(dice_from_counts(counts)),
        "iou": np.asarray(iou_from_counts(counts)),
    }


def _blocks(pixels: np.ndarray, fill: int) -> np.ndarray:
    """Cut ``(slices, pixels)`` into int32 ``(calls, _ROWS, _PIXELS)``, padded."""
    slices, size = pixels.shape
    width = -(-size // _PIXELS) * _PIXELS
    height = -(-(slices * width // _PIXELS) // _ROWS) * _ROWS
    padded = np.full((slices, width), fill, np.int32)
    padded[:, :size] = pixels
    blocks = np.full((height, _PIXELS), fill, np.int32)
    blocks[: padded.size // _PIXELS] = padded.reshape(-1, _PIXELS)
    return blocks.reshape(-1, _ROWS, _PIXELS)


def _surface_scores(
    prediction: np.ndarray,
    label: np.ndarray,
    case: Case,
    classes: range,
    tolerances: tuple[float, float],
) -> dict[str, np.ndarray]:
    """HD95 and NSD of every class, named for the unit of the case."""
    millimetres = case.spacing is not None
    pairs = [
        surface_scores(
            prediction=(prediction == index) & (label != IGNORE),
            label=label == index,
            spacing=case.spacing or (1.0,) * label.ndim,
            tolerance=tolerances[0 if millimetres else 1],
        )
        for index in classes
    ]
    distances, shares = np.array(pairs, np.float64).reshape(-1, 2).T
    suffix = "" if millimetres else "_px"
    return {f"hd95{suffix}": distances, f"nsd{suffix}": shares}


# ---- all cases -----------------------------------------------------------------------


def _summarise(
    scored: list[_CaseScores], names: list[str], samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None, str]:
    """Values of each class, their mean, its interval, and a note on the interval."""
    groups = list(dict.fromkeys(case.group for case in scored))
    sums = _group_sums(scored, groups)
    once = np.ones((1, len(groups)))
    of_class = {metric: _class_values(once, *pair)[0] for metric, pair in sums.items()}
    absent = sum(np.isnan(case.scores["dice"]).astype(int) for case in scored)
    per_class = {
        name: {metric: _number(values[i]) for metric, values in of_class.items()}
        | {"n_absent": int(absent[i])}
        for i, name in enumerate(names)
    }
    mean = {metric: _number(_nanmean(v[None])[0]) for metric, v in of_class.items()}
    if len(groups) < MIN_GROUPS:
        note = f"an interval needs at least {MIN_GROUPS} groups; found {len(groups)}"
        return per_class, mean, None, note
    rng = np.random.default_rng(seed)
    share = np.full(len(groups), 1 / len(groups))
    draws = rng.multinomial(len(groups), share, size=samples).astype(np.float64)
    ci95 = {
        metric: _interval(_nanmean(_class_values(draws, *pair)))
        for metric, pair in sums.items()
    }
    note = (
        f"percentile bootstrap over {len(groups)} groups, {samples} samples, "
        f"seed {seed}"
    )
    return per_class, mean, ci95, note


def _group_sums(
    scored: list[_CaseScores], groups: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator ``(groups, classes)`` of each metric's class value.

    Every metric is a ratio of sums over cases: of values and their number, or of
    counts. So the mean and each bootstrap sample are one weighted sum over groups.
    """
    rows = {group: i for i, group in enumerate(groups)}
    metrics = list(dict.fromkeys(m for case in scored for m in case.scores))
    shape = (len(groups), scored[0].counts.tp.shape[1])
    sums = {
        metric: (np.zeros(shape), np.zeros(shape))
        for metric in [*metrics, "dice_micro", "iou_micro"]
    }

    def add(metric, row, numerator, denominator):
        sums[metric][0][row] += numerator
        sums[metric][1][row] += denominator

    for case in scored:
        row = rows[case.group]
        for metric, values in case.scores.items():
            present = ~np.isnan(values)
            add(metric, row, np.where(present, values, 0), present)
        tp, fp, fn, _ = (count[0] for count in case.counts)
        add("dice_micro", row, 2 * tp, 2 * tp + fp + fn)
        add("iou_micro", row, tp, tp + fp + fn)
    return sums


def _class_values(
    weights: np.ndarray, numerators: np.ndarray, denominators: np.ndarray
) -> np.ndarray:
    """Value ``(samples, classes)`` for weights ``(samples, groups)``; 0/0 is NaN."""
    # einsum, not a BLAS product: its order of summation does not change with threads.
    above = np.einsum("sg,gc->sc", weights, numerators)
    below = np.einsum("sg,gc->sc", weights, denominators)
    with np.errstate(invalid="ignore"):
        return above / below


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN, and no warning, if all is."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(-1) / present.sum(-1)


def _interval(means: np.ndarray) -> list[float | None]:
    """2.5th and 97.5th percentile of the samples in which any class was present."""
    means = means[~np.isnan(means)]
    if not len(means):
        return [None, None]
    return [_number(value) for value in np.percentile(means, (2.5, 97.5))]


def _case_rows(case: _CaseScores, names: list[str]) -> list[dict[str, Any]]:
    """One row a class."""
    return [
        {"id": case.id, "group": case.group, "class": name}
        | {metric: _number(values[i]) for metric, values in case.scores.items()}
        for i, name in enumerate(names)
    ]


def _slice_rows(
    case: _CaseScores, names: list[str], axis: int | None
) -> list[dict[str, Any]]:
    """One row a class of a volume, with a list of values along the slice axis."""
    if case.slices is None:
        return []
    return [
        {"id": case.id, "class": name, "slice_axis": axis}
        | {m: [_number(v) for v in values[:, i]] for m, values in case.slices.items()}
        for i, name in enumerate(names)
    ]


def _number(value: float) -> float | None:
    """A JSON number; None for NaN."""
    return None if math.isnan(value) else float(value)
