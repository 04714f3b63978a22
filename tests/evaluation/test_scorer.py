import dataclasses
import json
import math

import numpy as np
import pytest

from tests.evaluation.coded import FOUR, NAMES, TWO, coded, labelled, read
from unet_jax.errors import InputError, RunError
from unet_jax.evaluation.scorer import evaluate, write_results
from unet_jax.evaluation.table import results_table
from unet_jax.labels import IGNORE
from unet_jax.method import Method
from unet_jax.metrics.surface import surface_scores


def test_hand_counted_scores_of_two_cases():
    cases = [
        coded([[1, 1, 0, 2]], [[1, 0, 0, 2]], id="x", spacing=(1.0, 1.0)),
        coded([[1, 0, 0, 0]], [[1, 1, 1, 0]], id="y", spacing=(1.0, 1.0)),
    ]
    results = evaluate(read, cases, class_names=NAMES, metrics=FOUR)
    rows = {(row["id"], row["class"]): row for row in results["per_case"]}
    assert rows["x", "a"]["dice"] == pytest.approx(2 / 3)
    assert rows["x", "a"]["iou"] == pytest.approx(1 / 2)
    assert rows["y", "a"]["dice"] == pytest.approx(2 / 4)
    assert rows["x", "b"]["dice"] == 1.0
    assert rows["y", "b"] == {
        "id": "y",
        "group": "y",
        "class": "b",
        "dice": None,
        "iou": None,
        "hd95": None,
        "nsd": None,
        "label_area_mm2": 0.0,
        "prediction_area_mm2": 0.0,
    }
    a, b = results["per_class"]["a"], results["per_class"]["b"]
    assert a["dice"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert a["dice_micro"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert a["iou_micro"] == pytest.approx(2 / 5)
    assert (a["n_absent"], b["n_absent"]) == (0, 1)
    assert (b["dice"], b["dice_micro"], b["hd95"]) == (1.0, 1.0, 0.0)
    assert results["mean"]["dice"] == pytest.approx((a["dice"] + b["dice"]) / 2)
    assert list(results["per_class"]) == ["a", "b"]
    assert (results["n_cases"], results["n_groups"]) == (2, 2)
    assert results["tolerance"] == {"mm": 1.0}


def test_a_missed_structure_scores_worst_and_a_hallucinated_one_too():
    label = np.zeros((3, 4), int)
    label[0, :2] = 1
    spacing = (3.0, 3.0)
    missed = coded(label, np.zeros_like(label), id="missed", spacing=spacing)
    invented = coded(np.zeros_like(label), label, id="invented", spacing=spacing)
    results = evaluate(read, [missed, invented], class_names=("background", "a"))
    for row in results["per_case"]:
        assert (row["dice"], row["iou"], row["nsd"]) == (0.0, 0.0, 0.0)
        assert row["hd95"] == pytest.approx(15.0)
    assert results["mean"]["dice"] == 0.0
    assert results["per_class"]["a"]["n_absent"] == 0


def test_missing_a_structure_never_improves_the_mean():
    label = np.zeros((8, 8), int)
    label[1:3, 1:3], label[5:7, 5:7] = 1, 2
    poor, missing = label.copy(), label.copy()
    poor[label == 2], poor[6, 6], missing[label == 2] = 0, 2, 0
    means = [
        evaluate(read, [coded(label, p, spacing=(1.0, 1.0))], class_names=NAMES)
        for p in (poor, missing)
    ]
    poor, missing = (result["mean"] for result in means)
    assert missing["dice"] < poor["dice"]
    assert missing["nsd"] < poor["nsd"]
    assert missing["hd95"] > poor["hd95"]


def test_background_is_scored_when_asked():
    case = coded([[0, 0, 0, 1]], [[0, 0, 1, 1]])
    results = evaluate(
        read, [case], class_names=("background", "a"), include_background=True
    )
    assert list(results["per_class"]) == ["background", "a"]
    assert results["per_class"]["background"]["dice"] == pytest.approx(4 / 5)
    assert results["mean"]["dice"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_ignored_pixels_count_for_nothing():
    label = np.array([[1, 1, 0, 0, IGNORE, IGNORE]])
    prediction = np.array([[1, 1, 0, 0, 1, 2]])
    results = evaluate(
        read, [coded(label, prediction, spacing=(1.0, 1.0))], class_names=NAMES
    )
    a, b = results["per_class"]["a"], results["per_class"]["b"]
    assert (a["dice"], a["hd95"], a["nsd"]) == (1.0, 0.0, 1.0)
    # Class b was predicted only under IGNORE: it is absent, not hallucinated.
    assert b["n_absent"] == 1
    assert b["dice"] is None


def test_without_spacing_distances_are_in_pixels_and_named_so():
    label = np.zeros((9, 9), int)
    label[2:6, 2:6] = 1
    case = coded(label, np.roll(label, 2, axis=0))
    results = evaluate(
        read,
        [case],
        class_names=("background", "a"),
        metrics=FOUR,
        tolerance_px=2.0,
    )
    assert set(results["mean"]) == {
        "dice",
        "iou",
        "hd95_px",
        "nsd_px",
        "dice_micro",
        "iou_micro",
    }
    assert (results["mean"]["hd95_px"], results["mean"]["nsd_px"]) == (2.0, 1.0)
    assert results["tolerance"] == {"px": 2.0}


def test_surfaces_use_the_spacing_and_the_tolerance():
    label = np.zeros((8, 9, 7), int)
    label[2:5, 2:6, 2:5] = 1
    prediction = np.roll(label, 1, axis=2)
    spacing = (1.0, 0.5, 3.0)
    results = evaluate(
        read,
        [coded(label, prediction, spacing=spacing)],
        class_names=("background", "a"),
        tolerance_mm=2.0,
    )
    expected = surface_scores(
        prediction=prediction == 1, label=label == 1, spacing=spacing, tolerance=2.0
    )
    assert expected.hd95 == 3.0
    for metric in ("hd95", "assd", "nsd"):
        assert results["mean"][metric] == getattr(expected, metric)


def test_surfaces_can_be_left_out():
    case = coded([[0, 1]], [[0, 1]], spacing=(1.0, 1.0))
    results = evaluate(
        read, [case], class_names=("background", "a"), metrics=FOUR, surface=False
    )
    assert set(results["mean"]) == {"dice", "iou", "dice_micro", "iou_micro"}
    assert results["tolerance"] == {}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_is_scored_whole_and_by_slice(axis):
    rng = np.random.default_rng(axis)
    label, prediction = rng.integers(0, 3, (2, 5, 6, 7))
    label[label == 2] = 0  # class 2 is never labelled
    cut = [slice(None)] * 3
    cut[axis] = 3
    label[tuple(cut)] = prediction[tuple(cut)] = 0
    results = evaluate(
        read,
        [coded(label, prediction)],
        class_names=NAMES,
        surface=False,
        slice_axis=axis,
    )

    def dice(p, y):
        total = p.sum() + y.sum()
        return None if total == 0 else pytest.approx(2 * (p & y).sum() / total)

    assert results["mean"]["dice"] == pytest.approx(
        dice(prediction == 1, label == 1).expected / 2
    )
    rows = results["per_slice"]
    assert [row["class"] for row in rows] == ["a", "b"]
    for index, row in enumerate(rows, start=1):
        assert row["slice_axis"] == axis
        p = np.moveaxis(prediction, axis, 0) == index
        y = np.moveaxis(label, axis, 0) == index
        assert row["dice"] == [dice(a, b) for a, b in zip(p, y, strict=True)]
        assert row["iou"][3] is None


def test_pictures_have_no_slices():
    case = coded([[0, 1]], [[0, 1]])
    results = evaluate(read, [case], class_names=("background", "a"), slice_axis=1)
    assert results["per_slice"] == []


def test_a_volume_larger_than_one_call_of_the_counter():
    rng = np.random.default_rng(3)
    label, prediction = rng.integers(0, 2, (2, 3, 130, 701)).astype(np.uint8)
    results = evaluate(
        read,
        [coded(label, prediction)],
        class_names=("background", "a"),
        surface=False,
        slice_axis=0,
    )
    both = int((prediction & label).sum())
    assert results["mean"]["dice"] == 2 * both / int(prediction.sum() + label.sum())
    third = 2 * (prediction[2] & label[2]).sum() / (prediction[2] + label[2]).sum()
    assert results["per_slice"][0]["dice"][2] == pytest.approx(third, rel=1e-12)


# ---- intervals -----------------------------------------------------------------------


def _cases_with_dice(values, groups=None):
    """Each case has 20 pixels; label and prediction have 10 each."""
    cases = []
    for i, value in enumerate(values):
        hits = round(10 * value)
        label, prediction = np.zeros((2, 1, 20), int)
        label[0, :10] = 1
        prediction[0, 10 - hits : 20 - hits] = 1
        group = groups[i] if groups else None
        cases.append(coded(label, prediction, id=f"case {i}", group=group))
    return cases


def _interval(cases, **options):
    return evaluate(
        read, cases, class_names=("background", "a"), surface=False, **options
    )


def test_few_groups_have_no_interval_and_a_reason():
    cases = _cases_with_dice([0.5] * 8, groups=list("aabbccdd"))
    results = _interval(cases)
    assert (results["n_cases"], results["n_groups"]) == (8, 4)
    assert results["ci95"] is None
    assert results["ci95_note"] == "an interval needs at least 5 groups; found 4"


def test_equal_groups_have_an_interval_of_no_width():
    results = _interval(_cases_with_dice([0.8] * 6))
    assert results["ci95"]["dice"] == [pytest.approx(0.8), pytest.approx(0.8)]
    assert set(results["ci95"]) == set(results["mean"])


def test_the_interval_is_near_the_normal_one_for_many_groups():
    values = [0.5, 0.6, 0.7, 0.8, 0.9] * 10
    results = _interval(_cases_with_dice(values), bootstrap_samples=4000)
    error = np.std(values) / math.sqrt(len(values))
    low, high = results["ci95"]["dice"]
    assert low == pytest.approx(0.7 - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(0.7 + 1.96 * error, abs=0.2 * error)
    assert low < results["mean"]["dice"] < high


def test_groups_are_drawn_whole():
    # Ten equal cases in a group tell no more than one: the interval stays as wide.
    values = [0.5, 0.6, 0.7, 0.8, 0.9]
    once = _interval(_cases_with_dice(values))
    tenfold = _interval(
        _cases_with_dice(
            [v for v in values for _ in range(10)],
            groups=[g for g in "abcde" for _ in range(10)],
        )
    )
    assert tenfold["ci95"]["dice"] == pytest.approx(once["ci95"]["dice"])


def test_a_class_that_is_nowhere_stays_out_of_means_and_intervals():
    cases = [coded([[0, 1]], [[0, 1]], id=str(i)) for i in range(6)]
    results = evaluate(read, cases, class_names=NAMES, metrics=("dice",))
    assert results["per_class"]["b"] == {
        "dice": None,
        "iou": None,
        "dice_micro": None,
        "iou_micro": None,
        "n_absent": 6,
    }
    assert results["mean"]["dice"] == 1.0
    assert results["ci95"]["dice"] == [1.0, 1.0]


def test_a_class_of_few_groups_has_no_interval():
    # Each of six groups has class a; class b is in four of them, or in five.
    def scored(groups_with_b):
        cases = [
            coded([[0, 1, 1, b]], [[0, 1, 0, b]], id=str(i))
            for i, b in enumerate([2] * groups_with_b + [0] * (6 - groups_with_b))
        ]
        return evaluate(read, cases, class_names=NAMES, metrics=("dice",))

    few, enough = scored(4), scored(5)
    assert few["ci95"]["dice"] == [None, None]
    assert few["ci95_note"].endswith("fewer than 5 groups have a score of a class")
    assert "95 % interval of the mean: none." in results_table(few, NAMES)
    assert None not in enough["ci95"]["dice"]
    assert "fewer" not in enough["ci95_note"]


def test_nothing_present_at_all_is_null_not_an_error():
    cases = [coded([[0, 0]], [[0, 0]], id=str(i)) for i in range(5)]
    results = evaluate(read, cases, class_names=("background", "a"))
    assert results["mean"]["dice"] is None
    assert results["ci95"]["dice"] == [None, None]


# ---- contract ------------------------------------------------------------------------


def test_equal_input_gives_equal_bytes(tmp_path):
    cases = _cases_with_dice([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    for name in ("first.json", "second.json"):
        write_results(tmp_path / name, _interval(cases, seed=3))
    first = (tmp_path / "first.json").read_bytes()
    assert first == (tmp_path / "second.json").read_bytes()
    assert json.loads(first)["mean"]["dice"] == pytest.approx(3.5 / 6)
    other = _interval(cases, seed=4)
    assert other["ci95"] != json.loads(first)["ci95"]
    assert other["mean"] == json.loads(first)["mean"]


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "test_metrics.json"
    write_results(path, {"mean": {"dice": 0.5}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, {"mean": {"dice": math.nan}})
    with pytest.raises(TypeError):
        write_results(path, {"mean": {"dice": object()}})
    assert json.loads(path.read_text()) == {"mean": {"dice": 0.5}}
    assert [p.name for p in path.parent.iterdir()] == ["test_metrics.json"]


def test_predict_fn_gets_only_the_image_and_the_spacing():
    calls = []

    def predict(*args, **kwargs):
        calls.append((args, kwargs))
        return np.zeros(args[0].shape[:-1], np.int8)

    case = labelled(np.array([[0, 1]]), spacing=(2.0, 3.0))
    evaluate(predict, [case], class_names=("background", "a"))
    ((image, spacing),), options = [c[0] for c in calls], calls[0][1]
    assert image is case.image
    assert spacing == (2.0, 3.0)
    assert options == {}


def test_a_method_that_wants_the_reference_of_a_slab_gets_it():
    label = np.array([[0, 1], [1, 0]])
    slab = dataclasses.replace(labelled(label), reference=((5.0, 2.0),))
    seen = []

    def record(image, spacing, *, reference):
        seen.append(reference)
        return label

    asks = Method(record, wants_reference=True)
    evaluate(asks, [slab], class_names=["sky", "sea"], surface=False)
    evaluate(asks, [labelled(label)], class_names=["sky", "sea"], surface=False)
    plain = evaluate(
        lambda image, spacing: label, [slab], class_names=["sky", "sea"], surface=False
    )
    assert seen == [((5.0, 2.0),), None]
    assert plain["mean"]["dice"] == 1


def test_only_the_flags_of_a_method_decide_what_it_is_given():
    def takes_all(image, spacing, **options):
        assert not options
        return read(image, spacing)

    slab = dataclasses.replace(coded([[0, 1]], [[0, 1]]), reference=((5.0, 2.0),))
    results = evaluate(takes_all, [slab], class_names=TWO, metrics=("ece",))
    assert results["mean"]["ece"] is None


def test_finish_returns_the_labels_that_are_scored():
    seen = []

    def swap(case, labels):
        seen.append((case.id, labels.tolist()))
        return 1 - labels

    cases = [coded([[0, 1]], [[1, 0]], id=name) for name in "xy"]
    results = evaluate(read, cases, class_names=TWO, finish=swap)
    assert seen == [("x", [[1, 0]]), ("y", [[1, 0]])]
    assert results["mean"]["dice"] == 1.0


@pytest.mark.parametrize("kind", [InputError, RunError])
def test_an_error_in_a_method_names_the_case(kind):
    def failing(image, spacing):
        raise kind("found NaN")

    with pytest.raises(kind, match=r"^case p3: found NaN$"):
        evaluate(failing, [coded([[0, 1]], [[0, 1]], id="p3")], class_names=TWO)


def test_cases_are_read_one_at_a_time_from_a_source():
    class Counting:
        reads = 0

        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index >= 3:
                raise IndexError(index)
            self.reads += 1
            return coded([[0, 1]], [[0, 1]], id=str(index))

    source = Counting()
    seen = []

    def predict(image, spacing):
        seen.append(source.reads)
        return read(image, spacing)

    results = evaluate(predict, source, class_names=("background", "a"))
    assert seen == [1, 2, 3]
    assert results["n_cases"] == 3


def test_a_threshold_may_give_booleans():
    case = labelled(np.array([[0, 1]]), image=np.array([[[0.2], [0.9]]]))
    results = evaluate(
        lambda image, spacing: image[..., 0] > 0.5,
        [case],
        class_names=("background", "a"),
    )
    assert results["mean"]["dice"] == 1.0


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (labelled(None, image=np.zeros((2, 2, 1)), id="p7"), "'p7': found no label"),
        (
            labelled([[0, 1]], image=np.zeros((2, 2, 1)), id="p8"),
            r"'p8': the label has shape \(1, 2\), expected \(2, 2\)",
        ),
        (
            labelled([[0, 9]], id="p9"),
            r"'p9': the label has values 0..9, expected 0..1",
        ),
    ],
)
def test_a_case_that_cannot_be_scored_is_named(case, message):
    with pytest.raises(InputError, match=message):
        evaluate(read, [case], class_names=("background", "a"))


def test_no_cases_are_refused():
    with pytest.raises(InputError, match="found 0 cases, expected at least 1"):
        evaluate(read, [], class_names=("background", "a"))


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((2, 1), int), r"gave shape \(2, 1\) for case 'one'; expected \(1, 2"),
        (np.zeros((1, 2)), "gave float64 for case 'one'; expected integer"),
        (np.array([[0, 2]]), r"gave classes 0..2 for case 'one'; expected 0..1"),
        (np.array([[0, -1]]), r"gave classes -1..0 for case 'one'; expected 0..1"),
    ],
)
def test_a_prediction_that_does_not_fit_is_refused(prediction, message):
    with pytest.raises(ValueError, match=message):
        evaluate(
            lambda image, spacing: prediction,
            [labelled([[0, 1]])],
            class_names=("background", "a"),
        )
