import json

import numpy as np

from unet_jax.data.case import Case
from unet_jax.evaluation.scorer import evaluate
from unet_jax.evaluation.table import results_table
from unet_jax.metrics.defaults import DEFAULT_METRICS

NAMES = ("background", "grey matter", "white")


def _results(count, *, spacing=(1.0, 2.0), **options):
    label = np.zeros((9, 9), int)
    label[2:6, 2:6] = 1
    cases = [
        Case(str(i), np.roll(label, i % 2, 0)[..., None], label, spacing, str(i))
        for i in range(count)
    ]
    return evaluate(
        lambda image, spacing: image[..., 0],
        cases,
        class_names=NAMES,
        tolerance_mm=1.5,
        **options,
    )


def test_the_table_as_a_whole():
    asked = ("hd95", "nsd")
    text = results_table(_results(2, metrics=asked), NAMES)
    assert text == "\n".join(
        [
            "class          Dice     IoU  HD95 mm  NSD 1.5 mm  absent",
            "--------------------------------------------------------",
            "grey matter  0.8750  0.8000     0.50      1.0000       0",
            "white             -       -        -           -       2",
            "--------------------------------------------------------",
            "mean         0.8750  0.8000     0.50      1.0000",
            "",
            "2 cases in 2 groups; absent: cases without the class in label and "
            "prediction.",
            "Over all pixels at once (micro): Dice 0.8750, IoU 0.7778.",
            "No 95 % interval: an interval needs at least 5 groups; found 2.",
        ]
    )


def test_intervals_are_given_for_each_column():
    text = results_table(_results(6), NAMES)
    line = text[text.index("95 % interval") :].replace("\n", " ")
    for title in ("Dice", "IoU", "Vol.sim", "HD95 mm", "ASSD mm", "NSD 1.5 mm"):
        assert f" {title} " in line
    assert "bootstrap over 6 groups, 1000 samples, seed 0" in text


def test_images_that_training_has_too_are_counted():
    results = _results(2) | {"duplicates": 2}
    assert (
        "WARNING: the images of 2 cases are also in training or validation "
        "(data.allow_duplicates)." in results_table(results, NAMES).replace("\n", " ")
    )


def test_pixels_are_not_called_millimetres():
    text = results_table(_results(1, spacing=None), NAMES)
    assert "HD95 px" in text
    assert "NSD 1 px" in text
    assert "mm" not in text
    assert "1 case in 1 group;" in text


def test_results_read_back_from_json_give_the_same_table():
    results = _results(2)
    read = json.loads(json.dumps(results, sort_keys=True))
    assert results_table(read, NAMES) == results_table(results, NAMES)


def test_all_scores_are_shown_in_lines_that_are_not_too_long():
    asked = ("lesion_dice", "pixel_accuracy", "hausdorff", "f2", "specificity", "mcc")
    results = _results(6, metrics=(*DEFAULT_METRICS, *asked))
    text = results_table(results, NAMES)
    assert max(map(len, text.splitlines())) <= 100
    first, second = (row.split() for row in text.splitlines() if row[:5] == "class")
    titles = [*first[1:], *second[1:]]
    # The order does not depend on the order in which they were asked for.
    assert titles == [
        *("Dice", "IoU", "Accuracy", "Prec.", "Recall", "Specif.", "MCC", "Vol.sim"),
        *("HD", "mm", "HD95", "mm", "ASSD", "mm", "NSD", "1.5", "mm"),
        *("Lesion", "Dice", "F2", "absent"),
    ]
    # A metric with one value for a case has no value of a class.
    lines = text.splitlines()
    column = lines[0].index("Accuracy")
    assert lines[2][column : column + 8].strip() == ""
    assert lines[5][column : column + 8].strip() != ""


def test_a_method_without_probabilities_has_no_column_for_them():
    text = results_table(_results(1, metrics=("ece", "brier", "dice")), NAMES)
    assert text.splitlines()[0].split() == ["class", "Dice", "IoU", "absent"]
    assert "Without probabilities there is no Brier, ECE." in text


def test_the_default_table_fits_a_line():
    names = ("background", "CSF and other", "white matter")
    scores = dict.fromkeys(["dice", "iou", "precision", "recall"], 0.5)
    scores |= dict.fromkeys(["volume_similarity", "nsd"], 0.5)
    scores |= dict.fromkeys(["hd95", "assd"], 12.5)
    results = {
        "mean": scores | dict.fromkeys(["ece", "dice_micro", "iou_micro"], 0.5),
        "ci95": None,
        "ci95_note": "",
        "per_class": {name: scores | {"n_absent": 0} for name in names[1:]},
        "n_cases": 1,
        "n_groups": 1,
        "tolerance": {"mm": 1.0},
    }
    lines = results_table(results, names).splitlines()
    assert lines[0].split()[0] == "class"
    assert lines[0].split()[-2:] == ["ECE", "absent"]
    results["mean"]["ece_uncalibrated"] = 0.125
    calibrated = results_table(results, names).splitlines()
    assert calibrated[0] == lines[0]
    assert "ECE before temperature scaling: 0.1250." in calibrated
