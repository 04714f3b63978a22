import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unet_jax.evaluation.metric_table import METRICS, metric_named
from unet_jax.labels import IGNORE
from unet_jax.metrics.counts import f_beta_from_counts
from unet_jax.metrics.overlap import ConfusionCounts, confusion_counts

ALL = [
    name
    for name in (*METRICS, "f2", "f0.5")
    if metric_named(name).reads in ("counts", "all counts")
]
BY_CLASS = [name for name in ALL if not metric_named(name).of_case]


def _counts(tp, fp, fn, tn):
    return ConfusionCounts(*(np.array([[count]]) for count in (tp, fp, fn, tn)))


def _value(name, *counts):
    return np.asarray(metric_named(name).compute(_counts(*counts))).item()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dice", 12 / 17),
        ("iou", 6 / 11),
        ("precision", 6 / 8),
        ("recall", 6 / 9),
        ("specificity", 9 / 11),
        ("f2", 5 * 6 / (5 * 6 + 4 * 3 + 2)),
        ("f0.5", 1.25 * 6 / (1.25 * 6 + 0.25 * 3 + 2)),
        ("f1", 12 / 17),
        ("mcc", (6 * 9 - 2 * 3) / math.sqrt(8 * 9 * 11 * 12)),
        ("volume_similarity", 1 - 1 / 17),
        ("relative_volume_difference", -1 / 9),
        ("mean_iou", 6 / 11),
        ("frequency_weighted_iou", 6 / 11),
    ],
)
def test_closed_forms(name, expected):
    assert _value(name, 6, 2, 3, 9) == pytest.approx(expected, abs=1e-12)


def test_whole_case_scores_in_closed_form():
    # 10 pixels: 5 of class 0, 3 of class 1, 2 of class 2; 4, 2 and 1 of them correct.
    tp, fp, fn = np.array([[4, 2, 1]]), np.array([[1, 2, 0]]), np.array([[1, 1, 1]])
    counts = ConfusionCounts(tp, fp, fn, 10 - tp - fp - fn)
    iou = np.array([4 / 6, 2 / 5, 1 / 2])
    for name, expected in (
        ("mean_iou", iou.mean()),
        ("frequency_weighted_iou", (0.5 * iou[0] + 0.3 * iou[1] + 0.2 * iou[2])),
        ("pixel_accuracy", 0.7),
    ):
        assert metric_named(name).compute(counts).item() == pytest.approx(
            expected, abs=1e-6
        )


def test_a_perfect_prediction_is_best():
    for name in ALL:
        best = 0.0 if name == "relative_volume_difference" else 1.0
        assert _value(name, 5, 0, 0, 7) == best, name


def test_missed_and_invented_structures_are_worst():
    for name in BY_CLASS:
        missed, invented = _value(name, 0, 0, 4, 8), _value(name, 0, 4, 0, 8)
        match name:
            case "relative_volume_difference":
                assert missed == -1.0
                assert math.isnan(invented), "nothing to relate to"
            case "specificity":
                assert (missed, invented) == (1.0, 8 / 12), "it cannot see a miss"
            case _:
                assert (missed, invented) == (0.0, 0.0), name
    for name in ("mean_iou", "frequency_weighted_iou"):
        assert _value(name, 0, 0, 4, 8) == 0.0
        assert _value(name, 0, 4, 0, 8) == 0.0


def test_absent_from_both_is_nan():
    for name in BY_CLASS:
        assert math.isnan(_value(name, 0, 0, 0, 9)), name
    for name in ("mean_iou", "frequency_weighted_iou"):
        assert math.isnan(_value(name, 0, 0, 0, 9))


def test_a_class_that_is_absent_stays_out_of_the_mean_iou():
    tp, fp, fn = np.array([[4, 0]]), np.array([[4, 0]]), np.array([[0, 0]])
    counts = ConfusionCounts(tp, fp, fn, np.array([[0, 8]]))
    assert metric_named("mean_iou").compute(counts).item() == 0.5
    assert metric_named("frequency_weighted_iou").compute(counts).item() == 0.5


def test_the_limits_of_mcc():
    assert _value("mcc", 5, 0, 0, 0) == 1.0
    assert _value("mcc", 5, 3, 0, 0) == 0.0
    assert _value("mcc", 5, 0, 3, 0) == 0.0
    assert _value("mcc", 0, 4, 4, 0) == -1.0
    assert math.isnan(_value("specificity", 5, 0, 0, 0))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(2, 9, 7), (2, 5, 4, 3)])
def test_jit_equals_eager_and_numpy(name, shape):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(-1, 4, shape), rng.integers(0, 4, shape)
    counts = confusion_counts(predictions=predictions, labels=labels, num_classes=4)
    function = metric_named(name).compute
    eager = function(counts)
    assert eager.dtype == jnp.float32
    assert eager.shape == ((2,) if metric_named(name).of_case else (2, 4))
    np.testing.assert_allclose(jax.jit(function)(counts), eager, rtol=1e-6)
    exact = function(ConfusionCounts(*(np.asarray(count) for count in counts)))
    assert exact.dtype == np.float64
    np.testing.assert_allclose(eager, exact, rtol=1e-5, atol=1e-6)


def test_ignored_pixels_count_for_nothing():
    labels = np.array([[1, 1, 0, 0, IGNORE, IGNORE]])
    for name in ALL:
        values = [
            metric_named(name).compute(
                confusion_counts(
                    predictions=np.array([[1, 0, 0, 0, *under]]),
                    labels=labels,
                    num_classes=2,
                )
            )
            for under in ((0, 0), (1, 1))
        ]
        np.testing.assert_array_equal(*values, err_msg=name)


def test_counts_of_a_large_volume_do_not_overflow():
    large = ConfusionCounts(*(np.full((1, 1), 10**9) for _ in range(4)))
    for name in ALL:
        as_int32 = ConfusionCounts(*(jnp.asarray(count, jnp.int32) for count in large))
        expected = metric_named(name).compute(large).item()
        assert metric_named(name).compute(as_int32).item() == pytest.approx(
            expected, abs=1e-6
        )


@pytest.mark.parametrize("beta", [0, -1.0, math.nan])
def test_a_beta_that_weighs_nothing_is_refused(beta):
    with pytest.raises(ValueError, match="expected a number above 0"):
        f_beta_from_counts(_counts(1, 1, 1, 1), beta=beta)
