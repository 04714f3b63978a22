"""Clusters merged by the cut between them, then matched: on drawn images."""

import itertools

import numpy as np
import pytest

from unet_jax.losses.unsupervised import cluster_affinities, soft_ncut_loss
from unet_jax.unsupervised.cuts import merged_by_cut, normalised_cut
from unet_jax.unsupervised.naming import ClusterNaming, Segmented

WEIGHTS = {"intensity_sigma": 0.5, "spatial_sigma": 2.0, "radius": 2.5}


def _symmetric(clusters, seed):
    values = np.random.default_rng(seed).uniform(0, 1, (clusters, clusters))
    return values + values.T + 3 * np.eye(clusters)


def _partitions(items, count):
    """Yield every way to cut a list into a number of groups."""
    if len(items) < count or count == 0:
        return
    if len(items) == count:
        yield [(one,) for one in items]
        return
    first, *rest = items
    for smaller in _partitions(rest, count - 1):
        yield [(first,), *smaller]
    for same in _partitions(rest, count):
        for index, group in enumerate(same):
            yield [*same[:index], (first, *group), *same[index + 1 :]]


def test_the_cut_of_hard_clusters_is_the_loss():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 9, 8, 2)).astype(np.float32)
    one_hot = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (1, 9, 8))]
    affinities = cluster_affinities(probabilities=one_hot, images=images, **WEIGHTS)
    np.testing.assert_allclose(affinities, np.transpose(affinities), rtol=1e-5)
    loss = soft_ncut_loss(logits=200 * one_hot, images=images, **WEIGHTS)
    cut = normalised_cut(np.asarray(affinities), [(0,), (1,), (2,)])
    np.testing.assert_allclose(cut, loss[0], rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_no_single_move_makes_the_cut_smaller_and_few_partitions_are_better(seed):
    affinities = _symmetric(6, seed)
    groups = merged_by_cut(affinities, count=3)
    assert sorted(itertools.chain(*groups)) == list(range(6))
    cuts = sorted(
        normalised_cut(affinities, other) for other in _partitions(range(6), 3)
    )
    assert len(cuts) == 90  # the Stirling number
    assert normalised_cut(affinities, groups) <= cuts[4]


def test_groups_that_nothing_connects_are_found():
    blocks = np.zeros((6, 6))
    for group in ((0, 4), (1, 2, 5), (3,)):
        blocks[np.ix_(group, group)] = 1.0
    assert merged_by_cut(blocks, count=3) == [(0, 4), (1, 2, 5), (3,)]


def _drawn(values, clusters, label):
    image = np.asarray(values, np.float32)[clusters][..., None]
    return Segmented(clusters, image, label)


def test_as_many_clusters_as_classes_are_permuted():
    clusters = np.array([[0, 0, 1, 1, 3, 3]])
    label = np.array([[2, 2, 0, 0, 1, 0]])
    naming = ClusterNaming(num_clusters=4, num_classes=4, slice_axis=2, weights=WEIGHTS)
    groups = naming.groups([_drawn([0, 1, 2, 3], clusters, label)])
    assert groups[:3] == ((1,), (3,), (0,))
    assert groups[3] == (2,)  # no pixel has it: it fills the gap


@pytest.mark.parametrize("shape", [(8, 90), (8, 90, 3)])
def test_more_clusters_are_merged_without_labels_and_then_matched(shape):
    columns = np.indices(shape)[1]
    clusters = (columns // 15) % 4  # 0 1 2 3 0 1
    # 1 and 2 look alike; the labels would have 2 and 3 together.
    values = [-3.0, 0.0, 0.1, 3.0]
    label = np.array([1, 2, 0, 0])[clusters]
    naming = ClusterNaming(num_clusters=6, num_classes=3, slice_axis=2, weights=WEIGHTS)
    groups = naming.groups([_drawn(values, clusters, label)] * 2)
    assert sorted(itertools.chain(*groups)) == list(range(6))
    assert {1, 2} <= set(groups[2])
    assert 0 in groups[1]
    assert 3 in groups[0]
