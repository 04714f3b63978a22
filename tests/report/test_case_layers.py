"""The PNGs of a case hold its image, its label and its prediction."""

import numpy as np
import pytest
from PIL import Image

from unet_jax.labels import IGNORE
from unet_jax.report.case_layers import IGNORED, SIDE, SLICES, write_layers

COLORS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def _pixels(folder, name):
    return np.asarray(Image.open(folder / name))


def test_a_picture_keeps_every_pixel(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (5, 7, 3), endpoint=True).astype(np.uint8)
    label = rng.integers(IGNORE, 2, (5, 7), endpoint=True)
    prediction = rng.integers(0, 2, (5, 7), endpoint=True).astype(np.uint8)
    (plane,) = write_layers(
        tmp_path,
        image=image,
        label=label,
        prediction=prediction,
        slice_axis=2,
        spacing=None,
        class_colors=COLORS,
    )
    (row,) = plane["slices"]
    np.testing.assert_array_equal(_pixels(tmp_path, row["image"]), image)
    np.testing.assert_array_equal(_pixels(tmp_path, row["prediction"]), prediction)
    expected = np.where(label == IGNORE, IGNORED, label)
    np.testing.assert_array_equal(_pixels(tmp_path, row["label"]), expected)
    assert row["wrong_pixels"] == ((label != prediction) & (label >= 0)).sum()
    with Image.open(tmp_path / row["label"]) as file:
        assert file.mode == "P"
        assert file.getpalette()[:9] == [value for color in COLORS for value in color]


def test_a_volume_gives_upright_slices_of_three_planes_with_the_worst_one(tmp_path):
    image = np.zeros((20, 24, 30, 1), np.float32)
    image[:, -1, :] = 1  # anterior
    label, prediction = np.zeros((2, 20, 24, 30), np.uint8)
    label[4:16, 4:20, 5:25] = prediction[4:16, 4:20, 5:25] = 1
    prediction[6, 7, 17] = 2
    planes = write_layers(
        tmp_path,
        image=image,
        label=label,
        prediction=prediction,
        slice_axis=2,
        spacing=(1.0, 2.0, 3.0),
        class_colors=COLORS,
    )
    assert [plane["plane"] for plane in planes] == ["axial", "coronal", "sagittal"]
    assert [plane["pixel_mm"] for plane in planes] == [[2, 1], [3, 1], [3, 2]]
    worst = [plane["slices"][plane["shown"]] for plane in planes]
    assert [row["index"] for row in worst] == [17, 7, 6]
    assert [row["wrong_pixels"] for row in worst] == [1, 1, 1]
    assert {len(plane["slices"]) for plane in planes} == {SLICES}
    axial = worst[0]
    assert _pixels(tmp_path, axial["image"])[0].min() == 255  # anterior is up
    assert _pixels(tmp_path, axial["image"])[1:].max() == 0
    expected = np.rot90(prediction[:, :, 17])
    np.testing.assert_array_equal(_pixels(tmp_path, axial["prediction"]), expected)


def test_a_stack_without_a_spacing_is_sliced_along_its_axis_as_stored(tmp_path):
    label = np.zeros((3, 4, 5), np.uint8)
    label[1, 0, 0] = 1
    (plane,) = write_layers(
        tmp_path,
        image=np.zeros((3, 4, 5, 1)),
        label=label,
        prediction=label,
        slice_axis=0,
        spacing=None,
        class_colors=COLORS,
    )
    (row,) = plane["slices"]  # the others have no foreground
    assert (plane["plane"], plane["axis"], row["index"]) == ("slice", 0, 1)
    np.testing.assert_array_equal(_pixels(tmp_path, row["label"]), label[1])


@pytest.mark.parametrize("shape", [(40, 2 * SIDE), (3 * SIDE, 3 * SIDE)])
def test_a_large_picture_is_reduced_and_keeps_its_classes(tmp_path, shape):
    label = np.full(shape, 2, np.uint8)
    label[: shape[0] // 2] = 1
    (plane,) = write_layers(
        tmp_path,
        image=np.zeros((*shape, 1), np.uint8),
        label=label,
        prediction=label,
        slice_axis=2,
        spacing=None,
        class_colors=COLORS,
    )
    layers = [_pixels(tmp_path, plane["slices"][0][w]) for w in ("image", "label")]
    assert {layer.shape for layer in layers} == {(shape[0] * SIDE // shape[1], SIDE)}
    assert set(np.unique(layers[1])) == {1, 2}


def test_more_classes_than_a_png_holds_give_no_layers(tmp_path):
    label = np.zeros((2, 2), np.uint16)
    found = write_layers(
        tmp_path,
        image=label[..., None],
        label=label,
        prediction=label,
        slice_axis=2,
        spacing=None,
        class_colors=[(0, 0, 0)] * 256,
    )
    assert found == []
    assert not list(tmp_path.iterdir())
