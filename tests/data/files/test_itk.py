"""Tests NRRD and MetaImage against the same image as NIfTI."""

import sys

import nibabel
import numpy as np
import pytest
import SimpleITK

from unet_jax.data.files.canonical import as_case_image
from unet_jax.data.files.read import read_image, read_label
from unet_jax.data.files.write import write_label_map, write_map
from unet_jax.errors import InputError

ENDINGS = ("nrrd", "nhdr", "mha", "mhd")
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-0.5, 2.0, 1.25]),
    [-40.0, 11.0, 7.5],
)
SHAPE = (5, 6, 4)


def _pixels(shape=SHAPE):
    return np.random.default_rng(0).integers(-900, 900, shape).astype(np.int16)


@pytest.fixture(params=ENDINGS)
def pair(request, tmp_path):
    """Write one image as NIfTI, and as another program converts it."""
    nifti = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(_pixels(), OBLIQUE), nifti)
    other = tmp_path / f"b.{request.param}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(other), True)
    return nifti, other


def test_an_image_lies_where_its_nifti_does(pair):
    nifti, other = map(read_image, pair)
    np.testing.assert_array_equal(other.image, nifti.image)
    assert other.image.dtype == np.int16
    np.testing.assert_allclose(other.affine, nifti.affine, atol=1e-5)
    (one, sizes, _), (two, others, _) = (as_case_image(i, 2) for i in (nifti, other))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(sizes, others, rtol=1e-6)


def test_a_label_map_is_written_where_its_image_lies(pair, tmp_path):
    stored = read_image(pair[1])
    labels = _pixels() % 3
    palette = [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    target = write_label_map(tmp_path / "out", stored, labels, palette)
    assert target.name == ("b.nrrd" if pair[1].suffix[1] == "n" else "b.mha")
    written = read_label(target)
    np.testing.assert_array_equal(written.image[..., 0], labels)
    assert written.image.dtype == np.uint8
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-9)
    write_map(tmp_path / "out/b.entropy.nii.gz", stored, labels / 2)
    values = nibabel.load(tmp_path / "out/b.entropy.nii.gz")
    np.testing.assert_allclose(values.affine, stored.affine, atol=1e-4)


def test_channels_are_the_last_axis(tmp_path):
    pixels = _pixels((2, 4, 6, 5))  # channels, z, y, x
    for name, image in (
        ("vector", SimpleITK.GetImageFromArray(np.moveaxis(pixels, 0, -1), True)),
        ("axis", SimpleITK.GetImageFromArray(pixels, False)),
    ):
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}.mha"))
        stored = read_image(tmp_path / f"{name}.mha")
        np.testing.assert_array_equal(stored.image, pixels.T)
        np.testing.assert_array_equal(stored.affine, np.diag([-1, -1, 1, 1]))


def test_a_plane_stays_one(tmp_path):
    image = SimpleITK.GetImageFromArray(_pixels((6, 5)))
    image.SetSpacing((0.5, 0.25))
    image.SetOrigin((3, 4))
    image.SetDirection((0, 1, -1, 0))
    for ending in ("nrrd", "nii.gz"):
        SimpleITK.WriteImage(image, str(tmp_path / f"a.{ending}"))
    stored = read_image(tmp_path / "a.nrrd")
    assert stored.image.shape == (5, 6, 1, 1)
    one, two = (
        as_case_image(each, 2) for each in (stored, read_image(tmp_path / "a.nii.gz"))
    )
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1] == two[1]
    labels = (stored.image[..., 0] > 0).astype(np.uint8)
    target = write_label_map(tmp_path / "out", stored, labels, [(0, 0, 0)] * 2)
    written = SimpleITK.ReadImage(str(target))
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(written), labels[..., 0].T
    )
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(written, name)(), getattr(image, name)())


def test_a_damaged_file_is_named(tmp_path):
    image = SimpleITK.GetImageFromArray(_pixels())
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(content[:-50])
    with pytest.raises(InputError, match=r"a\.nrrd: cannot be read \(.+; expected a"):
        read_image(tmp_path / "a.nrrd")
    SimpleITK.WriteImage(image, str(tmp_path / "b.mhd"))
    (tmp_path / "b.raw").unlink()
    with pytest.raises(InputError, match=r"b\.mhd: cannot be read \("):
        read_image(tmp_path / "b.mhd")
    (tmp_path / "a.nrrd").rename(tmp_path / "a.mha")
    with pytest.raises(InputError, match="holds NRRD; expected MetaImage as its name"):
        read_image(tmp_path / "a.mha")


def test_without_simpleitk_the_command_is_named(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match="run `pip install simpleitk`"):
        read_image(pair[1])
