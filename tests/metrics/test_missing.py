"""Missing one more structure never improves a score, and where it can."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet_jax.data.case import Case
from unet_jax.evaluation.case_scores import Rules, case_scores
from unet_jax.evaluation.metric_table import METRICS as TABLE
from unet_jax.evaluation.scorer import evaluate
from unet_jax.labels import IGNORE

BETTER_HIGH = ("dice", "iou", "recall", "nsd", "lesion_f1", "lesion_dice")
BETTER_LOW = ("hausdorff", "hd95", "assd")
METRICS = (*BETTER_HIGH, *BETTER_LOW)

# Every run has the same examples and keeps none.
quick = settings(derandomize=True, max_examples=30, deadline=None, database=None)


def _mean(label, prediction, spacing, classes=3, metrics=METRICS):
    case = Case(
        id="one",
        image=prediction[..., None].astype(np.float32),
        label=label,
        spacing=spacing,
        group="one",
    )
    names = ("background", "a", "b")[:classes]
    results = evaluate(
        lambda image, spacing: image[..., 0].astype(np.int32),
        [case],
        class_names=names,
        metrics=metrics,
        tolerance_mm=1.5,
    )
    return results["mean"]


def _assert_not_better(more_missed, before):
    for name in set(BETTER_HIGH) & set(before):
        assert more_missed[name] <= before[name] + 1e-12, name
    for name in set(BETTER_LOW) & set(before):
        assert more_missed[name] >= before[name] - 1e-12, name


volumes = st.tuples(
    st.sampled_from([(9, 10), (12, 7), (5, 6, 7)]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.25, 1.0, 3.0]),
)


@quick
@given(volumes)
def test_a_class_that_is_missed_altogether(drawn):
    # Predicting nothing of the class is not better than any prediction of it.
    shape, seed, first = drawn
    rng = np.random.default_rng(seed)
    spacing = (first, *[1.0] * (len(shape) - 1))
    smooth = ndimage.gaussian_filter(
        rng.normal(size=(2, *shape)), (0, *[1] * len(shape))
    )
    label, prediction = (
        np.digitize(field, np.quantile(field, (0.6, 0.85))) for field in smooth
    )
    missed = np.where(prediction == 2, 0, prediction)
    before = _mean(label, prediction, spacing)
    _assert_not_better(_mean(label, missed, spacing), before)
    missed[missed == 1] = 0
    _assert_not_better(_mean(label, missed, spacing), before)


@quick
@given(volumes, st.integers(0, 3), st.integers(0, 2), st.booleans())
def test_a_lesion_that_is_missed_beside_others(drawn, found, alarms, exact):
    # Some labelled lesions are found, others missed, and there are false alarms that
    # touch no lesion. Then one more lesion is missed. Surfaces of a class are pooled:
    # for them the found lesions are exact: missing a lesion with a bad outline can
    # improve the score (docs/metrics.md).
    shape, seed, first = drawn
    rng = np.random.default_rng(seed)
    spacing = (first, *[1.0] * (len(shape) - 1))
    everywhere = np.ones((3,) * len(shape), bool)
    label = rng.random(shape) < 0.12
    lesions, count = ndimage.label(label, everywhere)
    order = rng.permutation(np.arange(1, count + 1))
    away = ~ndimage.binary_dilation(label, everywhere)
    prediction = np.isin(lesions, order[: found + 1])
    if not exact:
        prediction &= rng.random(shape) < 0.6
    for place in rng.permutation(np.argwhere(away))[:alarms]:
        prediction[tuple(place)] = True
    missed = prediction & ~np.isin(lesions, order[:1])
    if not label.any():
        return
    metrics = METRICS if exact else ("recall", "lesion_f1", "lesion_dice")
    before, after = (
        _mean(label.astype(int), mask.astype(int), spacing, 2, metrics)
        for mask in (prediction, missed)
    )
    _assert_not_better(after, before)


@quick
@given(volumes)
def test_recall_and_lesion_f1_whatever_was_predicted(drawn):
    # Blobs may join lesions and extend far beyond them: all blobs that touch one lesion
    # are left out.
    shape, seed, first = drawn
    rng = np.random.default_rng(seed)
    spacing = (first, *[1.0] * (len(shape) - 1))
    everywhere = np.ones((3,) * len(shape), bool)
    label, prediction = rng.random(shape) < 0.12, rng.random(shape) < 0.2
    lesions, count = ndimage.label(label, everywhere)
    blobs, _ = ndimage.label(prediction, everywhere)
    one = lesions == rng.integers(1, max(count, 1) + 1)
    missed = prediction & ~np.isin(blobs, np.unique(blobs[one & prediction]))
    before, after = (
        _mean(label.astype(int), mask.astype(int), spacing, 2, ("recall", "lesion_f1"))
        for mask in (prediction, missed)
    )
    for name in ("recall", "lesion_f1") if count else ():
        assert after[name] <= before[name] + 1e-12, name


def _badly_outlined():
    """One lesion is far too large, another hardly found; then the second is left out.

    Most of what is predicted for the second lies beside it.
    """
    label, prediction = np.zeros((2, 12, 24), int)
    label[2:6, 2:6] = label[2:6, 14:16] = 1
    prediction[2:6, 2:7] = prediction[5:12, 14:24] = 1
    missed = prediction.copy()
    missed[:, 12:] = 0
    return label, prediction, missed


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("dice", "high"),
        ("iou", "high"),
        ("f2", "high"),
        ("f0.5", "high"),
        ("mean_iou", "high"),
        ("frequency_weighted_iou", "high"),
        ("nsd", "high"),
        ("lesion_dice", "high"),
        ("hausdorff", "low"),
        ("specificity", "high"),
        ("pixel_accuracy", "high"),
        ("precision", "high"),
        ("mcc", "high"),
        ("volume_similarity", "high"),
        ("relative_volume_difference", "near 0"),
        ("adjusted_rand", "high"),
        ("variation_of_information", "low"),
        ("hd95", "low"),
        ("assd", "low"),
    ],
)
def test_scores_that_docs_metrics_says_can_improve(metric, better):
    label, prediction, missed = _badly_outlined()
    if metric == "lesion_dice":  # a blob that joins a large lesion and a small one
        label, prediction, missed = np.zeros((3, 12, 24), int)
        label[2:6, 2:6] = label[5, 15] = 1
        missed[2:6, 2:6] = prediction[2:6, 2:6] = prediction[3:11, 6:16] = 1
    if metric == "mcc":  # worse than chance before
        prediction, missed = 1 - label, 0 * label
    before, after = (
        _mean(label, mask, (1.0, 1.0), classes=2, metrics=(metric,))[metric]
        for mask in (prediction, missed)
    )
    match better:
        case "high":
            assert after > before
        case "low":
            assert after < before
        case _:
            assert abs(after) < abs(before)


def test_recall_and_lesion_f1_do_not_improve_there():
    label, prediction, missed = _badly_outlined()
    before, after = (
        _mean(label, mask, (1.0, 1.0), classes=2, metrics=("recall", "lesion_f1"))
        for mask in (prediction, missed)
    )
    assert after["recall"] < before["recall"]
    assert after["lesion_f1"] < before["lesion_f1"]


@pytest.mark.parametrize(
    ("metric", "sign"),
    [
        ("specificity", 1),
        ("pixel_accuracy", 1),
        ("mcc", 1),
        ("adjusted_rand", 1),
        ("variation_of_information", -1),
        ("relative_volume_difference", -1),  # its distance from 0
    ],
)
def test_what_can_improve_when_a_whole_class_is_left_out(metric, sign):
    # It is far too large and displaced: worse than chance.
    label, prediction = np.zeros((2, 12, 24), int)
    label[2:6, 14:16] = prediction[6:12, 14:20] = 1
    before, after = (
        _mean(label, mask, (1.0, 1.0), classes=2, metrics=(metric,))[metric]
        for mask in (prediction, 0 * label)
    )
    if metric == "relative_volume_difference":
        before, after = abs(before), abs(after)
    assert sign * (after - before) > 0


EVERY = (*TABLE, "f2", "f0.5")
SMALL_IS_GOOD = {
    *("hausdorff", "hd95", "assd"),
    *("ece", "ece_uncalibrated", "classwise_ece", "brier"),
    "variation_of_information",
}
BOUNDS = {
    "mcc": (-1, 1),
    "adjusted_rand": (-1, 1),
    "relative_volume_difference": (-1, 72),
    "brier": (0, 2),
    "variation_of_information": (0, 2 * np.log(3)),
    **dict.fromkeys(("hausdorff", "hd95", "assd"), (0, np.hypot(8, 9))),
}
"""Bounds of an 8 x 9 image of three classes; those of other metrics are 0 and 1."""


def _every_score(label, prediction, probabilities=None):
    """Each metric of class 2, or of the case, of a method that is certain."""
    rules = Rules(
        metrics=EVERY,
        num_classes=3,
        first=1,
        tolerance_mm=1.0,
        tolerance_px=1.0,
        surface="area",
        slice_axis=None,
        losses={},
    )
    if probabilities is None:
        probabilities = np.eye(3, dtype=np.float32)[prediction]
    scores = case_scores(
        rules,
        prediction=prediction,
        label=label,
        probabilities=probabilities,
        spacing=(1.0, 1.0),
    )
    return {name: values[1] for name, values in scores.by_class.items()} | scores.whole


def test_missing_a_class_is_never_better_than_finding_a_part_of_it():
    # Without false positives. docs/metrics.md names the exceptions.
    rng = np.random.default_rng(0)
    better_missed = set()
    for _ in range(40):
        label = rng.integers(0, 2, (8, 9))
        high, wide = rng.integers(1, 6, 2)
        top, left = rng.integers(0, 9 - high), rng.integers(0, 10 - wide)
        label[top : top + high, left : left + wide] = 2
        places = rng.permutation(np.argwhere(label == 2))
        missed = label % 2
        found = missed.copy()
        found[tuple(places[: rng.integers(1, len(places) + 1)].T)] = 2
        one, two = _every_score(label, missed), _every_score(label, found)
        for name in EVERY:
            sign = -1 if name in SMALL_IS_GOOD else 1
            before, after = sign * one[name], sign * two[name]
            if name == "relative_volume_difference":
                before, after = -abs(before), -abs(after)
            if before > after + 1e-6:
                better_missed.add(name)
    assert better_missed == {"adjusted_rand", "variation_of_information"}


def test_scores_are_within_their_bounds():
    rng = np.random.default_rng(1)
    seen = {name: [] for name in EVERY}
    for case in range(40):
        label, prediction = rng.integers(0, 3, (2, 8, 9))
        probabilities = rng.dirichlet([0.1] * 3, (8, 9)).astype(np.float32)
        if case % 4 == 1:
            label[:] = case % 3
        if case % 4 == 2:
            prediction[:] = case % 3
        if case % 4 == 3:
            label[:, 2:] = IGNORE
        for name, value in _every_score(label, prediction, probabilities).items():
            seen[name].append(value)
    for name, values in seen.items():
        low, high = BOUNDS.get(name, (0, 1))
        assert np.nanmin(values) >= low - 1e-6, name
        assert np.nanmax(values) <= high + 1e-6, name
