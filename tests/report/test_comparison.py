import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from unet_jax.labels import IGNORE
from unet_jax.report.comparison import comparison_figure, comparison_markdown
from unet_jax.report.histogram import histogram_figure

COLORS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def _row(name, dice, *, block="fitted on training", ci95=None):
    return {
        "method": name,
        "block": block,
        "mean": {"dice": dice, "iou": dice / 2},
        "ci95": ci95,
        "ci95_note": "none here",
        "per_class": {"a": {"dice": dice}, "b": {"dice": None}},
        "n_cases": 6,
        "n_groups": 5,
        "ms_per_image": 12.4,
    }


RESULTS = {
    "methods": [
        _row("worse", 0.5),
        _row("better", 0.75, ci95={"dice": [0.7, 0.8], "iou": [0.3, 0.4]}),
        {"method": "broken", "failed": "ValueError: no"},
        _row("matched", 0.9, block="oracle-matched"),
    ]
}


def test_each_block_has_a_table_with_the_best_first_and_failures_are_listed():
    lines = comparison_markdown(RESULTS).splitlines()
    assert lines[0] == "### Fitted on training"
    assert lines[2] == "| method | Dice | IoU | a | b | ms an image |"
    better = "| better | 0.750 (0.700 to 0.800) | 0.375 (0.300 to 0.400) | 0.750 | - |"
    assert lines[4] == f"{better} 12 |"
    assert lines[5] == "| worse | 0.500 | 0.250 | 0.500 | - | 12 |"
    assert lines.index("### Oracle-matched") > 5
    assert lines[-1] == "broken failed: ValueError: no"
    assert "Test cases: 6, groups: 5." in lines[-3]


def test_a_comparison_with_only_failures_has_a_table():
    text = comparison_markdown({"methods": [{"method": "x", "failed": "E: y"}]})
    assert text == "x failed: E: y\n"


def _texts(figure):
    return [text.get_text() for text in figure.texts]


def test_each_row_shows_image_prediction_error_map_and_scores():
    image = np.full((4, 5, 1), 100, np.uint8)
    label = np.zeros((4, 5), int)
    label[1, 1], label[3, 4] = 1, IGNORE
    wrong = np.zeros((4, 5), int)
    figure = comparison_figure(
        image, label, RESULTS, [wrong, np.maximum(label, 0), None, wrong],
        slice_axis=2, spacing=None, class_colors=COLORS,
    )  # fmt: skip
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(shown) == 3 * 4
    np.testing.assert_allclose(shown[3], 100 / 255)
    error = shown[5]
    np.testing.assert_allclose(error[1, 1], (0.85, 0.1, 0.2))
    np.testing.assert_allclose(error[0, 0], 0.93)
    np.testing.assert_allclose(error[3, 4], 0.6)
    np.testing.assert_allclose(shown[8][1, 1], 0.93)
    grey = 0.45 * 100 / 255
    np.testing.assert_allclose(shown[7][1, 1], [grey + 0.55, grey, grey])
    texts = _texts(figure)
    heads = {"image", "prediction", "error map", "Dice", "IoU", "ms an image"}
    assert heads <= set(texts)
    for text in ("ground truth", "better", "0.750\n(0.700 to 0.800)", "12"):
        assert text in texts
    assert "broken" not in texts


def test_the_longest_name_ends_before_the_first_picture():
    label = np.zeros((4, 5), int)
    names = ("feature_clustering_matched", "kmeans_position")
    figure = comparison_figure(
        label[..., None], label, {"methods": [_row(name, 0.5) for name in names]},
        [label] * 2, slice_axis=2, spacing=None, class_colors=COLORS,
    )  # fmt: skip
    renderer = FigureCanvasAgg(figure).get_renderer()
    first = figure.axes[0].get_window_extent(renderer).x0
    written = {text.get_text(): text for text in figure.texts}
    for name in names:
        assert written[name].get_window_extent(renderer).x1 < first, name


def test_of_a_volume_the_slice_with_most_foreground_is_drawn():
    label = np.zeros((4, 6, 3), int)
    label[1:3, 1:4, 2] = 1
    label[0, 0, 0] = 1
    image = np.arange(3.0)[None, None, :, None] * np.ones((4, 6, 1, 1))
    figure = comparison_figure(
        image, label, {"methods": [_row("x", 1.0)]}, [label],
        slice_axis=2, spacing=(1.0, 2.0, 5.0), class_colors=COLORS,
    )  # fmt: skip
    axes = figure.axes[1]
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape[:2] == (6, 4)
    assert axes.get_aspect() == pytest.approx(2.0)
    assert (picture[..., 0] > picture[..., 1]).sum() == 6


def test_the_histogram_draws_every_threshold_and_counts_every_pixel():
    image = np.repeat([0, 10, 200], (90_000, 30, 40)).astype(np.uint8)
    label = np.repeat([0, 1, 2], (90_000, 30, 40))
    figure = histogram_figure(
        [image], [label], {"otsu": [5.0, 105.0], "manual": [60.0]},
        class_names=("background", "a", "b"), class_colors=COLORS,
    )  # fmt: skip
    (axes,) = figure.axes
    lines = sorted(line.get_xdata()[0] for line in axes.lines)
    assert lines == [5.0, 60.0, 105.0]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["background", "a", "b", "otsu: 5, 105", "manual: 60"]
    filled = [p.get_data().values.sum() for p in axes.patches if p.get_fill()]
    assert filled == [90_000, 30, 40]
    # A background of one value does not make the other bars too small.
    assert 40 < axes.get_ylim()[1] < 100
    assert "cut off" in axes.get_ylabel()


def test_the_histogram_of_a_constant_image_is_drawn():
    for dtype in (np.uint8, np.float32):
        image = np.full((3, 3), 7, dtype)
        figure = histogram_figure(
            [image], [np.zeros((3, 3), int)], {},
            class_names=("background", "a"), class_colors=COLORS[:2],
        )  # fmt: skip
        assert figure.axes[0].get_ylim()[1] > 9
