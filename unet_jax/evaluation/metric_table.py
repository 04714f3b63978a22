"""Lists every metric that a config can name: its title, its input and its function."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from unet_jax.errors import InputError
from unet_jax.metrics import calibration, clustering, overlap
from unet_jax.metrics import counts as counted

LOSS_PREFIX = "loss/"
"""Prefix of the name of a loss that is used as a metric."""

Reads = Literal[
    "counts",
    "all counts",
    "surfaces",
    "lesions",
    "probabilities",
    "reliability",
    "uncalibrated reliability",
    "partition",
]
"""Input of a metric:

- counts: `ConfusionCounts` of the scored classes, ``(batch, classes)`` each.
- all counts: counts of every class, the background included.
- surfaces: `SurfaceScores` of one class.
- lesions: `LesionScores` of one class.
- probabilities: ``(*spatial, classes)``, followed by the labels ``(*spatial)``.
- reliability: `Reliability`, the sums of the bins over all pixels.
- uncalibrated reliability: the sums before the temperature of the method.
- partition: a contingency table ``(classes, clusters)``.
"""


_OF_PROBABILITIES = ("probabilities", "reliability", "uncalibrated reliability")


class Metric(NamedTuple):
    """One metric.

    Attributes:
        title: heading of its column in a table.
        reads: input of ``compute``.
        compute: function of this input; returns one value, or one for each class.
        of_case: a case has one value, not one for each class.
        length: "distance" for a length in mm or pixels, "tolerance" for a metric that
            depends on the tolerance in mm or pixels.
    """

    title: str
    reads: Reads
    compute: Callable[..., Any]
    of_case: bool = False
    length: Literal["", "distance", "tolerance"] = ""

    @property
    def needs_probabilities(self) -> bool:
        """Whether the metric is NaN for a method without probabilities."""
        return self.reads in _OF_PROBABILITIES


def _classwise_ece(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """ECE of each class against the others."""
    sums = calibration.class_reliability(probabilities=probabilities, labels=labels)
    return np.asarray(calibration.expected_calibration_error(sums))


def _brier(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Brier score of all pixels."""
    return np.asarray(
        calibration.brier_score(probabilities=probabilities, labels=labels)
    )


METRICS: dict[str, Metric] = {
    "dice": Metric("Dice", "counts", overlap.dice_from_counts),
    "iou": Metric("IoU", "counts", overlap.iou_from_counts),
    "mean_iou": Metric("Mean IoU", "counts", counted.mean_iou_from_counts, True),
    "frequency_weighted_iou": Metric(
        "FW IoU", "counts", counted.frequency_weighted_iou_from_counts, True
    ),
    # A background pixel that is right counts, whether the background is scored or not.
    "pixel_accuracy": Metric(
        "Accuracy", "all counts", counted.pixel_accuracy_from_counts, True
    ),
    "precision": Metric("Prec.", "counts", counted.precision_from_counts),
    "recall": Metric("Recall", "counts", counted.recall_from_counts),
    "specificity": Metric("Specif.", "counts", counted.specificity_from_counts),
    "mcc": Metric("MCC", "counts", counted.mcc_from_counts),
    "volume_similarity": Metric(
        "Vol.sim", "counts", counted.volume_similarity_from_counts
    ),
    "relative_volume_difference": Metric(
        "Vol.diff", "counts", counted.relative_volume_difference_from_counts
    ),
    "hausdorff": Metric(
        "HD", "surfaces", operator.attrgetter("hausdorff"), length="distance"
    ),
    "hd95": Metric("HD95", "surfaces", operator.attrgetter("hd95"), length="distance"),
    "assd": Metric("ASSD", "surfaces", operator.attrgetter("assd"), length="distance"),
    "nsd": Metric("NSD", "surfaces", operator.attrgetter("nsd"), length="tolerance"),
    "lesion_f1": Metric("Lesion F1", "lesions", operator.attrgetter("f1")),
    "lesion_dice": Metric("Lesion Dice", "lesions", operator.attrgetter("dice")),
    "ece": Metric("ECE", "reliability", calibration.expected_calibration_error, True),
    "ece_uncalibrated": Metric(
        "ECE raw",
        "uncalibrated reliability",
        calibration.expected_calibration_error,
        True,
    ),
    "classwise_ece": Metric("Class ECE", "probabilities", _classwise_ece),
    "brier": Metric("Brier", "probabilities", _brier, True),
    "adjusted_rand": Metric("ARI", "partition", clustering.adjusted_rand_index, True),
    "variation_of_information": Metric(
        "VI nats", "partition", clustering.variation_of_information, True
    ),
    "hungarian_iou": Metric("Hung.IoU", "partition", clustering.hungarian_iou, True),
}
"""Every metric with a fixed name, in the order of a table's columns. Other names are
"f" with a number for F-beta ("f2", "f0.5"), and "loss/" with the name of a loss."""


def metric_named(name: str, losses: Mapping[str, Metric] | None = None) -> Metric:
    """Look a metric up by its name.

    Args:
        name: name of a metric, such as "dice", "f2" or "loss/focal".
        losses: losses that are used as metrics, by name with prefix.

    Returns: The metric.
    Raises: InputError: the name is unknown.

    Example:
        >>> metric_named("f0.5").title
        'F0.5'
    """
    found = METRICS.get(name) or (losses or {}).get(name)
    if found is not None:
        return found
    beta = _beta(name)
    if beta is None:
        raise InputError(
            f"eval.metrics: unknown metric {name!r}; expected any of "
            f"{', '.join(METRICS)}, 'f2' (F-beta, any number), "
            f"'{LOSS_PREFIX}' with a name of docs/losses.md"
        )
    return Metric(
        name.upper(),
        "counts",
        lambda counts: counted.f_beta_from_counts(counts, beta=beta),
    )


def _beta(name: str) -> float | None:
    """The number behind the "f" of an F-beta metric; None for other names."""
    digits = name.removeprefix("f").replace(".", "", 1)
    if not name.startswith("f") or not (digits.isascii() and digits.isdigit()):
        return None
    beta = float(name[1:])
    return beta if beta > 0 else None


def check_metric_names(
    names: Sequence[object], *, losses: Sequence[str] | Mapping[str, Any] = ()
) -> None:
    """Refuse names of metrics that are unknown or given twice.

    Args:
        names: ``eval.metrics`` of a config.
        losses: names, with their prefix, of the losses that can be scored.

    Raises: InputError: an unknown name, or one twice.
    """
    for name in names:
        if not isinstance(name, str):
            raise InputError(
                f"eval.metrics: found {name!r}, expected names such as 'dice'"
            )
        if name not in losses:
            metric_named(name)
        if list(names).count(name) > 1:
            raise InputError(f"eval.metrics: found {name!r} twice; name it once")
