"""Makes methods for the scorer of feature clustering, fitted or without fitting."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unet_jax.classical.samples import Sample
from unet_jax.classical.search import confusion
from unet_jax.method import Method, Reference, Spacing
from unet_jax.unsupervised.feature_clustering import FeatureClustering, scaled_image
from unet_jax.unsupervised.matching import iou_of_pairs
from unet_jax.unsupervised.prototypes import (
    class_prototypes,
    merged,
    named_by_prototype,
)

CONTINUITY = (1.0, 5.0)
"""Values of mu that are tried on the training split."""

LABELS_A_CLASS = (1, 3)
"""Numbers of segments for each class at which training may stop; these are tried."""

FITTED_ON = 2
"""Number of training images that they are tried on: pictures, or slices of volumes."""


def fit_feature_clustering(
    samples: Sequence[Sample], *, num_classes: int, seed: int, slice_axis: int = 2
) -> tuple[Method, dict[str, Any]]:
    """Fit the free settings of feature clustering on the training split alone.

    Each segment of a new image is named after the class with the nearest mean intensity
    (or colour) in training. The weight mu and the number of segments at which training
    ends are those with the highest mean IoU on a few training cases.
    """
    prototypes = class_prototypes(
        ((scaled_image(one.image, one.reference), one.label) for one in samples),
        num_classes=num_classes,
    )
    tried = _few(samples, slice_axis)
    best, best_score = None, -1.0
    for continuity, labels in itertools.product(CONTINUITY, LABELS_A_CLASS):
        clustering = FeatureClustering(
            min_labels=labels * num_classes,
            continuity=continuity,
            slice_axis=slice_axis,
            seed=seed,
        )
        predict_fn = _Segmenter(
            clustering, functools.partial(named_by_prototype, prototypes=prototypes)
        )
        scores = [_mean_iou(predict_fn, one, num_classes) for one in tried]
        score = float(np.mean(scores))
        if best is None or score > best_score:
            best, best_score = predict_fn, score
    assert best is not None
    return Method(best, wants_reference=True), {
        "continuity": best.clustering.continuity,
        "min_labels": best.clustering.min_labels,
        "training_iou": round(best_score, 4),
    }


def feature_clusters(
    *, num_classes: int, seed: int, slice_axis: int = 2
) -> tuple[Method, dict[str, Any]]:
    """Make feature clustering of each image by itself, with nothing fitted.

    Training ends at as many segments as classes; where there are more after the last
    update, they are merged by their means. The clusters of an image have no names: the
    scorer matches them with the image's own label, and says so.

    Args:
        num_classes: largest number of clusters of an image.

    Returns:
        The method, which gives clusters, and its settings.
    """
    clustering = FeatureClustering(
        min_labels=num_classes, slice_axis=slice_axis, seed=seed
    )
    chosen = {"continuity": clustering.continuity, "min_labels": num_classes}
    segmenter = _Segmenter(clustering, functools.partial(merged, count=num_classes))
    return Method(segmenter, wants_reference=True), chosen


@dataclasses.dataclass(frozen=True)
class _Segmenter:
    """Segments an image, and lets a function name or merge the segments."""

    clustering: FeatureClustering
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def __call__(
        self, image: np.ndarray, spacing: Spacing, *, reference: Reference = None
    ) -> np.ndarray:
        """Segment one image."""
        del spacing
        segments = self.clustering.segments(image, reference=reference)
        return self.finish(segments, scaled_image(image, reference))


def _few(samples: Sequence[Sample], slice_axis: int) -> list[Sample]:
    """Choose a few pictures, or a few slices of a few volumes, spread over all."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, FITTED_ON).astype(int))
    few = []
    for sample in (samples[int(number)] for number in chosen):
        image, label = sample.image, sample.label
        if label.ndim == 3:
            size = label.shape[slice_axis]
            places = np.unique(np.linspace(0, size - 1, FITTED_ON + 2).astype(int))
            image = np.take(image, places[1:-1], axis=slice_axis)
            label = np.take(label, places[1:-1], axis=slice_axis)
        few.append(Sample(image, label, reference=sample.reference))
    return few


def _mean_iou(predict_fn: _Segmenter, sample: Sample, num_classes: int) -> float:
    """Average the IoU over the foreground classes that a training case has."""
    labels = predict_fn(sample.image, None, reference=sample.reference)
    counts = confusion(labels, sample.label, (num_classes, num_classes))
    present = counts.sum(0)[1:] > 0
    return float(iou_of_pairs(counts).diagonal()[1:][present].mean())
