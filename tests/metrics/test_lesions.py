import math

import numpy as np
import pytest

from unet_jax.metrics.lesions import lesion_scores


def _mask(shape, *boxes):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[tuple(slice(a, b) for a, b in box)] = True
    return mask


def test_three_lesions_in_closed_form():
    # One met by two predicted parts, one missed, one hit exactly, one false alarm.
    label = _mask((20, 20), ((1, 5), (1, 5)), ((8, 10), (1, 3)), ((14, 16), (14, 16)))
    prediction = _mask(
        (20, 20),
        ((1, 2), (1, 5)),  # 4 pixels, all in the first
        ((4, 6), (1, 5)),  # 8 pixels, 4 of them in the first
        ((14, 16), (14, 16)),
        ((1, 3), (15, 18)),
    )
    scores = lesion_scores(prediction=prediction, label=label)
    assert (scores.labelled, scores.found, scores.false_alarms) == (3, 2, 1)
    assert scores.f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1), abs=1e-12)
    first = 2 * 8 / (16 + 4 + 8)
    assert scores.dice == pytest.approx((first + 0 + 1) / (3 + 1), abs=1e-12)


def test_a_prediction_that_joins_two_lesions_finds_both_and_pays_in_dice():
    label = _mask((5, 9), ((1, 3), (1, 3)), ((1, 3), (5, 7)))
    prediction = _mask((5, 9), ((1, 3), (1, 7)))
    scores = lesion_scores(prediction=prediction, label=label)
    assert (scores.f1, scores.found, scores.false_alarms) == (1.0, 2, 0)
    assert scores.dice == pytest.approx(2 * 4 / (4 + 12), abs=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 6)])
def test_pixels_are_connected_through_corners(shape):
    label = np.zeros(shape, bool)
    label[(1,) * len(shape)] = label[(2,) * len(shape)] = True
    scores = lesion_scores(prediction=label, label=label)
    assert (scores.labelled, scores.f1, scores.dice) == (1, 1.0, 1.0)


def test_a_small_lesion_weighs_as_much_as_a_large_one():
    label = _mask((12, 12), ((0, 8), (0, 8)), ((10, 11), (10, 11)))
    prediction = _mask((12, 12), ((0, 8), (0, 8)))
    scores = lesion_scores(prediction=prediction, label=label)
    assert scores.dice == 0.5
    assert scores.f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4)])
def test_empty_masks(shape):
    none, some = np.zeros(shape, bool), np.ones(shape, bool)
    for prediction, label in ((none, some), (some, none)):
        scores = lesion_scores(prediction=prediction, label=label)
        assert (scores.f1, scores.dice) == (0.0, 0.0)
    scores = lesion_scores(prediction=none, label=none)
    assert math.isnan(scores.f1)
    assert math.isnan(scores.dice)
