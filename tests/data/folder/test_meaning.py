"""Tests sets whose files give their numbers different meanings."""

import ast
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.folder.folders import open_set, problems_of
from unet_jax.data.case import IGNORE

BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 0, 0)


def _labels(seed, shape=(12, 14)):
    """Draw a mask whose commonest value is 0."""
    return (np.random.default_rng(seed).random(shape) > 0.7).astype(np.uint8)


def _write(folder, seed, labels, **options):
    """Write a picture, and its mask as a palette file."""
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
    pixels = np.random.default_rng(100 + seed).integers(1, 99, labels.shape)
    Image.fromarray((pixels + 100 * labels).astype(np.uint8)).save(
        folder / f"images/{seed}.png"
    )
    _mask(folder / f"masks/{seed}.png", labels, **options)


def _mask(path, labels, palette=None):
    picture = Image.fromarray(labels)
    if palette:
        picture = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
        picture.putpalette([part for color in palette for part in color])
    picture.save(path)


def _case(dataset, name):
    """Return a case of any split."""
    for split in ("train", "validation", "test"):
        source = dataset.source(split)
        for index in range(len(source)):
            if source[index].id == name:
                return source[index]
    raise AssertionError(name)


# Palettes.


def _mixed_palettes(folder):
    for seed in range(6):
        labels, white_first = _labels(seed), seed in (1, 4)
        stored = 1 - labels if white_first else labels
        _write(folder, seed, stored, palette=[WHITE, BLACK] if white_first else None)
        if not white_first:
            _mask(folder / f"masks/{seed}.png", stored, [BLACK, WHITE])


def test_an_index_of_two_colours_is_refused_and_the_palette_decides(tmp_path):
    _mixed_palettes(tmp_path)
    (line,) = problems_of(tmp_path)
    assert "the value 0 has the colour (0, 0, 0) in" in line
    assert "4.png; expected one colour for a value" in line
    palette = ast.literal_eval(re.search(r"data\.palette='(.*?)'", line)[1])
    assert palette == (BLACK, WHITE)
    dataset = open_set(tmp_path, palette=palette)
    for seed in (0, 1):
        label = _case(dataset, str(seed)).label
        np.testing.assert_array_equal(label, _labels(seed))
    assert "data.palette_indices=True" in line
    dataset = open_set(tmp_path, palette_indices=True)
    np.testing.assert_array_equal(_case(dataset, "1").label, 1 - _labels(1))


def test_one_palette_may_have_any_order(tmp_path):
    for seed in range(5):
        _write(tmp_path, seed, _labels(seed), palette=[WHITE, RED])
    np.testing.assert_array_equal(_case(open_set(tmp_path), "1").label, _labels(1))


def test_grey_masks_beside_a_palette_that_begins_with_white_are_refused(tmp_path):
    for seed in range(5):
        white_first = {"palette": [WHITE, RED]} if seed == 3 else {}
        _write(tmp_path, seed, _labels(seed), **white_first)
    (line,) = problems_of(tmp_path)
    assert "(0, 0, 0) in" in line
    assert "(255, 255, 255) in" in line
    # A class of any colour beside greys that number the classes is no contradiction.
    _mask(tmp_path / "masks/3.png", _labels(3), [BLACK, RED])
    assert open_set(tmp_path)


def test_the_masks_of_the_slices_of_a_volume_are_compared_too(tmp_path):
    for patient in range(4):
        folder = tmp_path / f"p{patient}"
        folder.mkdir()
        for number in range(3):
            _write(folder, number, _labels(3 * patient + number), palette=[BLACK, RED])
    _mask(tmp_path / "p2/masks/1.png", 1 - _labels(7), [RED, BLACK])
    lines = problems_of(tmp_path, stack=True)
    assert any("p2/masks/1.png; expected one colour for a value" in s for s in lines)


# Orientation.


def _photo(folder, seed, shape, orientation, *, mask_upright):
    """Write a photograph that is stored turned."""
    stored = _labels(seed, shape)
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored * 90 + 20).save(folder / f"images/{seed}.png", exif=exif)
    turned = {1: stored, 3: stored[::-1, ::-1], 6: np.rot90(stored, -1)}[orientation]
    _mask(folder / f"masks/{seed}.png", np.array(turned if mask_upright else stored))
    return stored, turned


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_that_may_be_wrong_is_refused(tmp_path, orientation):
    shape = (12, 12) if orientation == 6 else (12, 14)
    for seed in range(5):
        stored, turned = _photo(
            tmp_path, seed, shape, orientation if seed else 1, mask_upright=False
        )
    (line,) = problems_of(tmp_path)
    assert "1.png" in line
    assert "whose size fits both readings" in line
    for key, expected in (("stored", stored), ("upright", turned)):
        assert f"--config.data.orientation={key}" in line
        case = _case(open_set(tmp_path, orientation=key), "4")
        np.testing.assert_array_equal(case.image[..., 0], expected * 90 + 20)
        np.testing.assert_array_equal(case.label, stored)


def test_one_mask_that_fits_the_upright_image_only_decides(tmp_path):
    shapes = [(12, 12), (12, 14), (12, 12), (12, 14), (12, 14)]
    for seed, shape in enumerate(shapes):
        orientation = 6 if seed < 2 else 3
        _, turned = _photo(tmp_path, seed, shape, orientation, mask_upright=True)
    np.testing.assert_array_equal(_case(open_set(tmp_path), "4").label, turned)


def test_masks_on_the_stored_pixels_name_the_orientation(tmp_path):
    for seed in range(4):
        _photo(tmp_path, seed, (12, 14), 6, mask_upright=False)
    (line,) = problems_of(tmp_path)
    assert "3 and 1 more" in line or "and 1 more" in line
    assert "its EXIF orientation 6 turns it upright, but the mask has the size" in line
    assert open_set(tmp_path, orientation="stored")
    lines = problems_of(tmp_path, orientation="upright")
    assert "size (12, 14); expected (14, 12)" in lines[0]


# Missing pixels.


def _tile(path, pixels, nodata):
    tags = [(42113, "s", 0, nodata, True)] if nodata else []
    path.parent.mkdir(exist_ok=True)
    options = {"photometric": "minisblack", "extratags": tags}
    tifffile.imwrite(path, pixels, **options)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-3.4028234663852886e38, "-3.4028234663852886e+38"),
        (np.nan, "nan"),
        (-9999, "-9999"),
    ],
)
def test_pixels_without_data_are_ignored_and_change_no_statistics(
    tmp_path, value, text, caplog
):
    for seed in range(5):
        labels = _labels(seed)
        pixels = np.random.default_rng(seed).normal(280, 9, labels.shape)
        pixels = pixels.astype(np.float32)
        if seed % 2:
            pixels[:4] = value
        _tile(tmp_path / f"images/{seed}.tif", pixels, text)
        _tile(tmp_path / f"masks/{seed}.tif", labels, "")
    dataset = open_set(tmp_path)
    case, whole = _case(dataset, "3"), _case(dataset, "4")
    assert (case.label[:4] == IGNORE).all()
    np.testing.assert_array_equal(case.label[4:], _labels(3)[4:])
    seen = tifffile.imread(tmp_path / "images/3.tif")[4:]
    np.testing.assert_array_equal(case.image[4:, :, 0], seen)
    np.testing.assert_allclose(case.image[:4], seen.mean(), rtol=1e-6)
    expected = [(seen.mean(dtype=np.float64), seen.std(dtype=np.float64))]
    np.testing.assert_allclose(case.reference, expected, rtol=1e-9)
    assert whole.reference is None
    traits = next(one for one in dataset.traits if one.id == "3")
    assert sum(traits.values.values()) == seen.size
    assert caplog.text == ""  # tifffile finds -3.4028234663852886e38 too large


@pytest.mark.parametrize(("value", "told"), [(-9999, True), (0, False)])
def test_a_missing_value_that_one_file_does_not_declare(tmp_path, value, told):
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(1, 99, (12, 14), dtype=np.int16)
        pixels[:3] = value
        _tile(tmp_path / f"images/{seed}.tif", pixels, f"{value}" * (seed != 3))
        _tile(tmp_path / f"masks/{seed}.tif", _labels(seed), "")
    if not told:
        assert open_set(tmp_path)
        return
    (line,) = problems_of(tmp_path)
    assert re.search(
        r"images/3\.tif: the lowest value is -9999, which .*4\.tif dec", line
    )
    assert line.endswith("gdal_edit.py -a_nodata -9999")


def test_an_image_without_any_data_is_named(tmp_path):
    for seed in range(5):
        pixels = np.full((9, 9), -1 if seed == 2 else seed + 5, np.int16)
        pixels[0] += np.int16(seed != 2) * np.arange(9, dtype=np.int16)
        _tile(tmp_path / f"images/{seed}.tif", pixels, "-1")
        _tile(tmp_path / f"masks/{seed}.tif", _labels(seed, (9, 9)), "")
    (line,) = problems_of(tmp_path)
    assert "images/2.tif: every pixel is nodata" in line


def test_the_nodata_value_of_masks_is_asked_for_unless_it_is_0(tmp_path):
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(1, 99, (12, 14), dtype=np.uint8)
        labels = _labels(seed)
        labels[0] = 2
        _tile(tmp_path / f"images/{seed}.tif", pixels, "")
        _tile(tmp_path / f"masks/{seed}.tif", labels, "2" if seed else "")
    (line,) = problems_of(tmp_path)
    assert "the value 2 is declared as nodata (GDAL), and may be a class" in line
    ignored, kept = re.findall(r"data\.label_map='(.*?)'", line)
    assert ast.literal_eval(ignored) == ((0, 0), (1, 1), (2, IGNORE))
    assert open_set(tmp_path, label_map=ast.literal_eval(kept))
    for seed in range(5):
        _tile(tmp_path / f"masks/{seed}.tif", _labels(seed), "0")
    assert open_set(tmp_path)
