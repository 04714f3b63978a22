"""Names or merges the segments of an image by their mean colour."""

from collections.abc import Iterable

import numpy as np

from unet_jax.classical.prototypes import segment_means
from unet_jax.labels import IGNORE


def class_prototypes(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, num_classes: int
) -> np.ndarray:
    """Average each class over labelled training images.

    Args:
        pairs: image ``(*spatial, channels)`` and label ``(*spatial)`` of each.

    Returns:
        ``(classes, channels)``; infinity for a class that no image has, which then is
        never the nearest.

    Example:
        >>> image, label = np.array([[1.0], [3.0], [9.0]]), np.array([0, 0, 1])
        >>> class_prototypes([(image, label)], num_classes=2).tolist()
        [[2.0], [9.0]]
    """
    sums: np.ndarray | float = 0.0
    counts: np.ndarray | float = 0.0
    for image, label in pairs:
        labelled = label != IGNORE
        # One more pixel of each class, so that every image has all classes.
        classes = np.concatenate([label[labelled], np.arange(num_classes)])
        zeros = np.zeros((num_classes, image.shape[-1]))
        means = segment_means(classes, np.concatenate([image[labelled], zeros]))
        sizes = np.bincount(classes)
        sums = sums + means * sizes[:, None]
        counts = counts + sizes - 1
    counts = np.asarray(counts)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def named_by_prototype(
    segments: np.ndarray, image: np.ndarray, prototypes: np.ndarray
) -> np.ndarray:
    """Give each segment the class with the prototype nearest to its mean.

    Args:
        segments: ``(*spatial)`` segment index of every pixel, from 0 on.
        image: ``(*spatial, channels)``, on the scale of the prototypes.

    Returns:
        ``(*spatial)`` uint8 class index of every pixel.
    """
    means = segment_means(segments, image)
    squares = np.square(means[:, None] - prototypes).sum(axis=-1)
    return squares.argmin(axis=1).astype(np.uint8)[segments]


def merged(segments: np.ndarray, image: np.ndarray, *, count: int) -> np.ndarray:
    """Merge segments until a number of them is left, see `merged_groups`.

    Args:
        segments: ``(*spatial)`` segment index of every pixel, from 0 on.
        image: ``(*spatial, channels)``.

    Returns:
        ``(*spatial)`` int32 with values below ``count``.

    Example:
        >>> image = np.array([[0.0], [1.0], [9.0]])
        >>> merged(np.array([0, 1, 2]), image, count=2).tolist()
        [0, 0, 1]
    """
    means, sizes = segment_means(segments, image), np.bincount(segments.ravel())
    names = np.zeros(len(sizes), np.int32)
    for index, group in enumerate(merged_groups(means, sizes, count=count)):
        names[list(group)] = index
    return names[segments]


def merged_groups(
    means: np.ndarray, sizes: np.ndarray, *, count: int
) -> list[tuple[int, ...]]:
    """Merge segments by their means until a number is left, the cheapest pair first.

    The cost of a pair is the increase of the squared error of the image, described by
    the means of its segments: n m / (n + m) times the squared distance of the means.

    Args:
        means: ``(segments, channels)`` from `segment_means`.
        sizes: number of pixels of each segment.

    Returns:
        The segments of each group, sorted; segments without pixels are in no group.

    Source:
        Ward: Hierarchical grouping to optimize an objective function (1963).

    Example:
        >>> merged_groups(np.array([[0.0], [9.0], [1.0]]), np.array([5, 5, 5]), count=2)
        [(0, 2), (1,)]
    """
    groups: list[tuple[int, ...]] = [(int(i),) for i in np.flatnonzero(sizes)]
    means = np.array([means[index] for index, *_ in groups], np.float64)
    weights = np.array([sizes[index] for index, *_ in groups], np.float64)
    while len(groups) > count:
        costs = np.square(means[:, None] - means).sum(axis=-1)
        costs *= weights[:, None] * weights / (weights[:, None] + weights)
        np.fill_diagonal(costs, np.inf)
        kept, gone = sorted(np.unravel_index(int(costs.argmin()), costs.shape))
        total = weights[kept] + weights[gone]
        fractions = weights[[kept, gone]] / total
        means[kept] = fractions @ means[[kept, gone]]
        weights[kept] = total
        means, weights = np.delete(means, gone, 0), np.delete(weights, gone)
        groups[kept] += groups.pop(gone)
    return sorted(tuple(sorted(group)) for group in groups)
