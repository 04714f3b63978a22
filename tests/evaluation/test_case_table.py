"""The table of scores of each case and class, and the page that describes it."""

import csv
import json
import pathlib

import numpy as np
import pytest

from unet_jax.data.case import Case
from unet_jax.evaluation.case_table import case_rows, write_scores
from unet_jax.evaluation.scorer import evaluate
from unet_jax.method import Method

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "results.md"


def _case(name: str, spacing: tuple[float, ...] | None) -> Case:
    label = np.zeros((4, 4, 2), np.uint8)
    label[:2, :2, 0] = 1
    image = label[..., None].astype(np.float32)
    return Case(image=image, label=label, spacing=spacing, id=name, group=name)


def _fill(image, spacing, *, probabilities):
    labels = (image[..., 0] > 0).astype(np.uint8)
    probabilities[...] = np.eye(3, dtype=np.float32)[labels]
    return labels


@pytest.fixture(scope="module")
def results():
    """Scores of two volumes, one with a spacing, of which no pixel is in class b."""
    return evaluate(
        Method(_fill, gives_probabilities=True),
        [_case("one", (2.0, 1.0, 1.0)), _case("d,\u00fc", None)],
        class_names=("background", "a", "b"),
        metrics=("dice", "hd95", "ece"),
        slice_axis=2,
    )


def test_the_csv_has_every_number_of_the_json(tmp_path, results):
    write_scores(tmp_path, results)
    kept = json.loads((tmp_path / "test_metrics.json").read_text())
    with open(tmp_path / "per_case.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["class"]) for row in rows] == [
        *(("one", "a"), ("one", "b"), ("d,\u00fc", "a"), ("d,\u00fc", "b"))
    ]
    for row, known in zip(rows, kept["per_case"], strict=True):
        whole = next(one for one in kept["case_level"] if one["id"] == row["id"])
        for name, text in row.items():
            value = (known | whole).get(name)
            assert text == ("" if value is None else str(value)), name
    assert rows[0]["hd95"] == "0.0"
    assert rows[0]["hd95_px"] == rows[1]["dice"] == ""
    assert float(rows[0]["label_volume_ml"]) == 0.008
    assert list(rows[0])[:4] == ["id", "group", "class", "dice"]


def test_metrics_of_a_whole_case_stand_in_each_of_its_rows(results):
    rows = case_rows(results)
    assert [row["ece"] for row in rows] == [
        row["ece"] for row in results["case_level"] for _ in range(2)
    ]


def test_the_page_describes_every_key_and_column(results):
    text = PAGE.read_text()
    for key in (*results, "temperature", "checkpoint_step", "eval", "members", "risk"):
        assert f"`{key}`" in text, key
    for column in case_rows(results)[0]:
        assert f"`{column}`" in text or column == "hd95", column
