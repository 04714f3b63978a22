import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unet_jax.labels import IGNORE
from unet_jax.report.figure import write_figure
from unet_jax.report.overlay import overlay

NAMES = ("background", "vessel", "nucleus")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
LOOK = {"class_names": NAMES, "class_colors": COLORS}
PICTURE = {"slice_axis": 2, "spacing": None}


def _shown(axes):
    return np.asarray(axes.images[0].get_array())


def _texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def _outline(axes):
    """The segments of the outline, as a set of pairs of corners."""
    (lines,) = axes.collections
    return {tuple(sorted(map(tuple, s.tolist()))) for s in lines.get_segments()}


def test_classes_are_painted_in_their_colours_in_both_panels():
    image = np.full((4, 5, 3), 100, np.uint8)
    label, prediction = np.zeros((2, 4, 5), int)
    label[1, 2], prediction[1, 3] = 1, 2
    image_axes, truth, guess = overlay(image, label, prediction, **LOOK, **PICTURE).axes
    np.testing.assert_allclose(_shown(image_axes), 100 / 255)
    grey = np.full(3, 100 / 255)
    np.testing.assert_allclose(_shown(truth)[0, 0], grey)
    np.testing.assert_allclose(_shown(truth)[1, 2], 0.45 * grey + 0.55 * np.eye(3)[0])
    np.testing.assert_allclose(_shown(guess)[1, 3], 0.45 * grey + 0.55 * np.eye(3)[2])
    np.testing.assert_allclose(_shown(guess)[1, 2], grey)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2)])
def test_a_background_that_counts_is_coloured_too(shape):
    label = np.zeros(shape, int)
    label[1, 2] = 1
    look = {**LOOK, "class_colors": ((211, 211, 211), *COLORS[1:])}
    figure = overlay(
        np.full((*shape, 3), 100, np.uint8),
        label,
        label,
        slice_axis=2,
        spacing=None,
        color_background=True,
        **look,
    )
    mixed = 0.45 * 100 / 255 + 0.55 * 211 / 255
    for axes in figure.axes[1:3]:
        np.testing.assert_allclose(_shown(axes)[0, 0], mixed)
        assert _shown(axes)[1, 2, 0] > 0.7
    assert _texts(figure) == [*NAMES, "wrong (outlined)"]


def test_errors_are_outlined_along_pixel_edges_and_ignored_ones_are_not():
    label = np.array([[0, 1, 0, IGNORE], [0, 0, 0, 0]])
    prediction = np.array([[0, 0, 0, 2], [0, 0, 0, 0]])
    figure = overlay(np.zeros((2, 4, 1)), label, prediction, **LOOK, **PICTURE)
    corners = (0.5, -0.5), (1.5, -0.5), (0.5, 0.5), (1.5, 0.5)
    a, b, c, d = corners
    assert _outline(figure.axes[-1]) == {(a, b), (c, d), (a, c), (b, d)}
    assert _texts(figure) == ["vessel", "nucleus", "wrong (outlined)", "ignored"]


def test_neighbouring_errors_have_one_outline():
    label = np.zeros((3, 4), int)
    prediction = label.copy()
    prediction[1, 1], prediction[1, 2] = 1, 2
    figure = overlay(np.zeros((3, 4, 1)), label, prediction, **LOOK, **PICTURE)
    assert len(_outline(figure.axes[-1])) == 6


def test_a_right_prediction_has_no_outline():
    label = np.array([[0, 1], [2, 0]])
    figure = overlay(np.zeros((2, 2, 1)), label, label, **LOOK, **PICTURE)
    assert _outline(figure.axes[-1]) == set()


def test_without_a_label_there_are_two_panels():
    figure = overlay(
        np.zeros((3, 4, 1)),
        None,
        np.ones((3, 4), int),
        title="case 7",
        **LOOK,
        **PICTURE,
    )
    assert [axes.get_title() for axes in figure.axes] == ["image", "prediction"]
    assert _texts(figure) == ["vessel", "nucleus"]
    assert figure.get_suptitle() == "case 7"


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_channel_counts_show_the_first_as_grey(channels):
    image = np.random.default_rng(0).normal(size=(20, 21, channels))
    figure = overlay(image, None, np.zeros((20, 21), int), **LOOK, **PICTURE)
    shown = _shown(figure.axes[0])
    low, high = np.percentile(image[..., 0], (0.5, 99.5))
    expected = np.clip((image[..., 0] - low) / (high - low), 0, 1)
    for channel in range(3):
        np.testing.assert_allclose(shown[..., channel], expected)


def test_sixteen_bits_with_one_hot_pixel_stay_visible():
    image = np.linspace(1000, 2000, 400).reshape(20, 20, 1).astype(np.uint16)
    image[0, 0] = 65535
    figure = overlay(image, None, np.zeros((20, 20), int), **LOOK, **PICTURE)
    assert _shown(figure.axes[0])[10:].mean() > 0.6


@pytest.mark.parametrize("value", [0.0, -3.0, 700.0])
def test_a_constant_image_is_drawn(value, tmp_path):
    image = np.full((5, 6, 1), value, np.float32)
    figure = overlay(image, None, np.zeros((5, 6), int), **LOOK, **PICTURE)
    assert np.isfinite(_shown(figure.axes[0])).all()
    write_figure(tmp_path / "constant.png", figure)


@pytest.mark.parametrize(
    ("colors", "avoided"),
    [(((0, 0, 0), (255, 0, 200)), (1.0, 0.0, 200 / 255)), (COLORS, (1.0, 30 / 255, 0))],
)
def test_the_outline_is_unlike_every_class(colors, avoided):
    label, prediction = np.zeros((2, 3, 3), int)
    prediction[1, 1] = 1
    figure = overlay(
        np.zeros((3, 3, 1)),
        label,
        prediction,
        class_names=NAMES[: len(colors)],
        class_colors=colors,
        **PICTURE,
    )
    color = figure.axes[-1].collections[0].get_color()[0][:3]
    for one in np.asarray(colors) / 255:
        assert np.linalg.norm(color - one) > 0.9
    assert np.linalg.norm(color - np.asarray(avoided)) > 0.5


# ---- volumes -------------------------------------------------------------------------


def _volume(shape, marked):
    label = np.zeros(shape, int)
    label[marked] = 1
    return np.zeros((*shape, 1), np.float32), label


@pytest.mark.parametrize(
    ("axis", "voxel", "row_and_column"),
    [
        # (x, y, z) grow to the right, anterior and superior; shape (5, 7, 9).
        (2, (1, 6, 4), (0, 1)),
        (1, (1, 3, 8), (0, 1)),
        (0, (2, 5, 0), (8, 5)),
    ],
)
def test_slices_stand_upright(axis, voxel, row_and_column):
    image, label = _volume((5, 7, 9), voxel)
    figure = overlay(image, label, label, slice_axis=axis, spacing=(1, 1, 1), **LOOK)
    image_axes, truth, _ = figure.axes
    assert image_axes.get_ylabel() == f"slice {voxel[axis]}"
    painted = np.argwhere(_shown(truth)[..., 0] > 0.5)
    assert painted.tolist() == [list(row_and_column)]


def test_slices_of_an_unknown_body_are_shown_as_stored():
    image, label = _volume((5, 7, 9), (1, 6, 4))
    figure = overlay(image, label, label, slice_axis=2, spacing=None, **LOOK)
    painted = np.argwhere(_shown(figure.axes[1])[..., 0] > 0.5)
    assert painted.tolist() == [[1, 6]]


def test_letters_name_the_directions_of_a_known_grid_alone():
    image, label = _volume((5, 7, 9), (slice(None), slice(None), 4))
    letters = {}
    for spacing in ((1, 1, 1), None):
        figure = overlay(image, label, label, slice_axis=2, spacing=spacing, **LOOK)
        letters[spacing] = {
            t.get_text(): t.get_position() for t in figure.axes[0].texts
        }
    assert letters[None] == {}
    known = letters[1, 1, 1]
    assert known["L"][0] < 0.1 < 0.9 < known["R"][0]
    assert known["P"][1] < 0.1 < 0.9 < known["A"][1]


@pytest.mark.parametrize(("axis", "ratio"), [(0, 3 / 2), (1, 3 / 1), (2, 2 / 1)])
def test_panels_have_the_proportions_of_the_body(axis, ratio):
    image, label = _volume((8, 8, 8), slice(2, 6))
    figure = overlay(
        image,
        label,
        label,
        slice_axis=axis,
        spacing=(1.0, 2.0, 3.0),
        num_slices=1,
        **LOOK,
    )
    box = figure.axes[0].get_position()
    width, height = (
        box.width * figure.get_figwidth(),
        box.height * figure.get_figheight(),
    )
    assert height / width == pytest.approx(ratio)
    assert figure.axes[0].get_aspect() == pytest.approx(ratio)


def _slices(marked, count, size=40):
    image, label = _volume((4, 4, size), (slice(None), slice(None), marked))
    figure = overlay(
        image, label, label, slice_axis=2, spacing=None, num_slices=count, **LOOK
    )
    return [int(axes.get_ylabel().split()[1]) for axes in figure.axes[::3]]


def test_slices_are_spread_over_the_foreground():
    assert _slices(slice(10, 31), 4) == [12, 17, 22, 27]
    assert _slices([20], 4) == [20]
    assert _slices([3, 4], 4) == [3, 4]
    assert _slices([0, 39], 3) == [0, 39]


def test_a_volume_without_foreground_is_drawn_too():
    assert _slices([], 2, size=9) == [2, 6]


def test_all_slices_have_one_grey_window():
    image, label = _volume((4, 4, 2), slice(None))
    image[..., 1, 0] = 100.0
    image[..., 0, 0] = np.linspace(0, 50, 16).reshape(4, 4)
    figure = overlay(
        image, label, label, slice_axis=2, spacing=None, num_slices=2, **LOOK
    )
    assert _shown(figure.axes[0]).max() < 0.51
    np.testing.assert_allclose(_shown(figure.axes[3]), 1.0)


def test_a_volume_without_a_label_has_two_columns():
    image, label = _volume((5, 7, 9), slice(None))
    figure = overlay(
        image, None, label, slice_axis=2, spacing=None, num_slices=3, **LOOK
    )
    assert len(figure.axes) == 6


def test_pictures_and_volumes_are_drawn_differently():
    image, label = _volume((5, 7, 9), slice(None))
    options = {"slice_axis": 1, "spacing": None, "title": "case", **LOOK}
    volume = overlay(image, label, label, **options)
    picture = overlay(image[0], label[0], label[0], **options)
    assert len(volume.axes) == 12
    assert volume.axes[0].get_ylabel() == "slice 1"
    assert len(picture.axes) == 3
    assert {f.get_suptitle() for f in (volume, picture)} == {"case"}


# ---- files ---------------------------------------------------------------------------


def test_the_file_is_a_png_with_the_colours_and_equal_bytes(tmp_path):
    image = np.zeros((30, 40, 1), np.uint8)
    label = np.zeros((30, 40), int)
    label[5:15, 5:15], label[20:25, 5:35] = 1, 2
    for name in ("a.png", "b.png"):
        figure = overlay(image, label, label, title="case", **LOOK, **PICTURE)
        write_figure(tmp_path / "figures" / name, figure)
    first = tmp_path / "figures" / "a.png"
    assert first.read_bytes() == (tmp_path / "figures" / "b.png").read_bytes()
    pixels = np.asarray(Image.open(first).convert("RGB")).reshape(-1, 3)
    found = {tuple(color) for color in np.unique(pixels, axis=0).tolist()}
    # On black, the panels have 55 % of each colour and the legend has all of it.
    assert {(140, 0, 0), (0, 0, 140), (255, 0, 0), (0, 0, 255)} <= found
    assert pixels.shape[0] > 400 * 1200


def test_reports_load_cheaply_and_leave_pyplot_alone():
    code = (
        "import sys, numpy as np\n"
        "from unet_jax.report import curves, overlay, progress, writer\n"
        "heavy = {'matplotlib', 'tensorboardX', 'tqdm', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "zeros = np.zeros((3, 3), int)\n"
        "overlay.overlay(zeros[..., None], None, zeros, slice_axis=2, spacing=None,\n"
        "    class_names=('a',), class_colors=((0, 0, 0),))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
