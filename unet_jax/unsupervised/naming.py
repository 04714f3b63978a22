"""Names for the clusters of a network that learnt from images alone."""

from collections.abc import Iterable

import numpy as np

from unet_jax.data.case import Case
from unet_jax.unsupervised.feature_clustering import scaled_image
from unet_jax.unsupervised.matching import match_clusters, overlap_counts
from unet_jax.unsupervised.prototypes import merged_groups, segment_means


def name_clusters(
    segmented: Iterable[tuple[np.ndarray, Case]], *, num_clusters: int, num_classes: int
) -> tuple[tuple[int, ...], ...]:
    """Match clusters with classes, one to one, on the training split.

    Where there are more clusters than classes, they are first merged by their mean
    intensities (colours), without a look at labels, until there are as many.

    Args:
        segmented: clusters ``(*spatial)`` and the training case that they are of.
        num_clusters: that there may be.
        num_classes: classes, background included.

    Returns:
        For each class its clusters; every cluster is of one class.
    """
    counts = np.zeros((num_clusters, num_classes), np.int64)
    sums: np.ndarray | float = 0.0
    sizes = np.zeros(num_clusters, np.int64)
    for clusters, case in segmented:
        assert case.label is not None, "training cases have labels"
        counts += overlap_counts(
            clusters, case.label, num_clusters=num_clusters, num_classes=num_classes
        )
        image = scaled_image(case.image, case.reference)
        means, found = segment_means(clusters, image)
        missing = num_clusters - len(found)
        found = np.pad(found, (0, missing))
        sums = sums + np.pad(means, ((0, missing), (0, 0))) * found[:, None]
        sizes += found
    means = np.asarray(sums) / np.maximum(sizes, 1)[:, None]
    groups = merged_groups(means, sizes, count=num_classes)
    # A cluster that no training pixel is in fills a gap, or goes with the first.
    empty = [(int(index),) for index in np.flatnonzero(sizes == 0)]
    room = num_classes - len(groups)
    groups += empty[:room]
    groups[0] += tuple(index for group in empty[room:] for index in group)
    grouped = np.stack([counts[list(group)].sum(0) for group in groups])
    return tuple(groups[index] for index in match_clusters(grouped))
