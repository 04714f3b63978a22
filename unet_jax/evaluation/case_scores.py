"""Computes every metric of one case from its labels and probabilities."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unet_jax.data.labelled_classes import (
    labelled_row,
    merged_probabilities,
    with_background,
)
from unet_jax.evaluation.metric_table import METRICS, Metric, metric_named
from unet_jax.labels import IGNORE
from unet_jax.metrics import calibration, clustering
from unet_jax.metrics.calibration import Reliability
from unet_jax.metrics.lesions import LesionScores, lesion_scores
from unet_jax.metrics.overlap import ConfusionCounts
from unet_jax.metrics.surface import SurfaceScores, surface_scores
from unet_jax.metrics.surface_elements import Surface
from unet_jax.metrics.volume_counts import confusion_tables, counts_of, slice_counts

_CHUNK = 2**20
"""Pixels of which the probabilities of a region are in memory at once."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Metrics and options that are the same for all cases.

    Attributes:
        metrics: names of the metrics, ``dice`` and ``iou`` among them.
        num_classes: number of classes, background included.
        first: first class that is scored: 0, or 1 without the background.
        tolerance_mm: tolerance of the surface Dice for cases with a spacing.
        tolerance_px: tolerance in pixels for cases without a spacing.
        surface: elements of the surfaces, "area" or "voxel".
        slice_axis: axis along which volumes also get scores for each slice, or None.
        losses: losses that are used as metrics, by name with prefix.
        regions: classes of each region that is scored instead of classes; None scores
            each class from ``first`` on.
    """

    metrics: tuple[str, ...]
    num_classes: int
    first: int
    tolerance_mm: float
    tolerance_px: float
    surface: Surface
    slice_axis: int | None
    losses: Mapping[str, Metric]
    regions: tuple[tuple[int, ...], ...] | None = None

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Classes of each column of scores."""
        if self.regions is not None:
            return self.regions
        return tuple((index,) for index in range(self.first, self.num_classes))


@dataclasses.dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        by_class: metric -> values ``(scored classes)``, NaN where a class is absent
            from both label and prediction.
        whole: metric -> the value of the case.
        counts: true and false positives and negatives ``(1, scored classes)`` int64.
        slices: metric -> values ``(slices, scored classes)``; None without slices.
        sizes: volumes in mL or areas in mm2 of label and prediction ``(scored
            classes)``; empty without a spacing.
        reliability: sums of the reliability bins; None without probabilities.
        confusion: pixels of each labelled class (rows) and predicted class (columns),
            background included.
        labelled: whether each scored class was labelled; None for all. The values of
            the others are NaN.
    """

    by_class: dict[str, np.ndarray]
    whole: dict[str, float]
    counts: ConfusionCounts
    slices: dict[str, np.ndarray] | None
    sizes: dict[str, np.ndarray]
    reliability: Reliability | None
    confusion: np.ndarray
    labelled: np.ndarray | None = None

    @property
    def present(self) -> np.ndarray:
        """Whether each scored class is in the label or the prediction."""
        return np.asarray((self.counts.tp + self.counts.fp + self.counts.fn)[0] > 0)

    @property
    def absent(self) -> np.ndarray:
        """Whether each scored class is in neither, but was labelled."""
        return ~self.present & (True if self.labelled is None else self.labelled)


def case_scores(
    rules: Rules,
    *,
    prediction: np.ndarray,
    label: np.ndarray,
    probabilities: np.ndarray | None,
    spacing: tuple[float, ...] | None,
    uncalibrated: Reliability | None = None,
    labelled_classes: Sequence[int] | None = None,
) -> CaseScores:
    """Score one case.

    Args:
        rules: metrics and their options.
        prediction: class index of every pixel.
        label: class index of every pixel; IGNORE pixels count for nothing, and are
            background to surfaces and lesions.
        probabilities: ``(*spatial, classes)``, of regions ``(*spatial, 1 + regions)``;
            None: their metrics are then NaN.
        spacing: millimetres of a pixel along each axis; None for distances in pixels,
            whose names end in "_px".
        uncalibrated: sums of the reliability bins before the probabilities were
            calibrated; None where they were not.
        labelled_classes: classes that were labelled in this case; None for all. The
            others are background in label, prediction and probabilities.

    Returns: Values of every metric, in the order of the rules.
    """
    labelled = None
    if labelled_classes is not None:
        labelled = labelled_row(labelled_classes, rules.num_classes)[rules.first :]
        label = with_background(label, labelled_classes)
        prediction = with_background(prediction, labelled_classes)
        if probabilities is not None:
            probabilities = merged_probabilities(probabilities, labelled_classes)
    axis = rules.slice_axis if label.ndim == 3 else None
    tables = confusion_tables(
        prediction, label, axis=axis, num_classes=rules.num_classes
    )
    classes = counts_of(tables)
    every = ConfusionCounts(*(count.sum(axis=0, keepdims=True) for count in classes))
    by_slice = ConfusionCounts(*(count[:, rules.first :] for count in classes))
    if rules.regions is not None:
        by_slice = _region_counts(rules.regions, prediction, label, axis)
    counts = ConfusionCounts(*(count.sum(axis=0, keepdims=True) for count in by_slice))
    case = _Case(
        rules, prediction, label, probabilities, spacing, counts, every, uncalibrated
    )
    by_class: dict[str, np.ndarray] = {}
    whole: dict[str, float] = {}
    for name in rules.metrics:
        metric = metric_named(name, rules.losses)
        if metric.of_case:
            whole[name] = float(case.value(metric))
        else:
            unit = "_px" if metric.length and spacing is None else ""
            by_class[name + unit] = case.value(metric)
    slices = None
    if axis is not None:
        slices = {
            name: np.asarray(METRICS[name].compute(by_slice))
            for name in ("dice", "iou")
        }
    sizes = _sizes(counts, spacing)
    if labelled is not None:
        for columns in (by_class, slices or {}, sizes):
            columns |= {n: np.where(labelled, v, math.nan) for n, v in columns.items()}
    return CaseScores(
        by_class=by_class,
        whole=whole,
        counts=counts,
        slices=slices,
        sizes=sizes,
        labelled=labelled,
        confusion=tables.sum(axis=0),
        reliability=case.reliability if "ece" in rules.metrics else None,
    )


@dataclasses.dataclass(frozen=True)
class _Case:
    """Input of the metrics of a case; each input is computed once."""

    rules: Rules
    prediction: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray | None
    spacing: tuple[float, ...] | None
    counts: ConfusionCounts
    every: ConfusionCounts
    uncalibrated: Reliability | None

    def value(self, metric: Metric) -> np.ndarray:
        """One value, or ``(scored classes)`` float64; NaN without probabilities."""
        match metric.reads:
            case "counts":
                return np.asarray(metric.compute(self.counts)[0])
            case "all counts":
                return np.asarray(metric.compute(self.every)[0])
            case "surfaces":
                return np.array([metric.compute(one) for one in self.surfaces])
            case "lesions":
                return np.array([metric.compute(one) for one in self.lesions])
            case "partition":
                return np.asarray(metric.compute(self.partition))
        if self.probabilities is None:
            return np.full(() if metric.of_case else self.present.shape, math.nan)
        if metric.reads == "reliability":
            return np.asarray(metric.compute(self.reliability))
        if metric.reads == "uncalibrated reliability":
            return np.asarray(metric.compute(self.uncalibrated or self.reliability))
        if self.rules.regions is not None:
            return self._of_regions(metric)
        value = np.asarray(metric.compute(self.probabilities, self.label), np.float64)
        if metric.of_case:
            return value
        return np.where(self.present, value[self.rules.first :], math.nan)

    def _of_regions(self, metric: Metric) -> np.ndarray:
        """One value for each region against the rest, or their mean for the case."""
        assert self.probabilities is not None
        assert self.rules.regions is not None
        pairs = region_pairs(self.rules.regions, self.probabilities, self.label)
        values = np.array([metric.compute(*pair) for pair in pairs], np.float64)
        if metric.of_case:
            return np.asarray(values.mean())
        return np.where(self.present, values[:, 1], math.nan)

    @property
    def present(self) -> np.ndarray:
        """Whether each scored class is in the label or the prediction."""
        return np.asarray((self.counts.tp + self.counts.fp + self.counts.fn)[0] > 0)

    def masks(self) -> Iterator[dict[str, np.ndarray]]:
        """Prediction and label of each scored class, as arguments of a metric."""
        for group in self.rules.groups:
            predicted = _inside(self.prediction, group) & (self.label != IGNORE)
            yield {"prediction": predicted, "label": _inside(self.label, group)}

    @functools.cached_property
    def surfaces(self) -> list[SurfaceScores]:
        """Surface scores of each scored class, in mm or, without a spacing, pixels."""
        rules = self.rules
        return [
            surface_scores(
                **masks,
                spacing=self.spacing or (1.0,) * self.label.ndim,
                tolerance=(
                    rules.tolerance_px if self.spacing is None else rules.tolerance_mm
                ),
                surface=rules.surface,
            )
            for masks in self.masks()
        ]

    @functools.cached_property
    def lesions(self) -> list[LesionScores]:
        """Lesion scores of each scored class."""
        return [lesion_scores(**masks) for masks in self.masks()]

    @functools.cached_property
    def partition(self) -> np.ndarray:
        """Contingency table ``(classes, clusters)``."""
        return clustering.contingency_table(clusters=self.prediction, labels=self.label)

    @functools.cached_property
    def reliability(self) -> Reliability | None:
        """Sums of the reliability bins over all pixels; None without probabilities."""
        if self.probabilities is None:
            return None
        return case_reliability(
            self.rules, probabilities=self.probabilities, labels=self.label
        )


def case_reliability(
    rules: Rules, *, probabilities: np.ndarray, labels: np.ndarray
) -> Reliability:
    """Sort the pixels of a case into bins of confidence.

    A region is as confident as it is in "inside" or "outside", whichever is likelier;
    every pixel counts once for each region.

    Args:
        probabilities: ``(*spatial, classes)``, or ``(*spatial, 1 + regions)``.
        labels: class index of every pixel; IGNORE pixels are left out.
    """
    if rules.regions is None:
        return calibration.reliability(probabilities=probabilities, labels=labels)
    planes = max(1, _CHUNK * len(labels) // max(1, labels.size))
    sums = [
        calibration.reliability(probabilities=inside, labels=known)
        for start in range(0, len(labels), planes)
        for inside, known in region_pairs(
            rules.regions,
            probabilities[start : start + planes],
            labels[start : start + planes],
        )
    ]
    return Reliability(*(np.sum(part, axis=0) for part in zip(*sums, strict=True)))


def region_pairs(
    regions: Sequence[tuple[int, ...]], probabilities: np.ndarray, label: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the probabilities and labels of two classes, outside and in each region.

    Args:
        probabilities: ``(*spatial, 1 + regions)``; channel 0 is no region.
        label: class index of every pixel; IGNORE pixels stay ignored.
    """
    for channel, classes in enumerate(regions, start=1):
        inside = probabilities[..., channel]
        known = np.where(label == IGNORE, IGNORE, _inside(label, classes))
        yield np.stack([1 - inside, inside], axis=-1), known


def _inside(labels: np.ndarray, classes: tuple[int, ...]) -> np.ndarray:
    """Return the pixels of some classes."""
    return labels == classes[0] if len(classes) == 1 else np.isin(labels, classes)


def _region_counts(
    regions: Sequence[tuple[int, ...]],
    prediction: np.ndarray,
    label: np.ndarray,
    axis: int | None,
) -> ConfusionCounts:
    """Count the pixels of each region in each slice, ``(slices, regions)``."""
    found = []
    for classes in regions:
        inside = np.where(label == IGNORE, IGNORE, _inside(label, classes))
        predicted = _inside(prediction, classes)
        two = slice_counts(predicted, inside, axis=axis, num_classes=2)
        found.append([count[:, 1] for count in two])
    return ConfusionCounts(*(np.stack(c, axis=1) for c in zip(*found, strict=True)))


def _sizes(
    counts: ConfusionCounts, spacing: tuple[float, ...] | None
) -> dict[str, np.ndarray]:
    """Volumes in mL or areas in mm2 of the pixels that are not ignored."""
    if spacing is None:
        return {}
    unit, factor = ("volume_ml", 1e-3) if len(spacing) == 3 else ("area_mm2", 1.0)
    pixel = math.prod(spacing) * factor
    return {
        f"label_{unit}": np.asarray(counts.tp + counts.fn)[0] * pixel,
        f"prediction_{unit}": np.asarray(counts.tp + counts.fp)[0] * pixel,
    }
