"""run.py reads files as the library does, or refuses them."""

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from unet_jax.data.files.canonical import as_case_image
from unet_jax.data.files.nifti import write_nifti
from unet_jax.data.files.read import read_image

READING = {"orientation": "", "known_spacing": [], "sizes_matter": False}


@pytest.fixture(scope="module")
def run():
    """run.py as a module."""
    from tests.export.test_run import imported_programs

    with imported_programs() as (module, _):
        yield module


def _noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def _png(path, mode):
    alpha = _noise(5, 7, 4)
    alpha[:2, :, 3] = 0
    pictures = {
        "L": Image.fromarray(_noise(5, 7)),
        "RGB": Image.fromarray(_noise(5, 7, 3)),
        "RGBA": Image.fromarray(alpha),
        "LA": Image.fromarray(alpha[..., 2:], "LA"),
        "I;16": Image.fromarray(_noise(5, 7, high=60000, dtype=np.uint16)),
        "P": Image.fromarray(_noise(5, 7, 3)).quantize(5),
        "1": Image.fromarray(_noise(5, 7) > 99),
    }
    pictures[mode].save(path)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16", "P", "1"])
def test_png_files(run, tmp_path, mode):
    path = tmp_path / "a.png"
    _png(path, mode)
    _assert_read(run, path)


def _assert_read(run, path, reading=READING):
    turned = reading["orientation"] != "stored"
    stored = read_image(path, upright=turned)
    expected, spacing, restore = as_case_image(stored, 2, turned=turned)
    image, found, back, _, _ = run.read([str(path)], reading)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == expected.dtype
    assert found == pytest.approx(spacing) if spacing else found is None
    labels = _noise(*expected.shape[:-1], high=3)
    np.testing.assert_array_equal(back(labels), restore(labels))
    return stored, back(labels)


@pytest.mark.parametrize("orientation", ["", "stored"])
def test_a_jpeg_is_turned_upright(run, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_noise(6, 9, 3)).save(tmp_path / "a.jpg", exif=exif)
    _assert_read(run, tmp_path / "a.jpg", READING | {"orientation": orientation})


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (_noise(5, 7), {}),
        (_noise(5, 7, 3), {"photometric": "rgb"}),
        (_noise(5, 7, dtype=np.uint16), {"compression": "deflate"}),
        (_noise(5, 7).astype(np.float32), {}),
    ],
)
def test_tiff_files(run, tmp_path, pixels, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, metadata=None, **options)
    _assert_read(run, path)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (_noise(3, 5, 7), {"photometric": "minisblack"}),
        (_noise(5, 7, 3, dtype=np.uint16), {"photometric": "rgb"}),
        (_noise(5, 7), {"photometric": "miniswhite"}),
        (_noise(5, 7), {"extratags": [(42113, "s", 0, "7", True)]}),
        (_noise(5, 7, dtype=np.int32), {}),
    ],
)
def test_other_tiff_files_are_refused(run, tmp_path, pixels, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, metadata=None, **options)
    with pytest.raises(SystemExit, match=r"expected one picture of 8 bits"):
        run.read([str(path)], READING)


def test_a_tiff_is_refused_where_the_size_of_a_pixel_matters(run, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _noise(5, 7))
    with pytest.raises(SystemExit, match="depend on the size of a pixel"):
        run.read([str(tmp_path / "a.tif")], READING | {"sizes_matter": True})


_AXES = np.array([[0, 0, 2.5, 3], [-1.5, 0.1, 0, 4], [0, 2, 0, 5], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 5, 6), {}),
        ((4, 5, 6), {"slope": 0.5}),
        ((4, 5, 6), {"unit": "micron"}),
        ((4, 5, 6), {"orientation": "stored"}),
        ((4, 5, 1), {}),
        ((4, 5), {}),
        ((4, 5, 6, 2), {}),
        ((4, 5, 6, 1, 2), {}),
    ],
)
def test_nifti_files(run, tmp_path, shape, options):
    path = tmp_path / "a.nii.gz"
    nifti = nibabel.Nifti1Image(_noise(*shape, dtype=np.int16), _AXES)
    nifti.header.set_xyzt_units(options.get("unit", "mm"))
    if "slope" in options:
        nifti.header.set_slope_inter(options["slope"], 3)
    nibabel.save(nifti, path)
    reading = READING | {"orientation": options.get("orientation", "")}
    stored, labels = _assert_read(run, path, reading)
    _, _, _, header, affine = run.read([str(path)], reading)
    run.write(tmp_path / "made.nii.gz", labels, (), header, affine)
    write_nifti(tmp_path / "expected.nii.gz", labels, stored, ())
    made, expected = (
        nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("made", "expected")
    )
    np.testing.assert_array_equal(made.dataobj, expected.dataobj)
    np.testing.assert_array_equal(made.affine, expected.affine)
    assert bytes(made.header.binaryblock) == bytes(expected.header.binaryblock)


@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.nii.gz"])
def test_a_damaged_file_is_refused_in_one_line(run, tmp_path, name):
    (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"cannot be read \(") as caught:
        run.read([str(tmp_path / name)], READING)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_its_command(run):
    with pytest.raises(SystemExit, match="pip install no-such-package"):
        run.needed("no_such_module", "no-such-package")


def test_channels_are_files_of_one_grid(run, tmp_path):
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    for path, shape in zip(paths, [(4, 6), (4, 6), (6, 4)], strict=True):
        Image.fromarray(_noise(*shape)).save(path)
    assert run.read(paths[:2], READING)[0].shape == (4, 6, 2)
    with pytest.raises(SystemExit, match="other sizes"):
        run.read(paths, READING)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN"), (3e38, "expected intensities")]
)
def test_values_that_are_no_intensities_are_refused(run, tmp_path, value, message):
    voxels = np.full((3, 4, 5), value, np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(SystemExit, match=message):
        run.read([str(tmp_path / "a.nii")], READING)


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("a.jpg", "out", "out/a.png"),
        ("a.nii", "out", "out/a.nii.gz"),
        ("a.tif", "out/b.tif", "out/b.tif"),
        ("a.nii.gz", "b.nii", "b.nii"),
    ],
)
def test_the_label_map_has_the_name_that_is_asked_for(run, name, output, expected):
    assert str(run.target_of(name, output)) == expected


def test_a_volume_is_not_written_as_a_picture(run):
    with pytest.raises(SystemExit, match=r"expected a name that ends in \.nii\.gz"):
        run.target_of("a.nii.gz", "b.png")
