import json

import numpy as np
import pytest
from PIL import Image

from unet_jax.report import curves
from unet_jax.report.curves import write_curves

LOOK = {
    "class_names": ("background", "vessel"),
    "class_colors": ((0, 0, 0), (255, 0, 0)),
}


@pytest.fixture
def figures(monkeypatch):
    """Figures that are written to the file."""
    seen = []
    write = curves.write_figure

    def record(path, figure):
        seen.append(figure)
        write(path, figure)

    monkeypatch.setattr(curves, "write_figure", record)
    return seen


def _write_log(path, entries, tail=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return path


def _lines(axes):
    return {
        (line.get_label(), line.get_linestyle()): (
            list(line.get_xdata()),
            list(line.get_ydata()),
        )
        for line in axes.lines
    }


def test_loss_dice_and_learning_rate_are_drawn(tmp_path, figures):
    log = _write_log(
        tmp_path / "metrics.jsonl",
        [
            {"step": 1, "split": "train", "loss": 0.9, "learning_rate": 0.1},
            {"step": 2, "split": "train", "loss": None, "learning_rate": 0.2},
            {"step": 2, "split": "val", "loss": 0.8, "dice": 0.5, "dice/vessel": 0.5},
            {"step": 2, "split": "train", "dice": 0.6, "dice/vessel": 0.6},
            {"step": 3, "split": "train", "loss": 0.7, "learning_rate": 0.1},
            {"step": 4, "split": "val", "loss": 0.6, "dice": 0.7, "dice/vessel": 0.7},
            {"step": 4, "split": "train", "dice": 0.8, "dice/vessel": 0.8},
        ],
        tail='{"step": 5, "spl',
    )
    write_curves(log, tmp_path / "figures" / "curves.png", **LOOK)
    loss, dice, rate = figures[0].axes
    assert _lines(loss) == {
        ("validation", "-"): ([2, 4], [0.8, 0.6]),
        ("training", "--"): ([1, 3], [0.9, 0.7]),
    }
    assert _lines(rate) == {("training", "-"): ([1, 2, 3], [0.1, 0.2, 0.1])}
    by_label = _lines(dice)
    assert by_label["vessel", "-"] == ([2, 4], [0.5, 0.7])
    assert by_label["training", "--"] == ([2, 4], [0.6, 0.8])
    names = [text.get_text() for text in dice.get_legend().get_texts()]
    assert names == ["vessel", "validation", "training"]
    pixels = np.asarray(Image.open(tmp_path / "figures" / "curves.png").convert("RGB"))
    red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 120).all(-1)
    assert red.sum() > 50


def test_panels_without_numbers_are_left_out(tmp_path, figures):
    log = _write_log(
        tmp_path / "metrics.jsonl", [{"step": 1, "split": "train", "loss": 0.5}]
    )
    write_curves(log, tmp_path / "curves.png", **LOOK)
    (axes,) = figures[0].axes
    assert axes.get_title() == "loss"
    assert axes.lines[0].get_marker() == "o"


def test_an_empty_log_gives_an_empty_figure(tmp_path, figures):
    log = _write_log(tmp_path / "metrics.jsonl", [])
    write_curves(log, tmp_path / "curves.png", **LOOK)
    assert figures[0].axes == []
    assert (tmp_path / "curves.png").exists()
