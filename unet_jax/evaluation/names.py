"""The metrics that a config can name, and what each of them needs."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from unet_jax.errors import InputError
from unet_jax.metrics import counts as counted
from unet_jax.metrics import overlap

LOSS_PREFIX = "loss/"
"""Before the name of a loss that is a held-out metric."""

DEFAULT_METRICS = (
    "dice",
    "iou",
    "precision",
    "recall",
    "volume_similarity",
    "hd95",
    "assd",
    "nsd",
    "ece",
)
"""What is scored where nothing else is asked for; `configs/base.py` has the same."""

SURFACE = ("hausdorff", "hd95", "assd", "nsd")
"""Metrics of surfaces, fields of `SurfaceScores`; nsd alone needs the tolerance."""

DISTANCES = ("hausdorff", "hd95", "assd")
"""Those of them that have a unit."""

LESION = ("lesion_f1", "lesion_dice")
"""Metrics of connected components."""

CLUSTERING = ("adjusted_rand", "variation_of_information", "hungarian_iou")
"""Metrics of partitions, a value a case."""

PROBABILITY = ("ece", "classwise_ece", "brier")
"""Metrics of probabilities: NaN for methods without them."""

_COUNTS = (
    "dice",
    "iou",
    "precision",
    "recall",
    "specificity",
    "mcc",
    "volume_similarity",
    "relative_volume_difference",
)
_CASE_COUNTS = ("mean_iou", "frequency_weighted_iou", "pixel_accuracy")

NAMES = (
    *_COUNTS,
    *_CASE_COUNTS,
    *SURFACE,
    *LESION,
    *PROBABILITY,
    *CLUSTERING,
)
"""Every metric with a fixed name. Beside them: "f" and a number for F-beta ("f2",
"f0.5"), and "loss/" with the name of a loss."""

OF_CASES = (*_CASE_COUNTS, "ece", "brier", *CLUSTERING)
"""Metrics that have a value for a case, not for each class of it."""


def check_metric_names(
    names: Sequence[object], *, losses: Collection[str] = ()
) -> None:
    """Refuse what is no metric.

    Args:
        names: ``eval.metrics`` of a config.
        losses: names, with their prefix, of the losses that can be scored.

    Raises:
        InputError: an unknown name, or one twice.
    """
    for name in names:
        if not isinstance(name, str):
            raise InputError(
                f"eval.metrics: found {name!r}, expected names such as 'dice'"
            )
        if name not in NAMES and name not in losses and f_beta_of(name) is None:
            raise InputError(
                f"eval.metrics: unknown metric {name!r}; expected any of "
                f"{', '.join(NAMES)}, 'f2' (F-beta, any number), "
                f"'{LOSS_PREFIX}' with a name of docs/losses.md"
            )
        if list(names).count(name) > 1:
            raise InputError(f"eval.metrics: found {name!r} twice; name it once")


def f_beta_of(name: str) -> float | None:
    """Read the beta of an F-beta score out of its name.

    Args:
        name: of a metric.

    Returns:
        The number behind the "f"; None for other names.

    Example:
        >>> f_beta_of("f0.5"), f_beta_of("f"), f_beta_of("focal")
        (0.5, None, None)
    """
    digits = name.removeprefix("f").replace(".", "", 1)
    if not name.startswith("f") or not (digits.isascii() and digits.isdigit()):
        return None
    beta = float(name[1:])
    return beta if beta > 0 else None


def needs_probabilities(names: Sequence[str]) -> bool:
    """Say whether a method should be asked for its probabilities.

    Args:
        names: of metrics.

    Returns:
        True if one cannot do without.
    """
    return any(name in PROBABILITY or name.startswith(LOSS_PREFIX) for name in names)


def counts_function(name: str) -> Callable[[overlap.ConfusionCounts], Any] | None:
    """Return what divides the counts for a metric.

    Args:
        name: of a metric.

    Returns:
        A function of counts ``(batch, classes)``, to ``(batch)`` for those in
        ``OF_CASES``; None for metrics that need more than counts.
    """
    match name:
        case "dice":
            return overlap.dice_from_counts
        case "iou":
            return overlap.iou_from_counts
        case "precision":
            return counted.precision_from_counts
        case "recall":
            return counted.recall_from_counts
        case "specificity":
            return counted.specificity_from_counts
        case "mcc":
            return counted.mcc_from_counts
        case "volume_similarity":
            return counted.volume_similarity_from_counts
        case "relative_volume_difference":
            return counted.relative_volume_difference_from_counts
        case "mean_iou":
            return counted.mean_iou_from_counts
        case "frequency_weighted_iou":
            return counted.frequency_weighted_iou_from_counts
        case "pixel_accuracy":
            return counted.pixel_accuracy_from_counts
    beta = f_beta_of(name)
    if beta is None:
        return None
    return lambda counts: counted.f_beta_from_counts(counts, beta=beta)
