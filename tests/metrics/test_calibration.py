import math

import numpy as np
import pytest

from unet_jax.labels import IGNORE
from unet_jax.metrics import calibration
from unet_jax.metrics.calibration import (
    Reliability,
    brier_score,
    class_reliability,
    expected_calibration_error,
    reliability,
    reliability_curve,
)


def _two(p):
    p = np.asarray(p, np.float64)
    return np.stack([1 - p, p], axis=-1)


def test_closed_form_of_two_bins():
    # Confidence 0.9 four times, correct three times; 0.6 twice, never correct.
    p = _two([0.9, 0.9, 0.9, 0.1, 0.6, 0.4])
    labels = np.array([1, 1, 0, 0, 0, 1])
    sums = reliability(probabilities=p, labels=labels, num_bins=10)
    expected = (4 * abs(0.75 - 0.9) + 2 * abs(0 - 0.6)) / 6
    assert expected_calibration_error(sums) == pytest.approx(expected, abs=1e-12)
    curve = reliability_curve(sums)
    assert [entry["pixels"] for entry in curve] == [0, 0, 0, 0, 0, 2, 0, 0, 4, 0]
    assert curve[8]["accuracy"] == 0.75
    assert curve[8]["confidence"] == pytest.approx(0.9)
    assert curve[0]["accuracy"] is None
    assert (curve[8]["low"], curve[8]["high"]) == (0.8, 0.9)


def test_brier_in_closed_form():
    score = brier_score(
        probabilities=np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]]),
        labels=np.array([2, 0]),
    )
    assert score == pytest.approx((0.25 + 0.09 + 0.64 + 2) / 2, abs=1e-12)


@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sure_and_right_is_best_sure_and_wrong_is_worst(shape, dtype):
    labels = np.random.default_rng(0).integers(0, 3, shape)
    right = np.eye(3, dtype=dtype)[labels]
    wrong = np.eye(3, dtype=dtype)[(labels + 1) % 3]
    for p, ece, brier in ((right, 0.0, 0.0), (wrong, 1.0, 2.0)):
        given = {"probabilities": p, "labels": labels}
        assert expected_calibration_error(reliability(**given)) == ece
        assert brier_score(**given) == brier
    assert expected_calibration_error(
        class_reliability(probabilities=right, labels=labels)
    ).tolist() == [0.0, 0.0, 0.0]


def test_a_calibrated_method_has_no_error():
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    labels = (rng.random(p.shape) < p).astype(int)
    assert expected_calibration_error(
        reliability(probabilities=_two(p), labels=labels)
    ) == pytest.approx(0.0, abs=5e-3)
    assert expected_calibration_error(
        class_reliability(probabilities=_two(p), labels=labels)
    ) == pytest.approx([0.0, 0.0], abs=5e-3)


def test_chunks_add_up(monkeypatch):
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(3), size=(9, 11))
    labels = rng.integers(-1, 3, (9, 11))
    given = {"probabilities": p, "labels": labels}
    whole = (reliability(**given), class_reliability(**given), brier_score(**given))
    monkeypatch.setattr(calibration, "_CHUNK", 7)
    parts = (reliability(**given), class_reliability(**given), brier_score(**given))
    for one, other in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert whole[2] == pytest.approx(parts[2], rel=1e-12)


def test_ignored_pixels_count_for_nothing():
    p = _two([0.8, 0.3, 0.9])
    some = {"probabilities": p, "labels": np.array([1, 0, IGNORE])}
    less = {"probabilities": p[:2], "labels": np.array([1, 0])}
    np.testing.assert_array_equal(reliability(**some), reliability(**less))
    assert brier_score(**some) == brier_score(**less)
    none = {"probabilities": p, "labels": np.full(3, IGNORE)}
    assert math.isnan(brier_score(**none))
    assert math.isnan(expected_calibration_error(reliability(**none)))


def test_bins_are_closed_above():
    p = np.array([[0.5, 0.5], [0.0, 1.0]])
    sums = reliability(probabilities=p, labels=np.array([0, 1]), num_bins=2)
    assert sums.pixels.tolist() == [1.0, 1.0]
    assert isinstance(sums, Reliability)
