"""Tests DICOM series, against SimpleITK's reader and the same image as NIfTI."""

import sys

import numpy as np
import pydicom
import pytest
import SimpleITK

from tests.data.files.dicoms import (
    ROWS_COLUMNS,
    write_frames,
    write_series,
    write_slice,
)
from unet_jax.data.files.canonical import as_case_image
from unet_jax.data.files.read import list_images, read_image
from unet_jax.data.files.write import write_label_map
from unet_jax.errors import InputError


def _by_gdcm(folder, nifti):
    """Convert a series to NIfTI with another reader."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(names)
    SimpleITK.WriteImage(reader.Execute(), str(nifti))
    return read_image(nifti)


def test_a_series_lies_where_another_reader_puts_it(tmp_path):
    pixels = write_series(tmp_path / "p1")
    stored = read_image(tmp_path / "p1")
    expected = np.transpose(pixels - 1024, (2, 1, 0))
    np.testing.assert_array_equal(stored.image[..., 0], expected)
    assert stored.image.dtype == np.int16
    other = _by_gdcm(tmp_path / "p1", tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(stored.image, other.image)
    np.testing.assert_allclose(stored.affine, other.affine, atol=1e-5)
    (one, sizes, _), (two, others, _) = (as_case_image(i, 2) for i in (stored, other))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(sizes, others, rtol=1e-6)


def test_a_label_map_is_a_nifti_on_the_grid_of_the_series(tmp_path):
    write_series(tmp_path / "p1")
    stored = read_image(tmp_path / "p1")
    labels = (stored.image[..., 0] > 0).astype(np.uint8)
    colors = [(0, 0, 0), (1, 1, 1)]
    target = write_label_map(tmp_path / "out", stored, labels, colors)
    assert target.name == "p1.nii.gz"
    written = read_image(target)
    np.testing.assert_array_equal(written.image[..., 0], labels)
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-5)


def test_slices_on_scales_of_their_own_are_floats(tmp_path):
    pixels = np.array([[0, 10], [20, 30]])
    for number in range(2):
        position = number * np.cross(ROWS_COLUMNS[:3], ROWS_COLUMNS[3:])
        tags = {"RescaleSlope": 0.5 + number, "RescaleIntercept": 0}
        write_slice(tmp_path / f"p/{number}.dcm", pixels, position=position, **tags)
    stored = read_image(tmp_path / "p")
    assert stored.image.dtype == np.float32
    expected = np.stack([0.5 * pixels.T, 1.5 * pixels.T], axis=-1)
    np.testing.assert_array_equal(stored.image[..., 0], expected)


def test_frames_of_one_file_have_their_places_in_it(tmp_path):
    write_series(tmp_path / "p1")
    write_frames(tmp_path / "all.dcm", tmp_path / "p1")
    stored, series = read_image(tmp_path / "all.dcm"), read_image(tmp_path / "p1")
    np.testing.assert_array_equal(stored.image, series.image)
    np.testing.assert_allclose(stored.affine, series.affine, atol=1e-9)


def _gap(folder):
    write_series(folder, count=5)
    (folder / "IM0005").unlink()  # the second slice


def _two_series(folder):
    write_series(folder, SeriesDescription="thorax")
    write_series(folder / "b", series="1.2.9", SeriesDescription="lung")
    for file in (folder / "b").iterdir():
        file.rename(folder / f"{file.name}.dcm")
    (folder / "b").rmdir()


def _tilt(folder):
    for number in range(3):
        position = (0, 0.3 * number, 2 * number)
        flat = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        pixels = np.full((3, 3), number)
        write_slice(folder / f"{number}.dcm", pixels, position=position, **flat)


def _other_size(folder):
    write_series(folder)
    write_slice(folder / "9.dcm", np.zeros((2, 2)), position=(0, 0, 0))


def _same_place(folder):
    write_series(folder)
    write_series(folder / "b")
    for file in (folder / "b").iterdir():
        file.rename(folder / f"{file.name}.dcm")
    (folder / "b").rmdir()


def _no_place(folder):
    for number in range(2):
        tags = {"ImagePositionPatient": None}
        pixels = np.zeros((3, 3))
        write_slice(folder / f"{number}.dcm", pixels, position=(0, 0, 0), **tags)


def _no_pixels(folder):
    write_series(folder)
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        del header.PixelData
        header.save_as(file)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_gap, "its slices are 2 to 4 mm apart; expected equal distances; add the"),
        (
            _two_series,
            r"holds 2 series: 'thorax' \(4 files, such as IM0001\), 'lung' \(4 files, "
            r"such as IM0001\.dcm\); expected one; move each into a folder of its own",
        ),
        (_tilt, r"slices are tilted by 8\.5 degrees to their stack \(a tilted gantry"),
        (_other_size, r"its slices have the size \(6, 5, 1\) and \(2, 2, 1\); exp"),
        (_same_place, "4 slices lie where another one does, as in a series of"),
        (_no_place, "states no ImagePositionPatient, ImageOrientationPatient or"),
        (_no_pixels, "no DICOM file has pixels; expected the slices of a series"),
    ],
)
def test_what_is_no_stack_of_slices_is_refused(tmp_path, write, message):
    write(tmp_path / "p")
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "p")


def test_series_are_listed_as_images(tmp_path):
    write_series(tmp_path / "p1")
    write_series(tmp_path / "p2")
    (tmp_path / "p1/notes").write_text("no slice")
    assert list_images(tmp_path / "p1") == [tmp_path / "p1"]
    assert sorted(list_images(tmp_path)) == [tmp_path / "p1", tmp_path / "p2"]


def test_without_pydicom_the_command_is_named(tmp_path, monkeypatch):
    write_series(tmp_path / "p1")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match="run `pip install pydicom`"):
        list_images(tmp_path)
