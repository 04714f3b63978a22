"""Tests metadata that change the meaning of stored numbers: applied, or refused."""

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from unet_jax.data.files.read import read_image, read_label
from unet_jax.errors import InputError

GREY = np.random.default_rng(0).integers(1, 250, (6, 7), dtype=np.uint8)


def _image(path):
    return read_image(path).image[..., 0]


def _label(path, **options):
    return read_label(path, **options).image[..., 0]


# Planes that are not there.


def _ome(path, planes, named, *, files):
    """Write the first planes of an OME-TIFF whose metadata name further files."""
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{file}">'
        f"urn:uuid:00000000-0000-0000-0000-00000000000{z}</UUID></TiffData>"
        for z, file in enumerate(files)
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
        '2016-06" UUID="urn:uuid:00000000-0000-0000-0000-000000000000"><Image ID="I:0">'
        '<Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint8" SizeX="7" SizeY="6" '
        f'SizeZ="{named}" SizeC="1" SizeT="1"><Channel ID="C:0" SamplesPerPixel="1"/>'
        f"{data}</Pixels></Image></OME>"
    )
    with tifffile.TiffWriter(path, ome=False) as writer:
        for number, plane in enumerate(planes):
            writer.write(
                plane,
                description=xml if number == 0 else None,
                metadata=None,
                contiguous=False,
            )


def test_an_ome_tiff_whose_other_files_are_missing_is_refused(tmp_path):
    files = ["a.ome.tif", "b.ome.tif", "c.ome.tif"]
    _ome(tmp_path / "a.ome.tif", [GREY], 3, files=files)
    _ome(tmp_path / "b.ome.tif", [GREY], 3, files=files)
    with pytest.raises(InputError, match=r"a\.ome\.tif: 1 of 3 planes .* in c\.ome\.t"):
        read_image(tmp_path / "a.ome.tif")
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(InputError, match=r"2 of 3 planes .* in b\.ome\.tif, c\.ome\."):
        read_label(tmp_path / "a.ome.tif")


def test_an_ome_tiff_in_several_files_is_read_whole(tmp_path):
    files = ["a.ome.tif", "b.ome.tif"]
    _ome(tmp_path / "a.ome.tif", [GREY], 2, files=files)
    _ome(tmp_path / "b.ome.tif", [GREY + 1], 2, files=files)
    np.testing.assert_array_equal(_image(tmp_path / "a.ome.tif"), [GREY, GREY + 1])


@pytest.mark.parametrize("dialect", ["ome", "imagej"])
def test_fewer_planes_than_the_metadata_state(tmp_path, dialect):
    path = tmp_path / "a.ome.tif"
    stack = np.stack([GREY] * 4)
    tifffile.imwrite(path, stack, **{dialect: True}, metadata={"axes": "ZYX"})
    content = path.read_bytes()
    for text in (b'SizeZ="%d"', b"images=%d", b"slices=%d"):
        content = content.replace(text % 4, text % 8)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"planes .*expected every plane.*export it"):
        read_image(path)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_renamed_ome_tiff_is_read_if_it_has_all_planes(tmp_path, channels):
    planes = "".join(
        f'<TiffData FirstC="{c}" IFD="0"><UUID FileName="old_c{c}.ome.tif">urn:uuid:'
        f"00000000-0000-0000-0000-00000000000{c}</UUID></TiffData>"
        for c in range(channels)
    )
    metadata = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
        'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        f'SizeX="{GREY.shape[1]}" SizeY="{GREY.shape[0]}" SizeZ="1" '
        f'SizeC="{channels}" SizeT="1">{planes}</Pixels></Image></OME>'
    )
    path = tmp_path / "new.ome.tif"
    tifffile.imwrite(path, GREY, description=metadata, metadata=None)
    if channels == 1:
        assert (read_image(path).image[..., 0] == GREY).all()
        return
    with pytest.raises(InputError, match=r"1 of 2 planes are missing.*old_c1\.ome"):
        read_image(path)


# Photometric and compression.


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_in_a_tiff_is_read_as_rgb(tmp_path, subsampling):
    colors = np.zeros((32, 48, 3), np.uint8)
    colors[:] = (200, 90, 30)
    colors[:, 16:] = (20, 40, 220)
    tifffile.imwrite(
        tmp_path / "a.tif",
        colors,
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 95},
        subsampling=subsampling,
        tile=(32, 48),
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].photometric.name == "YCBCR"
    image = read_image(tmp_path / "a.tif").image
    apart = np.r_[:12, 20:48]  # a coarser grid of colours blurs their border
    np.testing.assert_allclose(image[:, apart].astype(int), colors[:, apart], atol=8)


def test_ycbcr_that_nothing_decodes_is_refused(tmp_path):
    colors = np.zeros((8, 8, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="ycbcr")
    with pytest.raises(InputError, match=r"colours are YCBCR with the compression NON"):
        read_image(tmp_path / "a.tif")


def test_a_mask_that_jpeg_blurred_inside_a_tiff_is_refused(tmp_path):
    mask = (np.add.outer(np.arange(32), np.arange(32)) > 30).astype(np.uint8) * 200
    options = {"compression": "jpeg", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", mask, **options)
    with pytest.raises(InputError, match=r"at most 2 in a TIFF compressed as JPEG"):
        read_label(tmp_path / "a.tif")


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_white_is_zero_is_inverted(tmp_path, dtype, white):
    pixels = GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(_image(tmp_path / "a.tif"), white - pixels)
    mask = (pixels > 99).astype(dtype) * dtype(white)
    tifffile.imwrite(tmp_path / "m.tif", mask, photometric="miniswhite")
    np.testing.assert_array_equal(_label(tmp_path / "m.tif"), white - mask)


def test_one_bit_is_read_as_shown_unless_tifffile_wrote_an_array(tmp_path):
    mask = GREY > 99
    for name, software, expected in (
        ("array.tif", "tifffile.py", mask),
        ("fax.tif", "libtiff", ~mask),
    ):
        options = {"photometric": "miniswhite", "software": software}
        tifffile.imwrite(tmp_path / name, mask, **options)
        np.testing.assert_array_equal(_label(tmp_path / name), expected)
        np.testing.assert_array_equal(_image(tmp_path / name), expected * 255)


def test_white_is_zero_with_two_readings_is_refused(tmp_path):
    classes = GREY % 3
    tifffile.imwrite(tmp_path / "m.tif", classes, photometric="miniswhite")
    with pytest.raises(InputError, match=r"0, 1, 2 show as 255, 254, 253.*data\.pale"):
        read_label(tmp_path / "m.tif")
    shown = [(255 - index,) * 3 for index in range(3)]
    with pytest.raises(InputError) as info:
        read_label(tmp_path / "m.tif")
    assert f"'{tuple(shown)}' for the stored order" in str(info.value)
    assert f"'{tuple(shown[::-1])}' for the shown one" in str(info.value)
    np.testing.assert_array_equal(_label(tmp_path / "m.tif", palette=shown), classes)
    floats = GREY.astype(np.float32)
    tifffile.imwrite(tmp_path / "f.tif", floats, photometric="miniswhite")
    with pytest.raises(InputError, match=r"WhiteIsZero with float32 values.*BlackIsZe"):
        read_image(tmp_path / "f.tif")


# Alpha.


def test_colours_that_alpha_hides_are_not_read(tmp_path):
    colors = np.dstack([GREY, GREY, GREY, GREY]).copy()
    colors[:2, :, 3] = 0
    colors[2:, :, 3] = 90
    Image.fromarray(colors).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="rgb")
    expected = np.where(np.arange(6)[:, None] < 2, 0, GREY)
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(_image(tmp_path / name), expected)
    colors[..., 3] = 0  # an alpha that is 0 everywhere is unused
    Image.fromarray(colors).save(tmp_path / "b.png")
    np.testing.assert_array_equal(_image(tmp_path / "b.png"), GREY)


@pytest.mark.parametrize("value", [0, 200])
def test_a_mask_drawn_in_alpha_is_refused(tmp_path, value):
    mask = np.full((6, 7, 4), value, np.uint8)
    mask[..., 3] = (GREY > 99) * 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    text = rf"m\.png: the value \({value}, {value}, {value}\) is visible .*transparent"
    with pytest.raises(InputError, match=text):
        read_label(tmp_path / "m.png")


# The scale of a NIfTI.


def _scaled(path, values, slope, inter=0.0):
    """Store whole numbers as the nearest steps of a scale."""
    stored = np.rint((values - inter) / slope).clip(-32768, 32767).astype(np.int16)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)


@pytest.mark.parametrize(
    ("slope", "inter"), [(3 / 65535, 1.5), (4 / 255, 0.0), (1.0, -2.0), (0.50001, 0.0)]
)
def test_classes_stored_on_a_scale_are_whole(tmp_path, slope, inter):
    classes = np.arange(24).reshape(2, 3, 4) % 4
    _scaled(tmp_path / "m.nii", classes, slope, inter)
    np.testing.assert_array_equal(_label(tmp_path / "m.nii"), classes)


@pytest.mark.parametrize(("slope", "values"), [(0.01, (0.0, 1.3)), (0.45, (0.0, 0.9))])
def test_a_scale_of_other_numbers_is_refused(tmp_path, slope, values):
    _scaled(tmp_path / "m.nii", np.array(values).reshape(1, 1, 2), slope)
    with pytest.raises(
        InputError, match=rf"no whole numbers.*scl_slope 1 in .*{slope}"
    ):
        read_label(tmp_path / "m.nii")


def test_values_of_1e38_are_no_intensities(tmp_path):
    pixels = GREY.astype(np.float32)
    pixels[0] = np.finfo(np.float32).min
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    nibabel.save(nibabel.Nifti1Image(-pixels[..., None], np.eye(4)), tmp_path / "a.nii")
    for name in ("a.tif", "a.nii"):
        with pytest.raises(InputError, match=r"7 of 42 values are -?3\.40282e\+38"):
            read_image(tmp_path / name)


# Missing pixels.


def _declared(path, pixels, nodata, **options):
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(path, pixels, extratags=[(42113, "s", 0, nodata, True)], **options)


def test_integers_are_missing_where_all_channels_are(tmp_path):
    pixels = np.dstack([GREY] * 3).copy()
    pixels[0] = 0
    pixels[3, :, 1] = 0
    _declared(tmp_path / "a.tif", pixels, "0", photometric="rgb")
    stored = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.missing, np.arange(6)[:, None] < [1] * 7)
    np.testing.assert_array_equal(stored.image[1:], pixels[1:])
    np.testing.assert_array_equal(stored.image[0, 0], np.rint(pixels[1:].mean((0, 1))))


@pytest.mark.parametrize("nodata", ["-9999", "nan", "0.5", "none", "inf"])
def test_a_nodata_value_that_no_pixel_can_have_means_nothing(tmp_path, nodata):
    _declared(tmp_path / "a.tif", GREY, nodata)
    stored = read_image(tmp_path / "a.tif")
    assert stored.missing is None
    np.testing.assert_array_equal(stored.image[..., 0], GREY)


def test_a_mask_of_floats_is_missing_where_no_class_can_be(tmp_path):
    mask = (GREY > 99).astype(np.float32)
    mask[2] = -3.4028235e38
    _declared(tmp_path / "m.tif", mask, "-3.4028235e+38")
    stored = read_label(tmp_path / "m.tif")
    np.testing.assert_array_equal(stored.missing, mask < 0)
    np.testing.assert_array_equal(stored.image[..., 0], np.where(mask < 0, 0, mask))


def test_the_scale_and_offset_of_gdal_are_applied_to_images(tmp_path):
    xml = (
        '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.5</Item>'
        '<Item name="OFFSET" sample="0" role="offset">-3</Item><Item name="a">b</Item>'
        "</GDALMetadata>"
    )
    pixels = GREY.copy()
    pixels[0] = 0
    tags = [(42112, "s", 0, xml, True), (42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=tags)
    stored = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.missing[:2], [[True] * 7, [False] * 7])
    assert stored.image.dtype == np.float32
    np.testing.assert_array_equal(stored.image[1:, :, 0], GREY[1:] * 0.5 - 3)
    np.testing.assert_array_equal(_label(tmp_path / "a.tif"), pixels)


def test_a_transparency_mask_in_a_tiff_declares_missing_pixels(tmp_path):
    valid = np.arange(6)[:, None] + np.zeros(7) > 1
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        options = {"metadata": None, "photometric": "minisblack"}
        writer.write(GREY, **options)
        writer.write(valid, subfiletype=4, **options)
    stored = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.missing, ~valid)
    np.testing.assert_array_equal(stored.image[2:, :, 0], GREY[2:])
    np.testing.assert_array_equal(_label(tmp_path / "a.tif"), GREY)


def test_a_part_of_an_ome_tiff_names_the_file_of_its_metadata(tmp_path):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:00000000-0000-'
        '0000-0000-000000000000"/></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=False) as writer:
        writer.write(GREY, description=xml, metadata=None)
    with pytest.raises(InputError, match=r"metadata lie in set\.companion\.ome; exp"):
        read_image(tmp_path / "a.ome.tif")


def test_a_pyramid_is_read_at_full_size(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for level in range(3):
            pixels = np.full((64 >> level, 64 >> level, 3), level, np.uint8)
            options = {"photometric": "rgb", "tile": (16, 16), "metadata": None}
            writer.write(pixels, subfiletype=int(level > 0), **options)
    image = read_image(tmp_path / "a.tif").image
    assert image.shape == (64, 64, 3)
    assert not image.any()
