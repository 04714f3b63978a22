"""Tests sets whose images are DICOM series."""

import json

import nibabel
import numpy as np
import pytest

from tests.data.files.dicoms import write_series
from tests.data.folder.folders import open_set, problems_of
from unet_jax.data.files.read import read_image


def _patient(series, mask, number):
    """Write a series, and a mask of three classes on its grid."""
    pixels = write_series(series, seed=number)
    labels = np.transpose(pixels % 3, (2, 1, 0)).astype(np.uint8)
    mask.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, read_image(series).affine), mask)


@pytest.mark.parametrize(
    "layout",
    [("images/p{}", "masks/p{}.nii.gz"), ("p{}/CT", "p{}/mask.nii.gz")],
    ids=["two folders", "a folder a patient"],
)
def test_a_series_is_one_image_of_its_folder(tmp_path, layout):
    folder = tmp_path / "set"
    for number in range(4):
        _patient(*(folder / one.format(number) for one in layout), number)
    cache = tmp_path / "dataset.json"
    data = open_set(folder, cache=cache)
    assert [case.shape for case in data.traits] == [(5, 4, 6)] * 4  # in RAS
    case = data.source("train")[0]
    # Values are thirds of the stored ones, so that places of image and mask agree.
    np.testing.assert_array_equal((case.image[..., 0] + 1024) % 3, case.label)
    assert "left out: nothing" in data.notes
    assert "spacing: from DICOM headers" in data.notes
    before = json.loads(cache.read_text())
    series = folder / layout[0].format(2)
    (series / "IM0002").rename(series / "IM0099")
    open_set(folder, cache=cache)
    after = json.loads(cache.read_text())
    changed = [
        one for one in before["cases"] if before["cases"][one] != after["cases"][one]
    ]
    assert len(changed) == 1


def test_a_series_beside_its_converted_image_is_left_out(tmp_path):
    for number in range(4):
        _patient(
            tmp_path / f"p{number}/CT", tmp_path / f"p{number}/mask.nii.gz", number
        )
        image = read_image(tmp_path / f"p{number}/CT")
        nifti = nibabel.Nifti1Image(image.image[..., 0], image.affine)
        nibabel.save(nifti, tmp_path / f"p{number}/ct.nii.gz")
    data = open_set(tmp_path)
    assert all(case.images[0].endswith("ct.nii.gz") for case in data.traits)


def test_several_series_in_a_folder_are_a_problem_of_the_set(tmp_path):
    for number in range(4):
        _patient(
            tmp_path / f"images/p{number}", tmp_path / f"masks/p{number}.nii.gz", number
        )
    write_series(tmp_path / "other", series="1.9")
    (tmp_path / "other/IM0002").rename(tmp_path / "images/p2/IM0100")
    (line,) = problems_of(tmp_path)
    assert line.startswith(f"{tmp_path / 'images/p2'}: holds 2 series:")
