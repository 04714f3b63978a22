"""Tests report.html: its content, its bytes, and its controls in a real browser."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tests.browser import open_browser
from unet_jax.commands.report import refresh_page, report
from unet_jax.errors import InputError
from unet_jax.report import prediction_page
from unet_jax.report.page import write_page
from unet_jax.report.prediction_page import write_prediction_page
from unet_jax.report.side_by_side import write_comparison_page
from unet_jax.report.template import PAGE

HOSTILE = "<script>document.title='broken'</script>"
FACTS = [("augment.synthesis_surroundings_probability", "0.5 " * 50)]


def _write_pictures(folder: pathlib.Path) -> dict[str, str]:
    folder.mkdir(parents=True)
    files = {}
    for name, value in (("image", 120), ("label", 1), ("prediction", 2)):
        pixels = np.full((16, 20), value, np.uint8)
        image = Image.fromarray(pixels)
        if name != "image":
            image.putpalette([0, 0, 0, 230, 159, 0, 0, 114, 178])
        image.save(folder / f"{name}.png")
        files[name] = f"cases/{name}.png"
    return files


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Make the files of a run by hand."""
    folder = tmp_path_factory.mktemp("run")
    files = _write_pictures(folder / "figures" / "cases")
    slices = [{"index": number, "wrong_pixels": 9, **files} for number in (3, 7)]
    case = {
        "id": "a",
        "roles": ["best", "worst"],
        "rank": 1,
        "dice": 0.5,
        "per_class": {"liver": 0.9},
        "planes": [
            {"plane": "axial", "slices": slices, "shown": 1},
            {"plane": "coronal", "slices": slices[:1], "shown": 0},
        ],
    }
    classes = [
        {"name": name, "color": color}
        for name, color in (
            ("background", [0, 0, 0]),
            ("liver", [230, 159, 0]),
            (HOSTILE, [0, 114, 178]),
        )
    ]
    drawn = {"classes": classes, "cases": [case], "n_ranked": 1}
    (folder / "figures" / "cases.json").write_text(json.dumps(drawn))
    per_case = [
        {"id": name, "group": name, "class": one, "dice": dice}
        for name, one, dice in (
            ("a", "liver", 0.9),
            ("b", "liver", 0.1),
            ("a", HOSTILE, 0.3),
        )
    ]
    scores = {
        "mean": {"dice": 0.4},
        "ci95": None,
        "ci95_note": "few groups",
        "per_class": {"liver": {"dice": 0.5}, HOSTILE: {"dice": 0.3}},
        "per_case": per_case,
        "n_cases": 2,
        "n_groups": 2,
        "checkpoint_step": 20,
        "confusion": {
            "classes": ["background", "liver", HOSTILE],
            "pixels": [[75, 25, 0], [0, 9, 1], [0, 0, 0]],
        },
    }
    (folder / "test_metrics.json").write_text(json.dumps(scores))
    rows = [
        {"step": step, "split": split, "loss": 1 / step, "dice": step / 40}
        for step in (10, 20)
        for split in ("train", "val")
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 30, "spl')
    write_page(folder, title="run", facts=FACTS)
    return folder


def test_the_same_files_give_the_same_bytes_and_no_request(workdir):
    before = (workdir / PAGE).read_bytes()
    write_page(workdir, title="run", facts=FACTS)
    assert (workdir / PAGE).read_bytes() == before
    assert len(before) < 6 * 2**20
    assert b"default-src 'none'" in before
    assert HOSTILE.encode() not in before
    assert b"mean Dice of run is 0.4 (no interval: few groups)" in before


def test_a_page_of_a_run_in_training_says_so(workdir, tmp_path):
    lines = (workdir / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(lines)
    assert refresh_page(tmp_path)
    text = (tmp_path / PAGE).read_text()
    assert "is in training: step 20, validation Dice 0.5." in text


def test_a_problem_of_the_page_is_one_line(tmp_path, capsys):
    (tmp_path / "test_metrics.json").write_text("{")
    assert not refresh_page(tmp_path)
    assert capsys.readouterr().out.startswith(f"{PAGE} is not written")


def test_the_page_of_broken_scores_is_refused_in_one_line(tmp_path):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "crossvalidation.json").write_text("{")
    with pytest.raises(InputError, match="no page can be made of its files"):
        report([str(tmp_path)], None)


def test_runs_side_by_side_need_scores(tmp_path, workdir):
    with pytest.raises(InputError, match=r"found no config\.json"):
        report([str(tmp_path)], None)


def test_runs_lie_side_by_side(workdir, tmp_path):
    runs = {"low": workdir, "high": tmp_path}
    scores = json.loads((workdir / "test_metrics.json").read_text())
    scores["mean"]["dice"] = 0.7
    (tmp_path / "test_metrics.json").write_text(json.dumps(scores))
    settings = {"low": {"seed": 0, "a": 1}, "high": {"seed": 1, "a": 1}}
    write_comparison_page(tmp_path / "both.html", runs, settings)
    text = (tmp_path / "both.html").read_text()
    assert "The highest mean Dice is 0.7, of high." in text
    assert "<td>seed</td><td>0</td><td>1</td>" in text
    assert "<td>a</td>" not in text


def test_a_cross_validation_has_a_table_of_its_folds(workdir, tmp_path):
    scores = json.loads((workdir / "test_metrics.json").read_text())
    folds = [{"fold": number, "mean": {"dice": number / 4}} for number in (1, 2)]
    found = {"folds": folds, "mean": {"dice": 0.375}, "std": {"dice": 0.125}}
    (tmp_path / "crossvalidation.json").write_text(
        json.dumps({**found, "pooled": scores})
    )
    write_page(tmp_path, title="run", facts=[])
    text = (tmp_path / PAGE).read_text()
    assert "2 cases of 2 groups, each by the fold that did not train" in text
    assert "<td>fold 2</td><td>0.5</td>" in text
    assert "<td>standard deviation</td><td>0.125</td>" in text


def test_predicted_images_are_shown_with_the_warning(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_page, "MOST_BYTES", 100)
    picture = workdir / "figures" / "cases" / "image.png"
    write_prediction_page(
        tmp_path,
        rows=[{"file": name, "class": "liver", "pixels": 7} for name in ("a", "b")],
        overlays=[picture, picture],
        unlike=["b"],
        facts=[],
    )
    text = (tmp_path / PAGE).read_text()
    assert "Number of images that were segmented: 2." in text
    assert "unlike the images of training (b)" in text
    assert text.count("data:image/png") == 1
    assert "The first 1 are drawn" in text


def test_its_controls_work_in_a_browser(workdir):
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        problems: list[str] = []
        requests: list[str] = []
        page.on("console", lambda one: problems.append(one.text))
        page.on("pageerror", lambda one: problems.append(str(one)))
        page.on("request", lambda one: requests.append(one.url))
        page.goto((workdir / PAGE).as_uri())
        page.wait_for_selector(".case[data-drawn]")
        pixel = """x => [...document.querySelector("canvas").getContext("2d")
            .getImageData(x, 8, 1, 1).data].slice(0, 3)"""

        def drawn_after(action):
            count = page.get_attribute(".case", "data-drawn")
            action()
            page.wait_for_function(
                "n => document.querySelector('.case').dataset.drawn !== n", arg=count
            )

        def slide(name, value):
            page.eval_on_selector(
                name,
                "(one, value) => { one.value = value;"
                " one.dispatchEvent(new Event('input')); }",
                value,
            )

        # The label's orange on the left of the divider, the prediction's blue right.
        assert page.evaluate(pixel, 2)[0] > page.evaluate(pixel, 18)[0]
        drawn_after(lambda: slide(".divider", "100"))
        assert page.evaluate(pixel, 18) == page.evaluate(pixel, 2)
        drawn_after(lambda: slide(".opacity", "0"))
        assert page.evaluate(pixel, 2) == [120, 120, 120]
        drawn_after(lambda: slide(".opacity", "100"))
        assert page.evaluate(pixel, 2) == [230, 159, 0]
        drawn_after(lambda: page.uncheck("input.class[value='1']"))
        assert page.evaluate(pixel, 2) == [120, 120, 120]
        drawn_after(lambda: page.check(".errors"))
        assert page.evaluate(pixel, 2) == [255, 0, 255]
        drawn_after(lambda: page.select_option(".plane", "coronal"))
        assert page.get_attribute(".slice", "max") == "0"
        assert not page.is_visible(".slice")

        scores = page.locator("table.sortable").nth(0)
        scores.locator("th").nth(1).get_by_role("button").press("Enter")
        assert scores.locator("tr").last.text_content() == "mean0.4"

        table = page.locator("table.sortable").nth(1)
        dice = "rows => rows.map(row => row.cells[3].textContent)"
        table.locator("th").nth(3).get_by_role("button").press("Enter")
        assert table.locator("tbody tr").evaluate_all(dice) == ["0.1", "0.3", "0.9"]
        table.locator("th").nth(3).get_by_role("button").press("Enter")
        assert table.locator("tbody tr").evaluate_all(dice) == ["0.9", "0.3", "0.1"]
        assert table.locator("th").nth(3).get_attribute("aria-sort") == "descending"

        # Fractions of each label, as text and, with the pixels, under the pointer.
        assert page.locator(".heatmap-label").all_text_contents() == [
            *("75 %", "25 %", "0 %", "0 %", "90 %", "10 %")
        ]
        page.locator(".heatmap-label").nth(5).scroll_into_view_if_needed()
        box = page.locator(".heatmap-label").nth(5).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        hovered = page.locator(".hoverlayer .hovertext").text_content()
        assert hovered.startswith("label liver")
        assert hovered.endswith("1 pixels, 10.000% of the label")

        page.set_viewport_size({"width": 400, "height": 800})
        page.wait_for_function("document.documentElement.scrollWidth <= 400")
        assert page.locator(".facts td").last.bounding_box()["width"] > 150

        # Paper is white, also where the screen is dark.
        # One call, because plotly replaces its texts when the width changes.
        colors = """() => [".plot text", ".soft"].map(name => {
            const style = getComputedStyle(document.querySelector(name));
            return name === ".soft" ? style.color : style.fill; })"""
        for media, values in (
            ("screen", ["rgb(236, 236, 236)", "rgb(180, 180, 180)"]),
            ("print", ["rgb(0, 0, 0)", "rgb(89, 89, 89)"]),
        ):
            page.emulate_media(media=media, color_scheme="dark")
            assert page.evaluate(colors) == values
        assert page.title() == "run"
        assert page.locator(".js-plotly-plot").count() == 4
        assert problems == []
        assert [one for one in requests if not one.startswith(("file:", "data:"))] == []


def _luminance(color: str) -> float:
    values = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values
    ]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize(
    ("back", "text"),
    [
        ("#ffffff", "#1a1a1a"),
        ("#ffffff", "#595959"),
        ("#14171a", "#ececec"),
        ("#14171a", "#b4b4b4"),
        ("#f4f4f4", "#595959"),
        ("#20252a", "#b4b4b4"),
    ],
)
def test_text_has_the_contrast_of_wcag_aa(workdir, back, text):
    page = (workdir / PAGE).read_text()
    assert text in page
    assert back in page or back == "#ffffff"
    light, dark = sorted((_luminance(back), _luminance(text)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
