"""Tests that figures are written whatever characters their texts have."""

import pytest
from PIL import Image

from unet_jax.report.figure import problem_of_drawing, write_figure


def _figure(text, *, scale="linear"):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.6))
    axes.set(title=text, ylabel=text, yscale=scale)
    axes.plot([1, 10], [1, 100], label=text)
    axes.legend()
    figure.suptitle(text)
    return figure


@pytest.mark.parametrize(
    "text", ["a$x_1$y.png", "a\\b_{1}^$c$", "$\\frac{", "gr\udcfcn", "患者_1", "a\x07b"]
)
def test_any_name_is_drawn(text, tmp_path):
    write_figure(tmp_path / "a.png", _figure(text))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (450, 300)


def test_a_dollar_is_drawn_as_a_dollar(tmp_path):
    for name, text in (("a", "$x$"), ("b", "x")):
        write_figure(tmp_path / f"{name}.png", _figure(text))
    first, second = ((tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert first != second, "as a formula, both would be an x"


def test_the_numbers_of_a_logarithmic_axis_stay_formulas(tmp_path):
    figure = _figure("a", scale="log")
    write_figure(tmp_path / "a.png", figure)
    (axes,) = figure.axes
    labels = [one for one in axes.get_yticklabels() if "mathdefault" in one.get_text()]
    assert labels
    assert all(label.get_parse_math() for label in labels)


def test_a_problem_of_drawing_is_returned():
    def fail():
        raise ValueError("no\nroom")

    assert problem_of_drawing(fail) == "ValueError: no room"
    assert problem_of_drawing(lambda: None) == ""
