"""One-to-one names, against trying every assignment."""

import itertools

import numpy as np
import pytest

from unet_jax.classical.search import confusion
from unet_jax.labels import IGNORE
from unet_jax.unsupervised.matching import (
    iou_of_pairs,
    match_clusters,
    match_over,
    named_by_label,
    renamed,
)


@pytest.mark.parametrize("seed", range(5))
def test_the_match_is_the_best_of_all_assignments(seed):
    counts = np.random.default_rng(seed).integers(0, 50, (5, 4))
    iou = iou_of_pairs(counts)
    best = max(
        itertools.permutations(range(5), 4),
        key=lambda order: sum(iou[order[k], k] for k in range(4)),
    )
    assert match_clusters(counts) == best


def test_counts_are_of_pixels_that_are_not_ignored():
    clusters = np.array([[0, 1, 2], [2, 2, 1]])
    label = np.array([[1, 1, 0], [0, IGNORE, IGNORE]])
    counts = confusion(clusters, label, (3, 2))
    assert counts.tolist() == [[0, 1], [0, 1], [2, 0]]
    union = [[3, 2], [3, 2], [2, 4]]
    np.testing.assert_allclose(iou_of_pairs(counts), counts / np.array(union))


def test_any_renaming_of_the_clusters_is_undone():
    label = np.random.default_rng(0).integers(0, 4, (6, 7))
    for permutation in itertools.permutations(range(4)):
        clusters = np.array(permutation)[label]
        order = match_over([(clusters, label)], num_classes=4)
        assert order == permutation
        np.testing.assert_array_equal(renamed(clusters, order), label)
        named = named_by_label(clusters, label, num_classes=4)
        np.testing.assert_array_equal(named, label)


def test_images_are_added_up_before_they_are_matched():
    label = np.array([0, 0, 0, 1])
    one = (np.array([1, 1, 1, 0]), label)
    other = (label, label)
    assert match_over([one, other, other], num_classes=2) == (0, 1)
    assert match_over([one, one, other], num_classes=2) == (1, 0)


def test_fewer_clusters_than_classes_are_refused():
    with pytest.raises(ValueError, match="2 clusters for 3 classes"):
        match_clusters(np.zeros((2, 3), int))
