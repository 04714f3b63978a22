import json

import numpy as np

from unet_jax.data.case import Case
from unet_jax.evaluate import evaluate
from unet_jax.report.table import results_table

NAMES = ("background", "grey matter", "white")


def _results(count, *, spacing=(1.0, 2.0)):
    label = np.zeros((9, 9), int)
    label[2:6, 2:6] = 1
    cases = [
        Case(str(i), np.roll(label, i % 2, 0)[..., None], label, spacing, str(i))
        for i in range(count)
    ]
    return evaluate(
        lambda image, spacing: image[..., 0], cases, class_names=NAMES, tolerance_mm=1.5
    )


def test_the_table_as_a_whole():
    text = results_table(_results(2), NAMES)
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
    line = next(row for row in text.splitlines() if row.startswith("95 % interval"))
    for title in ("Dice", "IoU", "HD95 mm", "NSD 1.5 mm"):
        assert f" {title} " in line
    assert "bootstrap over 6 groups, 1000 samples, seed 0" in text


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
