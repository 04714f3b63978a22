"""The figures of a workdir are those of its worst, median and best cases."""

import json

import numpy as np
import pytest
from PIL import Image

from unet_jax.commands.draw_cases import draw_cases
from unet_jax.commands.evaluate import write_prediction
from unet_jax.configs import base
from unet_jax.data.case import Case

DICE = {"p/a": 0.5, "b": 0.9, "c": None, "d": 0.1, "e": 0.7}


@pytest.fixture
def scored(tmp_path):
    """A folder with predictions, the cases, and their scores."""
    config = base.get_config()
    config.data.class_names = ("back", "cell")
    config.data.class_colors = ((0, 0, 0), (255, 0, 0))
    config.log.overlays = 3
    label = np.zeros((8, 8), np.uint8)
    label[2:5, 2:5] = 1
    cases = [
        Case(name, np.full((8, 8, 1), 9, np.uint8), label, None, name) for name in DICE
    ]
    files = {
        place: write_prediction(tmp_path, case, np.roll(label, place, 0), config)
        for place, case in enumerate(cases)
    }
    rows = [{"id": name, "class": "cell", "dice": dice} for name, dice in DICE.items()]
    return tmp_path, {"per_case": rows}, cases, files, config


def test_the_list_names_each_case_its_score_and_its_files(scored, capsys):
    folder, results, cases, files, config = scored
    draw_cases(folder, results, cases, files, config)
    listed = json.loads((folder / "figures" / "cases.json").read_text())
    assert [one["id"] for one in listed["cases"]] == ["b", "p/a", "d"]
    roles = [one["roles"] for one in listed["cases"]]
    assert roles == [["best"], ["median"], ["worst"]]
    assert [one["dice"] for one in listed["cases"]] == [0.9, 0.5, 0.1]
    assert listed["classes"][1] == {"name": "cell", "color": [255, 0, 0]}
    for one in listed["cases"]:
        (row,) = one["planes"][0]["slices"]
        place = list(DICE).index(one["id"])
        shown = np.asarray(Image.open(folder / "figures" / row["prediction"]))
        np.testing.assert_array_equal(shown, np.roll(cases[place].label, place, 0))
        with Image.open(folder / "figures" / one["figure"]) as figure:
            assert figure.size[0] > 100
    assert capsys.readouterr().out.splitlines() == [
        *("worst case: d, Dice 0.1000", "median case: p/a, Dice 0.5000"),
        "best case: b, Dice 0.9000",
    ]


def test_other_scores_remove_the_former_pictures(scored):
    folder, results, cases, files, config = scored
    config.log.overlays = 1
    figures = folder / "figures"
    draw_cases(folder, results, cases, files, config)
    (figures / "curves.png").touch()
    assert {one.name for one in (figures / "cases").iterdir()} == {"d"}
    results["per_case"][3]["dice"] = 0.95
    draw_cases(folder, results, cases, files, config)
    names = {one.name for one in figures.iterdir()}
    assert names == {"cases.json", "cases", "p__a.png", "curves.png"}
    config.log.overlays = 0
    draw_cases(folder, results, cases, files, config)
    assert {one.name for one in figures.iterdir()} == {"curves.png"}


def test_a_case_that_cannot_be_drawn_is_named_and_the_others_are_drawn(scored, capsys):
    folder, results, cases, files, config = scored
    files[3].write_bytes(b"")
    draw_cases(folder, results, cases, files, config)
    assert "case d: its overlay is not drawn (InputError" in capsys.readouterr().out
    listed = json.loads((folder / "figures" / "cases.json").read_text())
    assert [len(one["planes"]) for one in listed["cases"]] == [1, 1, 0]
    assert [one["figure"] for one in listed["cases"]] == ["b.png", "p__a.png", None]
    draw_cases(folder, results, cases, files, config)
