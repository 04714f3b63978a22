"""Matches clusters with classes one to one, by how their pixels overlap."""

from collections.abc import Iterable

import numpy as np

from unet_jax.classical.search import confusion


def iou_of_pairs(counts: np.ndarray) -> np.ndarray:
    """Compute the IoU of each cluster with each class.

    Args:
        counts: ``(clusters, classes)`` from `confusion`.

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
    """Give each class a cluster of its own, so that the sum of their IoU is largest.

    The number of common pixels would not do: with a background of nine tenths it gives
    up a small class for a few pixels of a large one.

    Args:
        counts: ``(clusters, classes)`` from `confusion`, added over images; at
            least as many clusters as classes.

    Returns:
        The cluster of each class.

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
    from scipy.optimize import linear_sum_assignment  # its import takes 0.4 s

    rows, columns = linear_sum_assignment(-iou_of_pairs(counts))
    chosen = dict(zip(columns.tolist(), rows.tolist(), strict=True))
    return tuple(chosen[index] for index in range(classes))


def match_over(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, num_classes: int
) -> tuple[int, ...]:
    """Match as many clusters as classes over several training images."""
    shape = (num_classes, num_classes)
    counts = [confusion(clusters, label, shape) for clusters, label in pairs]
    return match_clusters(np.sum(counts, axis=0))


def named_by_label(
    clusters: np.ndarray, label: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Name the clusters of an image with its own label, as an oracle would.

    Scores with such names are reported apart, since no method could know them.

    Args:
        clusters: ``(*spatial)`` cluster index of every pixel, below ``num_classes``.
        label: ``(*spatial)`` class index or IGNORE of every pixel of that image.

    Returns:
        Class index of every pixel, ``(*spatial)`` uint8 or uint16.

    Example:
        >>> named_by_label(np.array([2, 2, 0]), np.array([1, 1, 2]), num_classes=3)
        array([1, 1, 2], dtype=uint8)
    """
    order = match_over([(clusters, label)], num_classes=num_classes)
    return renamed(clusters, order)


def renamed(clusters: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Turn clusters into classes, uint8 or uint16, by the cluster of each class."""
    names = np.empty(len(order), np.uint8 if len(order) <= 256 else np.uint16)
    names[list(order)] = np.arange(len(order))
    return names[clusters]
