import math

import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.metrics.clustering import (
    adjusted_rand_index,
    contingency_table,
    hungarian_iou,
    variation_of_information,
)


@pytest.mark.parametrize("shape", [(8, 9), (4, 5, 6)])
def test_names_of_clusters_do_not_matter(shape):
    labels = np.random.default_rng(0).integers(0, 4, shape)
    clusters = np.array([7, 2, 0, 4], np.uint8)[labels]
    table = contingency_table(clusters=clusters, labels=labels)
    assert table.shape == (4, 8)
    assert adjusted_rand_index(table) == 1.0
    assert variation_of_information(table) == pytest.approx(0.0, abs=1e-12)
    assert hungarian_iou(table) == 1.0


def test_closed_forms_of_one_cut_class():
    # Class 0 (4 pixels) is split into two clusters of 2, class 1 (4 pixels) is whole.
    table = np.array([[2, 2, 0], [0, 0, 4]])
    # Pairs together in both: 1 + 1 + 6; in classes 12, in clusters 8, in all 28.
    expected = 12 * 8 / 28
    assert adjusted_rand_index(table) == pytest.approx((8 - expected) / (10 - expected))
    # H(C | L) = 1/2 log 2; H(L | C) = 0, since each cluster has one class.
    assert variation_of_information(table) == pytest.approx(0.5 * math.log(2))
    assert hungarian_iou(table) == pytest.approx((0.5 + 1) / 2)


def test_the_matching_is_one_to_one_and_the_best():
    # A greedy matching gives cluster 0 to class 0 (IoU 4/8) and none to class 1.
    table = np.array([[4, 3], [4, 0]])
    assert hungarian_iou(table) == pytest.approx((3 / 7 + 4 / 8) / 2)
    # A class without a cluster has IoU 0.
    assert hungarian_iou(np.array([[4], [4], [0]])) == pytest.approx(0.25)


def test_unrelated_partitions_score_about_zero():
    rng = np.random.default_rng(3)
    table = contingency_table(
        clusters=rng.integers(0, 5, 20000), labels=rng.integers(0, 3, 20000)
    )
    assert adjusted_rand_index(table) == pytest.approx(0.0, abs=1e-3)


def test_one_cluster_for_all():
    one = np.array([[5]])
    assert adjusted_rand_index(one) == 1.0
    assert variation_of_information(one) == 0.0
    assert adjusted_rand_index(np.array([[3], [3]])) == 0.0


def test_ignored_pixels_count_for_nothing():
    labels = np.array([0, 0, 1, IGNORE, IGNORE])
    tables = [
        contingency_table(clusters=np.array([1, 1, 0, *under]), labels=labels)
        for under in ((0, 0), (1, 1))
    ]
    np.testing.assert_array_equal(*tables)
    nothing = contingency_table(clusters=labels + 1, labels=np.full(5, IGNORE))
    for score in (adjusted_rand_index, variation_of_information, hungarian_iou):
        assert math.isnan(score(nothing))


def test_pairs_of_a_volume_do_not_overflow():
    table = np.array([[3 * 10**9, 1], [1, 3 * 10**9]])
    assert adjusted_rand_index(table) == pytest.approx(1.0, abs=1e-8)
