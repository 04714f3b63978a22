"""All the metrics of one case, by name."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from unet_jax.evaluation.names import (
    CLUSTERING,
    DISTANCES,
    LESION,
    LOSS_PREFIX,
    OF_CASES,
    PROBABILITY,
    SURFACE,
    counts_function,
)
from unet_jax.labels import IGNORE
from unet_jax.metrics import calibration, clustering
from unet_jax.metrics.calibration import Reliability
from unet_jax.metrics.lesions import lesion_scores
from unet_jax.metrics.overlap import ConfusionCounts
from unet_jax.metrics.surface import surface_scores
from unet_jax.metrics.surface_elements import Surface
from unet_jax.metrics.volume_counts import slice_counts


class HeldOutLoss(NamedTuple):
    """A loss as a metric.

    Attributes:
        by_class: whether it has a value for each class, not one for the case.
        function: of probabilities ``(*spatial, classes)`` and labels ``(*spatial)``.
    """

    by_class: bool
    function: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rules:
    """How cases are scored.

    Attributes:
        metrics: names, ``dice`` and ``iou`` among them.
        num_classes: background included.
        first: the first class that is scored: 0, or 1 without the background.
        tolerance_mm: of the surface Dice, for cases with a spacing.
        tolerance_px: the same in pixels, for cases without one.
        surface: what surfaces are made of.
        slice_axis: along which volumes also get scores for each slice.
        losses: by name with prefix.
    """

    metrics: tuple[str, ...]
    num_classes: int
    first: int
    tolerance_mm: float
    tolerance_px: float
    surface: Surface
    slice_axis: int | None
    losses: Mapping[str, HeldOutLoss]


@dataclasses.dataclass(frozen=True)
class CaseScores:
    """What one case adds to the results.

    Attributes:
        by_class: metric -> values ``(scored classes)``, NaN where absent from both.
        whole: metric -> the value of the case.
        counts: ``(1, scored classes)`` int64.
        slices: metric -> values ``(slices, scored classes)``; None without slices.
        sizes: volumes in mL or areas in mm2 of label and prediction ``(scored
            classes)``; empty without a spacing.
        reliability: sums for a curve; None without probabilities.
    """

    by_class: dict[str, np.ndarray]
    whole: dict[str, float]
    counts: ConfusionCounts
    slices: dict[str, np.ndarray] | None
    sizes: dict[str, np.ndarray]
    reliability: Reliability | None

    @property
    def present(self) -> np.ndarray:
        """Whether each scored class is in the label or the prediction."""
        return np.asarray((self.counts.tp + self.counts.fp + self.counts.fn)[0] > 0)


def case_scores(
    rules: Rules,
    *,
    prediction: np.ndarray,
    label: np.ndarray,
    probabilities: np.ndarray | None,
    spacing: tuple[float, ...] | None,
) -> CaseScores:
    """Score one case.

    Args:
        rules: what to compute, and how.
        prediction: class index of every pixel.
        label: class index of every pixel; IGNORE pixels count for nothing, and are
            background to surfaces and lesions.
        probabilities: ``(*spatial, classes)``, or None: metrics of them are then NaN.
        spacing: in mm; None for distances in pixels, which are named so.

    Returns:
        Values of every metric.
    """
    axis = rules.slice_axis if label.ndim == 3 else None
    by_slice = slice_counts(prediction, label, axis=axis, num_classes=rules.num_classes)
    every = ConfusionCounts(*(count.sum(axis=0, keepdims=True) for count in by_slice))
    counts, by_slice = (
        ConfusionCounts(*(count[:, rules.first :] for count in table))
        for table in (every, by_slice)
    )
    by_class, whole = _count_scores(rules, counts, every)
    by_class |= _mask_scores(rules, prediction, label, spacing)
    whole |= _partition_scores(rules, prediction, label)
    present = (counts.tp + counts.fp + counts.fn)[0] > 0
    reliable = None
    if probabilities is not None and "ece" in rules.metrics:
        reliable = calibration.reliability(probabilities=probabilities, labels=label)
    for found in (
        _calibration_scores(rules, probabilities, label, reliable),
        _loss_scores(rules, probabilities, label),
    ):
        for name, value in found.items():
            if np.ndim(value):
                by_class[name] = np.where(present, value[rules.first :], math.nan)
            else:
                whole[name] = float(value)
    slices = None
    if axis is not None:
        slices = {name: _counted(name, by_slice) for name in ("dice", "iou")}
    # The order is that of the config.
    order = [m + s for m in rules.metrics for s in ("", "_px")]
    return CaseScores(
        by_class={name: by_class[name] for name in order if name in by_class},
        whole={name: whole[name] for name in order if name in whole},
        counts=counts,
        slices=slices,
        sizes=_sizes(counts, spacing),
        reliability=reliable,
    )


def _counted(name: str, counts: ConfusionCounts) -> np.ndarray:
    """A metric of counts in float64."""
    function = counts_function(name)
    assert function is not None, f"{name} needs more than counts"
    return np.asarray(function(counts))


def _count_scores(
    rules: Rules, counts: ConfusionCounts, every: ConfusionCounts
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What divides the counts, of each class and of the case."""
    by_class, whole = {}, {}
    for name in rules.metrics:
        if counts_function(name) is None:
            continue
        if name == "pixel_accuracy":
            # A background pixel that is right is right, scored or not.
            whole[name] = float(_counted(name, every)[0])
        elif name in OF_CASES:
            whole[name] = float(_counted(name, counts)[0])
        else:
            by_class[name] = _counted(name, counts)[0]
    return by_class, whole


def _mask_scores(
    rules: Rules,
    prediction: np.ndarray,
    label: np.ndarray,
    spacing: tuple[float, ...] | None,
) -> dict[str, np.ndarray]:
    """Surfaces and lesions of every scored class, named for the unit of the case."""
    surfaces = [name for name in rules.metrics if name in SURFACE]
    lesions = [name for name in rules.metrics if name in LESION]
    rows: dict[str, list[float]] = {name: [] for name in (*surfaces, *lesions)}
    for index in range(rules.first, rules.num_classes):
        if not rows:
            break
        predicted = (prediction == index) & (label != IGNORE)
        labelled = label == index
        if surfaces:
            found = surface_scores(
                prediction=predicted,
                label=labelled,
                spacing=spacing or (1.0,) * label.ndim,
                tolerance=rules.tolerance_px if spacing is None else rules.tolerance_mm,
                surface=rules.surface,
            )
            for name in surfaces:
                rows[name].append(getattr(found, name))
        if lesions:
            scores = lesion_scores(prediction=predicted, label=labelled)
            for name in lesions:
                rows[name].append(getattr(scores, name.removeprefix("lesion_")))
    suffix = "_px" if spacing is None else ""
    named = (*DISTANCES, "nsd")
    return {
        name + (suffix if name in named else ""): np.array(values, np.float64)
        for name, values in rows.items()
    }


def _partition_scores(
    rules: Rules, prediction: np.ndarray, label: np.ndarray
) -> dict[str, float]:
    """Scores of the case as a partition."""
    asked = [name for name in rules.metrics if name in CLUSTERING]
    if not asked:
        return {}
    table = clustering.contingency_table(clusters=prediction, labels=label)
    values = {
        "adjusted_rand": clustering.adjusted_rand_index,
        "variation_of_information": clustering.variation_of_information,
        "hungarian_iou": clustering.hungarian_iou,
    }
    return {name: values[name](table) for name in asked}


def _calibration_scores(
    rules: Rules,
    probabilities: np.ndarray | None,
    label: np.ndarray,
    reliable: Reliability | None,
) -> dict[str, np.ndarray]:
    """Calibration, a value or one a class; NaN for a method without probabilities."""
    values: dict[str, np.ndarray] = {}
    for name in rules.metrics:
        if name not in PROBABILITY:
            continue
        if probabilities is None:
            shape = (rules.num_classes,) if name == "classwise_ece" else ()
            values[name] = np.full(shape, math.nan)
        elif name == "ece":
            assert reliable is not None, "made where ece is asked for"
            values[name] = calibration.expected_calibration_error(reliable)
        elif name == "classwise_ece":
            sums = calibration.class_reliability(
                probabilities=probabilities, labels=label
            )
            values[name] = calibration.expected_calibration_error(sums)
        else:
            brier = calibration.brier_score(probabilities=probabilities, labels=label)
            values[name] = np.asarray(brier)
    return values


def _loss_scores(
    rules: Rules, probabilities: np.ndarray | None, label: np.ndarray
) -> dict[str, np.ndarray]:
    """Losses, a value or one a class; NaN for a method without probabilities."""
    values = {}
    for name in rules.metrics:
        if not name.startswith(LOSS_PREFIX):
            continue
        loss = rules.losses[name]
        if probabilities is not None:
            values[name] = np.asarray(loss.function(probabilities, label), np.float64)
        else:
            values[name] = np.full(
                (rules.num_classes,) if loss.by_class else (), math.nan
            )
    return values


def _sizes(
    counts: ConfusionCounts, spacing: tuple[float, ...] | None
) -> dict[str, np.ndarray]:
    """Volumes in mL, areas in mm2; of what is not ignored."""
    if spacing is None:
        return {}
    unit, factor = ("volume_ml", 1e-3) if len(spacing) == 3 else ("area_mm2", 1.0)
    pixel = math.prod(spacing) * factor
    return {
        f"label_{unit}": np.asarray(counts.tp + counts.fn)[0] * pixel,
        f"prediction_{unit}": np.asarray(counts.tp + counts.fp)[0] * pixel,
    }
