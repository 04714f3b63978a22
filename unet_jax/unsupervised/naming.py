"""Names the clusters of a network that was trained on images alone."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from unet_jax.classical.search import confusion
from unet_jax.losses.unsupervised import cluster_affinities
from unet_jax.unsupervised.cuts import merged_by_cut
from unet_jax.unsupervised.matching import match_clusters

_MULTIPLE = 64
"""Planes are padded to multiples of this, so that few sizes are compiled."""

_PLANES = 24
"""Number of planes of an image, spread over it, on which affinities are measured."""


class Segmented(NamedTuple):
    """A training image with its clusters.

    Attributes:
        clusters: ``(*spatial)`` cluster index of every pixel.
        image: ``(*spatial, channels)`` with intensities as the network saw them.
        label: ``(*spatial)`` class index of every pixel, or IGNORE.
    """

    clusters: np.ndarray
    image: np.ndarray
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class ClusterNaming:
    """Settings that decide how clusters become classes; the weights are the loss's."""

    num_clusters: int
    num_classes: int
    slice_axis: int
    weights: Mapping[str, float]

    def groups(self, segmented: Iterable[Segmented]) -> tuple[tuple[int, ...], ...]:
        """Match clusters with classes, one to one, on the training split.

        Where there are more clusters than classes, they are first merged by the
        normalised cut between them, without labels, until there are as many.

        Returns:
            The clusters of each class; every cluster belongs to one class.
        """
        clusters, classes = self.num_clusters, self.num_classes
        counts = np.zeros((clusters, classes), np.int64)
        affinities = np.eye(clusters)
        if clusters > classes:
            affinities = np.zeros((clusters, clusters))
        for one in segmented:
            counts += confusion(one.clusters, one.label, (clusters, classes))
            if clusters > classes:
                affinities += self._affinities(one.clusters, one.image)
        groups = merged_by_cut(affinities, count=classes)
        # A cluster without training pixels fills a gap, or joins the first group.
        empty = [(int(one),) for one in np.flatnonzero(affinities.diagonal() <= 0)]
        room = classes - len(groups)
        groups += empty[:room]
        groups[0] += tuple(one for (one,) in empty[room:])
        grouped = np.stack([counts[list(group)].sum(axis=0) for group in groups])
        return tuple(groups[index] for index in match_clusters(grouped))

    def _affinities(self, clusters: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Measure the affinities of the clusters of one image, plane by plane."""
        if clusters.ndim == 2:
            clusters, image = clusters[None], image[None]
        else:
            clusters, image = (
                np.moveaxis(array, self.slice_axis, 0) for array in (clusters, image)
            )
        last = len(clusters) - 1
        chosen = np.unique(np.linspace(0, last, min(_PLANES, last + 1)).astype(int))
        total = np.zeros((self.num_clusters, self.num_clusters))
        pads = [(0, -size % _MULTIPLE) for size in clusters.shape[1:]]
        for index in chosen:
            # Padding has no cluster, and no affinity with anything.
            labels = np.pad(clusters[index].astype(np.int64) + 1, pads)
            one_hot = np.eye(self.num_clusters + 1, dtype=np.float32)[labels][..., 1:]
            plane = np.pad(image[index], (*pads, (0, 0)))
            total += np.asarray(
                cluster_affinities(
                    probabilities=one_hot[None], images=plane[None], **self.weights
                ),
                np.float64,
            )
        return total
