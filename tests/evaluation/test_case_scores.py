"""Metrics by their names: values, order, and what they need of a method."""

import dataclasses
import json
import math

import numpy as np
import pytest

from tests.evaluation.coded import FOUR, TWO, coded, read
from unet_jax.errors import InputError
from unet_jax.evaluation.loss_metrics import create_held_out_losses, held_out_spec
from unet_jax.evaluation.metric_table import METRICS
from unet_jax.evaluation.scorer import evaluate
from unet_jax.evaluation.table import results_table
from unet_jax.labels import IGNORE
from unet_jax.method import Method


def _fill(image, spacing, *, probabilities):
    """Label two classes as the image says, with a probability of 0.75."""
    labels = read(image, spacing)
    if probabilities is not None:
        probabilities[...] = np.where(np.arange(2) == labels[..., None], 0.75, 0.25)
    return labels


KEYS = ("id", "group", "class")
SURE = Method(_fill, gives_probabilities=True)


def test_what_is_asked_for_is_scored_in_that_order_after_dice_and_iou():
    asked = ("pixel_accuracy", "lesion_f1", "f2", "hausdorff", "adjusted_rand", "iou")
    label = np.zeros((4, 9), int)
    label[1:3, 1:3] = label[1:3, 6:8] = 1
    prediction = label.copy()
    prediction[:, 5:] = 0
    case = coded(label, prediction, spacing=(2.0, 1.0))
    results = evaluate(read, [case], class_names=TWO, metrics=asked)
    assert [m for m in results["mean"] if "micro" not in m] == [
        "dice",
        "iou",
        "lesion_f1",
        "f2",
        "hausdorff",
        "pixel_accuracy",
        "adjusted_rand",
    ]
    (of_class,), (whole,) = results["per_case"], results["case_level"]
    assert of_class["lesion_f1"] == pytest.approx(2 / 3)
    assert of_class["f2"] == pytest.approx(5 * 4 / (5 * 4 + 4 * 4))
    assert of_class["hausdorff"] == 5.0
    assert of_class["label_area_mm2"] == 16.0
    assert of_class["prediction_area_mm2"] == 8.0
    assert set(whole) == {"id", "group", "pixel_accuracy", "adjusted_rand"}
    assert whole["pixel_accuracy"] == pytest.approx(32 / 36)
    assert results["mean"]["pixel_accuracy"] == whole["pixel_accuracy"]
    assert "pixel_accuracy" not in results["per_class"]["a"]


def test_volumes_are_in_millilitres_of_what_is_not_ignored():
    label = np.zeros((4, 5, 6), int)
    label[:2] = 1
    label[0, 0, 0] = IGNORE
    case = coded(label, np.ones_like(label), spacing=(2.0, 3.0, 4.0))
    results = evaluate(read, [case], class_names=TWO, metrics=())
    (row,) = results["per_case"]
    assert row["label_volume_ml"] == pytest.approx(59 * 24 / 1000)
    assert row["prediction_volume_ml"] == pytest.approx(119 * 24 / 1000)
    plain = coded(label, label * 0, spacing=None)
    (row,) = evaluate(read, [plain], class_names=TWO, metrics=())["per_case"]
    assert not [key for key in row if "volume" in key]


def test_the_confusion_matrix_has_the_pixels_of_all_cases_that_are_not_ignored():
    names = ("background", "a", "b")
    cases = [
        coded([[0, 1, 2, IGNORE]], [[0, 2, 2, 1]], id="x"),
        coded([[[0, 1], [1, 1]]], [[[1, 1], [2, 1]]], id="y"),
    ]
    expected = {"classes": list(names), "pixels": [[1, 1, 0], [0, 2, 2], [0, 0, 1]]}
    for regions in (None, {"both": (1, 2), "b": (2,)}):
        options = {"metrics": (), "regions": regions, "slice_axis": 0}
        results = evaluate(read, cases, class_names=names, **options)
        assert results["confusion"] == expected


def test_calibration_of_a_method_with_probabilities():
    cases = [
        coded([[1, 1, 0, 0]], [[1, 1, 1, 0]], id="x"),
        coded([[1, 0, 0, IGNORE]], [[1, 0, 0, 1]], id="y"),
    ]
    asked = ("ece", "classwise_ece", "brier")
    results = evaluate(SURE, cases, class_names=TWO, metrics=asked)
    # x is right 3 of 4 times and says 0.75; y is always right.
    assert results["case_level"][0]["ece"] == pytest.approx(0.0, abs=1e-7)
    assert results["case_level"][1]["ece"] == pytest.approx(0.25, abs=1e-7)
    assert results["mean"]["brier"] == pytest.approx(
        (2 * (3 * 0.0625 + 0.5625) / 4 + 2 * 0.0625) / 2
    )
    assert results["mean"]["classwise_ece"] is not None
    pooled = results["reliability"]
    assert pooled["ece"] == pytest.approx(abs(6 / 7 - 0.75), abs=1e-7)
    assert sum(entry["pixels"] for entry in pooled["bins"]) == 7


def test_a_method_that_calibrates_is_scored_before_and_after():
    case = coded([[1, 1, 0, IGNORE]], [[1, 1, 1, 0]])  # right 2 of 3 times

    def calibrate(probabilities):
        probabilities[...] = 0.5 + (probabilities - 0.5) / 2

    method = dataclasses.replace(SURE, calibrate=calibrate)
    options = {"class_names": TWO, "metrics": ("ece", "brier")}
    plain, calibrated = (evaluate(one, [case], **options) for one in (SURE, method))
    assert "ece_uncalibrated" not in plain["mean"]
    mean = calibrated["mean"]
    assert mean["ece_uncalibrated"] == plain["mean"]["ece"]
    assert plain["mean"]["ece"] == pytest.approx(0.75 - 2 / 3)
    assert mean["ece"] == pytest.approx(2 / 3 - 0.625)
    assert calibrated["reliability"]["ece"] == mean["ece"]
    assert mean["brier"] == pytest.approx(2 * (2 * 0.375**2 + 0.625**2) / 3)
    assert mean["dice"] == plain["mean"]["dice"]
    # Asked for by itself it is what a method without a temperature has.
    options["metrics"] = ("ece_uncalibrated",)
    assert (
        evaluate(SURE, [case], **options)["mean"]["ece_uncalibrated"]
        == (plain["mean"]["ece"])
    )


def test_without_probabilities_their_metrics_are_null():
    asked = ("ece", "classwise_ece", "brier")
    case = coded([[1, 0]], [[1, 0]])
    results = evaluate(read, [case], class_names=TWO, metrics=asked)
    assert [results["mean"][name] for name in asked] == [None] * 3
    assert results["mean"]["dice"] == 1.0
    assert "reliability" not in results
    assert results["case_level"] == []


def test_a_method_that_promises_probabilities_has_to_fill_them():
    def forgetful(image, spacing, *, probabilities):
        return read(image, spacing)

    method = Method(forgetful, gives_probabilities=True)
    case = coded([[1, 0]], [[1, 0]])
    with pytest.raises(ValueError, match="filled no probabilities for case 'one'"):
        evaluate(method, [case], class_names=TWO, metrics=("brier",))
    results = evaluate(method, [case], class_names=TWO, metrics=("dice",))
    assert results["mean"]["dice"] == 1.0


def test_probabilities_are_asked_for_only_where_a_metric_needs_them(monkeypatch):
    given = []

    def recording(image, spacing, *, probabilities):
        given.append(type(probabilities))
        return _fill(image, spacing, probabilities=probabilities)

    method = Method(recording, gives_probabilities=True)
    case = coded([[1, 0]], [[1, 0]])
    evaluate(method, [case], class_names=TWO, metrics=FOUR)
    few = evaluate(method, [case], class_names=TWO, metrics=("brier",))
    monkeypatch.setattr("unet_jax.evaluation.scorer._IN_MEMORY", 8)
    many = evaluate(method, [case], class_names=TWO, metrics=("brier",))
    assert given == [type(None), np.ndarray, np.memmap]
    assert many == few
    assert few["mean"]["brier"] == 0.125


def test_losses_are_metrics_and_null_without_probabilities():
    losses = create_held_out_losses(
        held_out_spec(("loss/cross_entropy", "loss/dice"), ()), head="softmax"
    )
    case = coded([[1, 1, 0, IGNORE]], [[1, 0, 0, 1]])
    options = {"class_names": TWO, "metrics": tuple(losses), "losses": losses}
    results = evaluate(SURE, [case], **options)
    expected = -(2 * math.log(0.75) + math.log(0.25)) / 3
    assert results["mean"]["loss/cross_entropy"] == pytest.approx(expected, rel=1e-6)
    (row,) = results["case_level"]
    assert row["loss/cross_entropy"] == results["mean"]["loss/cross_entropy"]
    p, y = np.array([0.75, 0.25, 0.25]), np.array([1, 1, 0])
    soft = 1 - 2 * (p * y).sum() / ((p**2).sum() + y.sum())
    assert results["per_class"]["a"]["loss/dice"] == pytest.approx(soft, abs=1e-5)
    without = evaluate(read, [case], **options)
    assert without["mean"]["loss/dice"] is None
    assert without["mean"]["loss/cross_entropy"] is None
    # A class that is absent has no loss, as it has no score.
    nowhere = evaluate(SURE, [coded([[0, 0]], [[0, 0]])], **options)
    assert nowhere["per_class"]["a"]["loss/dice"] is None


def test_unknown_metrics_are_refused_with_what_is_known():
    case = coded([[1, 0]], [[1, 0]])
    for name in ("dize", "f", "f0", "loss/focal"):
        with pytest.raises(InputError, match=r"unknown metric .* any of dice, iou, "):
            evaluate(read, [case], class_names=TWO, metrics=(name,))
    with pytest.raises(InputError, match="'iou' twice"):
        evaluate(read, [case], class_names=TWO, metrics=("iou", "dice", "iou"))


def test_border_voxels_are_another_surface():
    label = np.zeros((5, 5), int)
    prediction = label.copy()
    label[2, 2] = prediction[1:4, 1:4] = 1
    case = coded(label, prediction, spacing=(1.0, 1.0))
    areas, voxels = (
        evaluate(read, [case], class_names=TWO, metrics=("assd",), surface=surface)
        for surface in ("area", "voxel")
    )
    # One border pixel is 1 away from 8, of which 4 are 1 and 4 the diagonal away.
    expected = (1 + 4 + 4 * math.sqrt(2)) / 9
    assert voxels["mean"]["assd"] == pytest.approx(expected, rel=1e-12)
    assert areas["mean"]["assd"] < voxels["mean"]["assd"]


def test_every_metric_at_once_in_2d_and_3d_gives_equal_bytes():
    for shape, spacing in (((9, 8), None), ((6, 7, 5), (0.5, 2.0, 1.0))):
        label, prediction = np.random.default_rng(0).integers(0, 2, (2, *shape))
        case = coded(label, prediction, spacing=spacing)
        first, second = (
            evaluate(SURE, [case] * 6, class_names=TWO, metrics=tuple(METRICS))
            for _ in range(2)
        )
        assert json.dumps(first) == json.dumps(second)
        assert None not in first["mean"].values()
        plain = {name.removesuffix("_px") for name in first["mean"]}
        assert plain == {*METRICS, "dice_micro", "iou_micro"}


def test_a_class_that_was_not_labelled_is_undefined_and_its_prediction_background():
    label = np.zeros((6, 8), int)
    label[:3] = 1
    prediction = label.copy()
    prediction[0, :4] = 2  # a tumour in the organ: unknown, but no organ
    prediction[5, 0] = 1  # an organ where there is none: wrong
    case = coded(label, prediction, id="partly", spacing=(1.0, 1.0))
    partly = dataclasses.replace(case, labelled_classes=(0, 1))
    whole = coded(label, label, id="whole")
    metrics = (*FOUR, "precision", "pixel_accuracy")
    options = {"class_names": ("background", "a", "b"), "metrics": metrics}
    results = evaluate(read, [partly], **options)
    organ, tumour = results["per_case"]
    assert organ["dice"] == pytest.approx(2 * 20 / (20 + 4 + 21))
    assert organ["precision"] == pytest.approx(20 / 21)
    assert {value for key, value in tumour.items() if key not in KEYS} == {None}
    assert results["case_level"][0]["pixel_accuracy"] == pytest.approx(43 / 48)
    assert results["mean"]["dice"] == organ["dice"]
    of_class = results["per_class"]
    assert [of_class[name]["n_absent"] for name in "ab"] == [0, 0]
    assert [of_class[name]["n_unlabelled"] for name in "ab"] == [0, 1]
    assert of_class["a"]["dice_micro"] == organ["dice"]
    assert of_class["b"]["dice_micro"] is None
    # Where the class was labelled, its false positives count.
    assert evaluate(read, [case], **options)["per_class"]["b"]["dice"] == 0
    plain = evaluate(read, [whole], **options)["per_class"]["b"]
    assert "n_unlabelled" not in plain
    assert plain["n_absent"] == 1
    # Through JSON, as processes send it, and in the table.
    gathered = evaluate(
        read, [partly], **options, gather=lambda mine: json.loads(json.dumps(mine))
    )
    assert gathered == results
    assert "absent  unlabelled" in results_table(results, options["class_names"])


def test_probabilities_of_what_was_not_labelled_are_those_of_the_background():
    """ECE and the entropy are as those of a method that does not know the class."""
    label = np.array([[0, 1, 1, 0]])
    rng = np.random.default_rng(1)
    given = rng.dirichlet(np.ones(3), label.shape).astype(np.float32)
    two = np.stack([given[..., 0] + given[..., 2], given[..., 1]], axis=-1)

    def method(found):
        def fill(image, spacing, *, probabilities):
            probabilities[...] = found
            return found.argmax(axis=-1)

        return Method(fill, gives_probabilities=True)

    case = coded(label, label)
    losses = create_held_out_losses(
        held_out_spec(("loss/cross_entropy",), ()), head="softmax", num_classes=3
    )
    options = {"metrics": ("ece", "loss/cross_entropy"), "losses": losses}
    partly = evaluate(
        method(given),
        [dataclasses.replace(case, labelled_classes=(0, 1))],
        class_names=("background", "a", "b"),
        **options,
    )
    alone = evaluate(method(two), [case], class_names=TWO, **options)
    for name in options["metrics"]:
        assert partly["mean"][name] == pytest.approx(alone["mean"][name], abs=1e-6)


def test_regions_are_scored_as_if_each_was_a_class_of_its_own():
    rng = np.random.default_rng(2)
    label, prediction = rng.integers(0, 4, (2, 6, 7, 5))
    label[0] = IGNORE
    regions = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    names = ("background", "a", "b", "c")
    options = {"metrics": (*FOUR, "lesion_f1"), "slice_axis": 2}
    case = coded(label, prediction, spacing=(1.0, 1.0, 2.0))
    found = evaluate(read, [case], class_names=names, regions=regions, **options)
    assert list(found["per_class"]) == list(regions)
    for name, members in regions.items():
        inside = np.where(label == IGNORE, IGNORE, np.isin(label, members))
        alone = coded(inside, np.isin(prediction, members), spacing=(1.0, 1.0, 2.0))
        expected = evaluate(read, [alone], class_names=("background", name), **options)
        assert found["per_class"][name] == expected["per_class"][name]
        (row,) = (row for row in found["per_case"] if row["class"] == name)
        assert row == expected["per_case"][0]
        (row,) = (row for row in found["per_slice"] if row["class"] == name)
        assert row == expected["per_slice"][0]


def test_probabilities_of_regions_are_those_of_two_classes_each():
    rng = np.random.default_rng(4)
    label = rng.integers(0, 3, (6, 7))
    label[0] = IGNORE
    regions = {"whole": (1, 2), "core": (2,)}
    inside = rng.random((6, 7, 3)).astype(np.float32)
    names = ("background", "a", "b")
    metrics = ("ece", "classwise_ece", "brier")

    def scores(probabilities, known, halved=False, **options):
        def fill(image, spacing, *, probabilities):
            probabilities[...] = given
            return np.zeros(known.shape, np.uint8)

        given = probabilities
        method = Method(
            fill,
            gives_probabilities=True,
            calibrate=(lambda filled: filled.__imul__(0.5)) if halved else None,
        )
        case = coded(known, np.zeros_like(known))
        return evaluate(method, [case], metrics=metrics, **options)

    options = {"class_names": names, "regions": regions}
    found = scores(inside, label, **options)
    alone = []
    for channel, classes in enumerate(regions.values(), start=1):
        known = np.where(label == IGNORE, IGNORE, np.isin(label, classes))
        p = inside[..., channel]
        two = np.stack([1 - p, p], axis=-1)
        alone.append(scores(two, known, class_names=TWO))
    for (name, one), expected in zip(found["per_class"].items(), alone, strict=True):
        assert name in regions
        assert one["classwise_ece"] == expected["per_class"][TWO[1]]["classwise_ece"]
    briers = [one["mean"]["brier"] for one in alone]
    assert found["mean"]["brier"] == pytest.approx(np.mean(briers))
    bins = [[b["pixels"] for b in one["reliability"]["bins"]] for one in alone]
    pixels = [b["pixels"] for b in found["reliability"]["bins"]]
    assert pixels == np.sum(bins, axis=0).tolist()
    assert sum(pixels) == 2 * (label != IGNORE).sum()
    raw = scores(inside, label, halved=True, **options)["mean"]
    assert raw["ece_uncalibrated"] == found["mean"]["ece"] != raw["ece"]
