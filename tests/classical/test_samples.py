import numpy as np
import pytest

from unet_jax.classical.samples import Sample, fitting_pieces, thinned
from unet_jax.classical.search import (
    Model,
    best_model,
    mean_foreground_dice,
    name_clusters,
)


def _volume(shape, fill=0):
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, 3 * n // 4) for n in shape)] = 1
    return Sample(np.full((*shape, 1), fill, np.uint8), label, (1.0,) * len(shape))


def test_small_cases_stay_whole():
    samples = [_volume((8, 9)), _volume((5, 6))]
    assert [p.label.shape for p in fitting_pieces(samples)] == [(8, 9), (5, 6)]
    assert [p.label.shape for p in thinned(samples)] == [(8, 9), (5, 6)]


def test_of_volumes_whole_planes_around_the_foreground_are_kept():
    samples = [_volume((60, 80, 50), fill) for fill in (1, 2)]
    pieces = fitting_pieces(samples, pixels=100_000)
    assert [p.label.shape for p in pieces] == [(60, 80, 5)] * 4
    assert [int(p.image.max()) for p in pieces] == [1, 1, 2, 2]
    assert all(p.label.any() and p.image.shape[:3] == p.label.shape for p in pieces)


def test_of_a_large_picture_the_part_with_the_foreground_is_kept():
    label = np.zeros((3000, 2000), np.uint8)
    label[2500:2600, 100:200] = 1
    sample = Sample(np.zeros((3000, 2000, 3), np.uint8), label)
    (piece,) = fitting_pieces([sample], pixels=2**18)
    assert piece.label.size <= 2**18
    assert min(piece.label.shape) > 400
    assert piece.label.sum() == 100 * 100


def test_of_many_pictures_some_that_are_spread_over_the_split_are_kept():
    samples = [_volume((64, 64), fill) for fill in range(200)]
    pieces = fitting_pieces(samples, pixels=8 * 64 * 64)
    kept = [int(piece.image.max()) for piece in pieces]
    assert len(kept) == 8
    assert (kept[0], kept[-1]) == (0, 199)
    assert len(thinned(samples, pixels=10**9)) == 64


@pytest.mark.parametrize("shape", [(64, 500), (30, 40, 50)])
def test_thinned_cases_have_about_as_many_pixels_as_wanted(shape):
    samples = [_volume(shape)] * 2
    wanted = samples[0].label.size // 2
    total = sum(piece.label.size for piece in thinned(samples, pixels=wanted))
    assert wanted / 2 <= total <= 1.2 * wanted


def test_mean_dice_by_hand_leaves_absent_classes_out():
    counts = np.zeros((2, 3, 3), int)
    counts[0] = [[5, 1, 0], [2, 4, 0], [0, 0, 0]]  # class 1: 8 / (6 + 5)
    counts[1] = [[5, 0, 0], [0, 3, 1], [0, 0, 2]]  # class 1: 6 / 7, class 2: 4 / 5
    expected = ((8 / 11 + 6 / 7) / 2 + 4 / 5) / 2
    assert mean_foreground_dice(counts) == pytest.approx(expected)
    assert mean_foreground_dice(np.zeros((1, 2, 2))) == 0


def test_clusters_take_the_class_they_overlap_most_but_a_small_class_is_not_drowned():
    counts = np.array([[[90, 0], [0, 10]]])
    np.testing.assert_array_equal(name_clusters(counts), [0, 1])
    # Two thirds of the second cluster are background, yet it holds all of class 1.
    counts = np.array([[[1000, 0], [20, 10]]])
    np.testing.assert_array_equal(name_clusters(counts), [0, 1])


def test_the_search_finds_the_best_values_and_counts_each_once():
    label = np.array([[0, 1, 1, 1]])
    calls = []

    def make(*, first, last):
        calls.append((first, last))

        def predict(image, spacing, reference):
            guess = np.zeros((1, 4), int)
            guess[0, first:last] = 1
            return guess

        return Model(predict, {"first": first, "last": last})

    pieces = [Sample(np.zeros((1, 4, 1)), label)]
    grid = {"first": (0, 1, 2), "last": (2, 3, 4)}
    model = best_model(make, grid, pieces, 2)
    assert model.chosen == {"first": 1, "last": 4, "training_dice": 1.0}
    assert len(calls) == len(set(calls)) < 9
