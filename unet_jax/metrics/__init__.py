"""Scores of segmentations: pure functions of counts, surfaces and probabilities."""

from unet_jax.metrics.calibration import (
    Reliability,
    brier_score,
    class_reliability,
    expected_calibration_error,
    reliability,
    reliability_curve,
)
from unet_jax.metrics.clustering import (
    adjusted_rand_index,
    contingency_table,
    hungarian_iou,
    variation_of_information,
)
from unet_jax.metrics.counts import (
    f_beta_from_counts,
    frequency_weighted_iou_from_counts,
    mcc_from_counts,
    mean_iou_from_counts,
    pixel_accuracy_from_counts,
    precision_from_counts,
    recall_from_counts,
    relative_volume_difference_from_counts,
    specificity_from_counts,
    volume_similarity_from_counts,
)
from unet_jax.metrics.lesions import LesionScores, lesion_scores
from unet_jax.metrics.overlap import (
    ConfusionCounts,
    confusion_counts,
    dice_from_counts,
    dice_score,
    iou_from_counts,
    iou_score,
)
from unet_jax.metrics.surface import (
    SurfaceScores,
    average_symmetric_surface_distance,
    hausdorff,
    hausdorff_95,
    normalized_surface_dice,
    surface_scores,
)

__all__ = [
    "ConfusionCounts",
    "LesionScores",
    "Reliability",
    "SurfaceScores",
    "adjusted_rand_index",
    "average_symmetric_surface_distance",
    "brier_score",
    "class_reliability",
    "confusion_counts",
    "contingency_table",
    "dice_from_counts",
    "dice_score",
    "expected_calibration_error",
    "f_beta_from_counts",
    "frequency_weighted_iou_from_counts",
    "hausdorff",
    "hausdorff_95",
    "hungarian_iou",
    "iou_from_counts",
    "iou_score",
    "lesion_scores",
    "mcc_from_counts",
    "mean_iou_from_counts",
    "normalized_surface_dice",
    "pixel_accuracy_from_counts",
    "precision_from_counts",
    "recall_from_counts",
    "relative_volume_difference_from_counts",
    "reliability",
    "reliability_curve",
    "specificity_from_counts",
    "surface_scores",
    "variation_of_information",
    "volume_similarity_from_counts",
]
