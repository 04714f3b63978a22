"""Feature clustering as a method that the scorer takes: fitted, or image by image."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from unet_jax.data.case import Case
from unet_jax.method import Method, Reference
from unet_jax.unsupervised.feature_clustering import (
    FeatureClustering,
    scaled_image,
)
from unet_jax.unsupervised.matching import iou_of_pairs, overlap_counts
from unet_jax.unsupervised.prototypes import (
    class_prototypes,
    merged,
    named_by_prototype,
)

CONTINUITY = (1.0, 5.0)
"""Values of mu that are tried on the training split."""

LABELS_A_CLASS = (1, 3)
"""Segments that the method may stop at, a class, likewise."""

FITTED_ON = 2
"""Training images that they are tried on: pictures, or slices of one volume each."""


class LabelledImage(Protocol):
    """What is read of a training case."""

    @property
    def image(self) -> np.ndarray:
        """``(*spatial, channels)``."""
        ...

    @property
    def label(self) -> np.ndarray:
        """``(*spatial)`` class index of every pixel, or IGNORE."""
        ...

    @property
    def reference(self) -> Reference:
        """See ``Case``."""
        ...


def fit_feature_clustering(
    samples: Sequence[LabelledImage],
    *,
    num_classes: int,
    seed: int,
    slice_axis: int = 2,
) -> tuple[Method, dict[str, Any]]:
    """Fit what feature clustering leaves open, on the training split alone.

    Each segment of a new image is named after the class whose mean intensity (or
    colour) in training its own is nearest to. mu and the number of segments at which
    the loop ends are those with the highest mean IoU on a few training cases.

    Args:
        samples: training cases.
        num_classes: classes, background included.
        seed: of every image's network.
        slice_axis: of volumes, whose slices are worked on.

    Returns:
        The method, which gives labels, and the settings that were chosen.
    """
    prototypes = class_prototypes(
        ((scaled_image(one.image, one.reference), one.label) for one in samples),
        num_classes=num_classes,
    )
    tried = _few(samples, slice_axis)
    best, best_score = None, -1.0
    for continuity, labels in itertools.product(CONTINUITY, LABELS_A_CLASS):
        method = FeatureClustering(
            min_labels=labels * num_classes,
            continuity=continuity,
            slice_axis=slice_axis,
            seed=seed,
        )
        predict_fn = _Named(method, prototypes)
        score = float(np.mean([_mean_iou(predict_fn, one) for one in tried]))
        if best is None or score > best_score:
            best, best_score = predict_fn, score
    assert best is not None
    return Method(best, wants_reference=True), {
        "continuity": best.method.continuity,
        "min_labels": best.method.min_labels,
        "training_iou": round(best_score, 4),
    }


def feature_clusters(
    *, num_classes: int, seed: int, slice_axis: int = 2
) -> tuple[Method, dict[str, Any]]:
    """Feature clustering of each image by itself, with nothing fitted.

    The loop ends at as many segments as classes; where there are more after the last
    update, they are merged by their means. The
    clusters of an image have no names: whoever scores them matches them with the
    image's own label, and says so.

    Args:
        num_classes: clusters of an image at most.
        seed: of every image's network.
        slice_axis: of volumes, whose slices are worked on.

    Returns:
        The method, which gives clusters, and its settings.
    """
    method = FeatureClustering(min_labels=num_classes, slice_axis=slice_axis, seed=seed)
    chosen = {"continuity": method.continuity, "min_labels": num_classes}
    return Method(_Merged(method, num_classes), wants_reference=True), chosen


@dataclasses.dataclass(frozen=True)
class _Named:
    """Segments with the names of the nearest prototypes."""

    method: FeatureClustering
    prototypes: np.ndarray

    def __call__(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        reference: Reference = None,
    ) -> np.ndarray:
        """Segment and name one image."""
        del spacing
        segments = self.method.segments(image, reference=reference)
        scaled = scaled_image(image, reference)
        return named_by_prototype(segments, scaled, self.prototypes)


@dataclasses.dataclass(frozen=True)
class _Merged:
    """As many clusters as classes, without names."""

    method: FeatureClustering
    count: int

    def __call__(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        reference: Reference = None,
    ) -> np.ndarray:
        """Segment one image."""
        del spacing
        segments = self.method.segments(image, reference=reference)
        scaled = scaled_image(image, reference)
        return merged(segments, scaled, count=self.count)


def _few(samples: Sequence[LabelledImage], slice_axis: int) -> list[Case]:
    """Spread a few pictures, or a few slices of a few volumes, over the samples."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, FITTED_ON).astype(int))
    few = []
    for number in chosen:
        sample = samples[int(number)]
        image, label = sample.image, sample.label
        if label.ndim == 3:
            size = label.shape[slice_axis]
            places = np.unique(np.linspace(0, size - 1, FITTED_ON + 2).astype(int))
            image = np.take(image, places[1:-1], axis=slice_axis)
            label = np.take(label, places[1:-1], axis=slice_axis)
        few.append(Case(str(number), image, label, None, "", sample.reference))
    return few


def _mean_iou(predict_fn: _Named, sample: Case) -> float:
    """Mean IoU of the classes above background that a training case has."""
    assert sample.label is not None, "samples have labels"
    labels = predict_fn(sample.image, None, reference=sample.reference)
    classes = len(predict_fn.prototypes)
    counts = overlap_counts(
        labels, sample.label, num_clusters=classes, num_classes=classes
    )
    present = counts.sum(0)[1:] > 0
    return float(iou_of_pairs(counts).diagonal()[1:][present].mean())
