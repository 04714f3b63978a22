"""Names for clusters: one class each, by how their pixels overlap."""

from collections.abc import Iterable

import numpy as np
from scipy.optimize import linear_sum_assignment

from unet_jax.labels import IGNORE


def overlap_counts(
    clusters: np.ndarray, label: np.ndarray, *, num_clusters: int, num_classes: int
) -> np.ndarray:
    """Count the pixels of each cluster in each class.

    Args:
        clusters: ``(*spatial)`` cluster index of every pixel.
        label: ``(*spatial)`` class index of every pixel; IGNORE counts for nothing.
        num_clusters: clusters that there may be.
        num_classes: classes that there may be.

    Returns:
        ``(num_clusters, num_classes)`` int64.

    Example:
        >>> overlap_counts(np.array([1, 1, 0]), np.array([0, 0, 1]),
        ...                num_clusters=2, num_classes=2).tolist()
        [[0, 1], [2, 0]]
    """
    labelled = label != IGNORE
    pairs = clusters[labelled].astype(np.int64) * num_classes + label[labelled]
    counts = np.bincount(pairs, minlength=num_clusters * num_classes)
    return counts.reshape(num_clusters, num_classes)


def iou_of_pairs(counts: np.ndarray) -> np.ndarray:
    """Divide the common pixels of each cluster and class by those of either.

    Args:
        counts: ``(clusters, classes)`` from `overlap_counts`.

    Returns:
        ``(clusters, classes)`` in [0, 1]; 0 where both are empty.

    Example:
        >>> iou_of_pairs(np.array([[2, 0], [1, 1]])).round(3).tolist()
        [[0.667, 0.0], [0.25, 0.5]]
    """
    counts = counts.astype(np.float64)
    union = counts.sum(0, keepdims=True) + counts.sum(1, keepdims=True) - counts
    return counts / np.maximum(union, 1)


def match_clusters(counts: np.ndarray) -> tuple[int, ...]:
    """Give each class a cluster of its own, so that their IoU adds up to the most.

    IoU and not the number of common pixels: with a background of nine tenths the
    latter would give a small class away for a few pixels of a large one.

    Args:
        counts: ``(clusters, classes)`` from `overlap_counts`, added over images; at
            least as many clusters as classes.

    Returns:
        For each class its cluster.

    Raises:
        ValueError: fewer clusters than classes.

    Source:
        Kuhn: The Hungarian method for the assignment problem (1955), as
        ``scipy.optimize.linear_sum_assignment``.

    Example:
        >>> match_clusters(np.array([[0, 5], [90, 5]]))  # class 0 is cluster 1
        (1, 0)
    """
    clusters, classes = counts.shape
    if clusters < classes:
        raise ValueError(f"{clusters} clusters for {classes} classes; expected as many")
    rows, columns = linear_sum_assignment(-iou_of_pairs(counts))
    chosen = dict(zip(columns.tolist(), rows.tolist(), strict=True))
    return tuple(chosen[index] for index in range(classes))


def match_over(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, num_classes: int
) -> tuple[int, ...]:
    """Match as many clusters as classes over several images, those of training.

    Args:
        pairs: clusters and label of each image.
        num_classes: of either.

    Returns:
        For each class its cluster.
    """
    total = np.zeros((num_classes, num_classes), np.int64)
    for clusters, label in pairs:
        total += overlap_counts(
            clusters, label, num_clusters=num_classes, num_classes=num_classes
        )
    return match_clusters(total)


def named_by_label(
    clusters: np.ndarray, label: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Name the clusters of an image with its own label: what an oracle would do.

    Scores of such names stand apart: no method could have known them.

    Args:
        clusters: ``(*spatial)`` cluster index of every pixel, below ``num_classes``.
        label: ``(*spatial)`` class index or IGNORE of every pixel of that image.
        num_classes: of either.

    Returns:
        Class index of every pixel, ``(*spatial)`` uint8 or uint16.

    Example:
        >>> named_by_label(np.array([2, 2, 0]), np.array([1, 1, 2]), num_classes=3)
        array([1, 1, 2], dtype=uint8)
    """
    order = match_over([(clusters, label)], num_classes=num_classes)
    return renamed(clusters, order)


def renamed(clusters: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Turn clusters into classes.

    Args:
        clusters: ``(*spatial)`` cluster index of every pixel.
        order: for each class its cluster, from `match_clusters`.

    Returns:
        Class index of every pixel, ``(*spatial)`` uint8 or uint16.
    """
    names = np.empty(len(order), np.uint8 if len(order) <= 256 else np.uint16)
    names[list(order)] = np.arange(len(order))
    return names[clusters]
