"""Differences of two means, their intervals and p values."""

import numpy as np
import pytest

from unet_jax.evaluation.paired import compare_means, mean_scores

NAN = np.nan


def _scores(*cases):
    """Scores of one run: a list of classes for each case."""
    return np.array([cases], np.float64)


def test_means_are_over_cases_with_a_score_then_over_classes():
    scores = _scores([0.9, NAN], [0.7, NAN], [0.2, 0.4])
    assert mean_scores(scores) == pytest.approx([(0.6 + 0.4) / 2])
    assert np.isnan(mean_scores(np.full((1, 3, 2), NAN))).all()


def test_the_mean_of_a_method_is_over_its_runs():
    rng = np.random.default_rng(0)
    one, two = rng.random((3, 8, 2)), rng.random((1, 8, 2))
    one[1, :3, 0] = NAN
    found = compare_means(one, two, [f"g{i}" for i in range(8)])
    assert found.difference == mean_scores(one).mean() - mean_scores(two).mean()


def test_equal_methods_have_no_difference():
    scores = np.random.default_rng(0).random((1, 9, 2))
    found = compare_means(scores, scores, list("abcdefghi"))
    assert found == (0.0, [0.0, 0.0], 1.0)


def test_a_method_without_a_score_has_no_difference():
    one, two = np.full((1, 6, 1), NAN), np.zeros((1, 6, 1))
    assert compare_means(one, two, list("abcdef")) == (None, None, None)


@pytest.mark.parametrize(
    ("groups", "with_class", "given"),
    [
        (6, 6, True),
        (5, 5, True),
        (4, 4, False),
        # Resamples of 20 groups of which 3 have the class know only those 3.
        (20, 3, False),
    ],
)
def test_interval_and_p_need_five_groups_with_each_class(groups, with_class, given):
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 1, 3 * groups, 2))
    one[:, 3 * with_class :, 1] = two[:, 3 * with_class :, 1] = NAN
    names = [f"g{i // 3}" for i in range(3 * groups)]
    found = compare_means(one, two, names)
    assert found.difference is not None
    assert (found.ci95 is not None, found.p is not None) == (given, given)


def test_one_group_of_many_cases_weighs_as_its_cases_and_is_drawn_whole():
    # The ten cases of one patient are better by 0.1, those of nine others are not.
    names = ["many"] * 10 + [f"g{i}" for i in range(9)]
    better = np.array([0.1] * 10 + [0.0] * 9)[None, :, None]
    found = compare_means(0.5 + better, 0.5 + 0 * better, names)
    assert found.difference == pytest.approx(1 / 19)
    low, high = found.ci95
    assert low == 0  # samples without that patient
    assert high > 0.08
    assert found.p > 0.05


def test_the_interval_excludes_zero_where_p_is_below_5_percent():
    rng = np.random.default_rng(1)
    names = [f"g{i}" for i in range(12)]
    shifts = np.linspace(0.2, 1.2, 12)
    found = [
        compare_means(rng.normal(shift, 1, (1, 12, 1)), np.zeros((1, 12, 1)), names)
        for shift in shifts
    ]
    excluded = [not low <= 0 <= high for low, high in (each.ci95 for each in found)]
    assert [each.p < 0.05 for each in found] == excluded
    assert 0 < sum(excluded) < len(excluded)


@pytest.mark.parametrize(("patients", "most"), [(20, 0.08), (6, 0.11)])
def test_slices_of_one_patient_are_not_independent(patients, most):
    # No true difference: each patient has an effect of its own, and 30 slices of it.
    rng = np.random.default_rng(0)
    names = [f"p{i // 30}" for i in range(30 * patients)]
    found = 0
    for _ in range(300):
        effects = rng.normal(0, 0.05, (2, patients, 1))
        slices = 0.8 + effects + rng.normal(0, 0.02, (2, patients, 30))
        one, two = slices.reshape(2, 1, -1, 1)
        found += compare_means(one, two, names).p < 0.05
    assert found / 300 <= most
