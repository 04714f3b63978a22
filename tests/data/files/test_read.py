import csv
import os
import struct
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps

from unet_jax.data.files import nifti
from unet_jax.data.files.formats import output_name
from unet_jax.data.files.label_table import label_statistics, mean_by_class, write_csv
from unet_jax.data.files.read import check_finite, list_images, read_image, read_label
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.files.write import write_label_map
from unet_jax.errors import InputError

PALETTE = [(0, 0, 0), (200, 10, 20), (30, 220, 40), (50, 60, 240)]
AFFINE = np.array(
    [[-0.9, 0.1, 0, 40], [0.1, 0.2, 2.5, -9], [0, -1.2, 0.3, 7], [0, 0, 0, 1]]
)


_SCALE = (
    '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.5</Item></GDALMetadata>'
)


def _random(*shape, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(1).integers(0, top, shape, dtype=dtype, endpoint=True)


def _deep_png(path, pixels):
    """Write a 16-bit PNG of 1 to 4 channels, which Pillow cannot."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[-1]]
    rows = [row.astype(">u2").tobytes() for row in pixels]
    _write_png(path, rows, width=pixels.shape[1], bits=16, kind=kind)


def _write_png(path, rows, *, width, bits, kind):
    """Write packed rows as a PNG."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    data = b"\x89PNG\r\n\x1a\n"
    for name, part in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + part))
        data += struct.pack(">I", len(part)) + name + part + check
    path.write_bytes(data)


def _packed(row, bits):
    """Pack values of few bits into bytes, the first in the highest bits."""
    return np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes()


def _outcome(path):
    """Return the image, or None and the one error that is allowed."""
    try:
        return read_image(path).image, ""
    except InputError as error:
        return None, str(error)


def _nifti(path, values, affine=AFFINE, **header):
    image = nibabel.Nifti1Image(values, affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


# Pictures.


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.PNG"])
def test_lossless_picture_is_exact(tmp_path, name):
    pixels = _random(7, 9, 3)
    Image.fromarray(pixels).save(tmp_path / name)
    stored = read_image(str(tmp_path / name))
    np.testing.assert_array_equal(stored.image, pixels)
    assert stored.image.dtype == np.uint8
    assert (stored.kind, stored.affine, stored.spacing) == ("picture", None, None)
    assert stored.path == tmp_path / name


def test_grey_and_one_bit_pictures_have_one_channel(tmp_path):
    grey = _random(5, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey > 99).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png").image[..., 0], grey)
    bit = read_image(tmp_path / "bit.png").image
    assert bit.dtype == np.uint8
    np.testing.assert_array_equal(bit[..., 0], np.where(grey > 99, 255, 0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_all_bits_and_drops_alpha(tmp_path, channels):
    pixels = _random(5, 7, channels, dtype=np.uint16)
    _deep_png(tmp_path / "deep.png", pixels)
    image = read_image(tmp_path / "deep.png").image
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, pixels[..., : 1 if channels < 3 else 3])


def test_alpha_is_dropped_without_blending(tmp_path):
    pixels = _random(5, 7, 4)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[..., :2].copy(), "LA").save(tmp_path / "la.png")
    rgb, grey = (read_image(tmp_path / name).image for name in ("rgba.png", "la.png"))
    np.testing.assert_array_equal(rgb, pixels[..., :3])
    np.testing.assert_array_equal(grey, pixels[..., :1])


@pytest.mark.parametrize("transparency", [None, bytes([0, 255, 128, 255])])
def test_palette_becomes_rgb(tmp_path, transparency):
    indices = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
    picture = Image.frombytes("P", (3, 2), indices.tobytes())
    picture.putpalette([part for color in PALETTE for part in color])
    extra = {} if transparency is None else {"transparency": transparency}
    picture.save(tmp_path / "p.png", **extra)
    image = read_image(tmp_path / "p.png").image
    np.testing.assert_array_equal(image, np.array(PALETTE, np.uint8)[indices])


def test_jpeg_rgb_and_cmyk(tmp_path):
    pixels = np.zeros((32, 40, 3), np.uint8)
    pixels[:] = (200, 90, 30)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "b.JPEG", quality=95)
    for name in ("a.jpg", "b.JPEG"):
        image = read_image(tmp_path / name).image
        assert image.shape == pixels.shape
        np.testing.assert_allclose(image.astype(int), pixels, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    pixels = _random(5, 8, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    image = read_image(tmp_path / "turned.png").image
    np.testing.assert_array_equal(image, expected)
    assert image.flags.c_contiguous


# TIFF.


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_keeps_the_dtype_in_native_order(tmp_path, dtype, byteorder):
    pixels = (_random(6, 7) / 2).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="minisblack", byteorder=byteorder
    )
    stored = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.image, pixels[..., None])
    assert stored.image.dtype == dtype
    assert stored.image.dtype.isnative
    assert (stored.kind, stored.spacing, stored.affine) == ("tiff", None, None)


def test_tiff_channel_axes_go_last(tmp_path):
    rgba = _random(6, 7, 4)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb")
    planar = _random(3, 6, 7)
    tifffile.imwrite(
        tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate"
    )
    stack = _random(5, 2, 6, 7)
    tifffile.imwrite(tmp_path / "zc.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    read = {name: read_image(tmp_path / f"{name}.tif").image for name in
            ("rgba", "planar", "zc")}  # fmt: skip
    np.testing.assert_array_equal(read["rgba"], rgba[..., :3])
    np.testing.assert_array_equal(read["planar"], np.moveaxis(planar, 0, -1))
    np.testing.assert_array_equal(read["zc"], np.moveaxis(stack, 1, -1))


def test_tiff_plain_pages_are_a_stack(tmp_path):
    pixels = _random(3, 6, 7)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in pixels:
            writer.write(
                page, photometric="minisblack", metadata=None, contiguous=False
            )
    tifffile.imwrite(tmp_path / "shaped.tif", pixels, photometric="minisblack")
    for name in ("pages.tif", "shaped.tif"):
        image = read_image(tmp_path / name).image
        np.testing.assert_array_equal(image, pixels[..., None])


def test_tiff_palette_and_one_bit(tmp_path):
    indices = _random(6, 7) % 4
    table = np.zeros((3, 256), np.uint16)
    table[:, :4] = np.array(PALETTE).T * 257
    tifffile.imwrite(tmp_path / "p.tif", indices, photometric="palette", colormap=table)
    tifffile.imwrite(tmp_path / "bit.tif", indices > 1)
    rgb, bit = (read_image(tmp_path / name).image for name in ("p.tif", "bit.tif"))
    np.testing.assert_array_equal(rgb, np.array(PALETTE, np.uint8)[indices])
    np.testing.assert_array_equal(bit[..., 0], np.where(indices > 1, 255, 0))


def test_tiff_spacing_in_millimetres(tmp_path):
    stack, plane = _random(3, 6, 7), _random(6, 7)
    tifffile.imwrite(
        tmp_path / "stack.tif",
        stack,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 3.0},
    )
    assert read_image(tmp_path / "stack.tif").spacing == pytest.approx(
        (3e-3, 0.5e-3, 0.25e-3)
    )
    tifffile.imwrite(
        tmp_path / "plane.tif", plane, imagej=True, resolution=(100, 50),
        metadata={"unit": "cm"},
    )  # fmt: skip
    assert read_image(tmp_path / "plane.tif").spacing == pytest.approx((0.2, 0.1))


@pytest.mark.parametrize("unit", ["INCH", "CENTIMETER"])
@pytest.mark.parametrize("dpi", [180, 240, 300])
def test_a_printing_resolution_is_no_pixel_size(tmp_path, unit, dpi):
    options = {"resolution": (dpi, dpi), "resolutionunit": unit}
    tifffile.imwrite(tmp_path / "a.tif", _random(6, 7, 3), **options)
    assert read_image(tmp_path / "a.tif").spacing is None


def test_the_unit_inch_of_imagej_is_a_copied_printing_resolution(tmp_path):
    options = {"resolution": (240, 240), "metadata": {"unit": "inch"}}
    tifffile.imwrite(tmp_path / "a.tif", _random(6, 7), imagej=True, **options)
    assert read_image(tmp_path / "a.tif").spacing is None


def test_tiff_orientation_turns_pixels_and_spacing(tmp_path):
    pixels = _random(6, 7)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        imagej=True,
        resolution=(100, 50),
        metadata={"unit": "cm"},
        extratags=[(274, "H", 1, 6, True)],
    )
    stored = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stored.image[..., 0], np.rot90(pixels, -1))
    assert stored.spacing == pytest.approx((0.1, 0.2))


def test_tiff_that_is_not_one_image_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(_random(6, 7))
        writer.write(_random(3, 4))
    with pytest.raises(InputError, match=r"two\.tif: holds 2 images of shapes"):
        read_image(tmp_path / "two.tif")
    tifffile.imwrite(
        tmp_path / "time.tif", _random(4, 6, 7), imagej=True, metadata={"axes": "TYX"}
    )
    with pytest.raises(InputError, match=r"time\.tif: axes TYX of shape \(4, 6, 7\)"):
        read_image(tmp_path / "time.tif")
    tifffile.imwrite(tmp_path / "ink.tif", _random(6, 7, 4), photometric="separated")
    with pytest.raises(InputError, match=r"ink\.tif: colours are SEPARATED"):
        read_image(tmp_path / "ink.tif")


# NIfTI.


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.float32])
def test_nifti_is_as_stored(tmp_path, name, dtype):
    values = _random(4, 5, 6).astype(dtype)
    stored = read_image(_nifti(tmp_path / name, values))
    np.testing.assert_array_equal(stored.image, values[..., None])
    assert stored.image.dtype == np.dtype(dtype).newbyteorder("=")
    assert stored.kind == "volume"
    np.testing.assert_allclose(stored.affine, AFFINE, atol=1e-6)
    lengths = np.sqrt((AFFINE[:3, :3] ** 2).sum(0))
    assert stored.spacing == pytest.approx(tuple(lengths), rel=1e-6)


def test_nifti_scale_is_applied_unless_identity(tmp_path):
    values = _random(4, 5, 6).astype(np.int16)
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_slope_inter(0.5, -3.0)
    nibabel.save(image, tmp_path / "scaled.nii")
    stored = read_image(tmp_path / "scaled.nii").image
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored[..., 0], values * 0.5 - 3)
    _nifti(tmp_path / "plain.nii", values, scl_slope=1, scl_inter=0)
    assert read_image(tmp_path / "plain.nii").image.dtype == np.int16


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_nifti_is_read_by_slabs(tmp_path, name, slope, monkeypatch):
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 2**12)
    values = _random(100, 90, 80, 1).astype(np.int16)
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_slope_inter(slope, 0)
    nibabel.save(image, tmp_path / name)
    expected = np.asarray(nibabel.load(tmp_path / name).dataobj)
    tracemalloc.start()
    found = read_image(tmp_path / name).image
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    assert found.flags.c_contiguous
    assert found.nbytes < peak < 1.5 * found.nbytes


def test_nifti_shapes(tmp_path):
    four = _random(4, 5, 6, 2)
    shapes = {
        "thin": (_random(4, 5, 1), (4, 5, 1, 1)),
        "plane": (_random(4, 5), (4, 5, 1, 1)),
        "four": (four, (4, 5, 6, 2)),
        "vector": (four[:, :, :, None], (4, 5, 6, 2)),
    }
    for name, (values, shape) in shapes.items():
        image = read_image(_nifti(tmp_path / f"{name}.nii", values)).image
        np.testing.assert_array_equal(image, values.reshape(shape))
    five = _nifti(tmp_path / "five.nii", _random(4, 5, 6, 3, 2))
    with pytest.raises(InputError, match=r"shape \(4, 5, 6, 3, 2\); expected \(x, y"):
        read_image(five)


def test_nifti_colours_are_channels(tmp_path):
    rgb = _random(4, 5, 6, 3)
    records = rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    image = read_image(_nifti(tmp_path / "rgb.nii.gz", records)).image
    np.testing.assert_array_equal(image, rgb)


def test_nifti_micrometres_become_millimetres(tmp_path):
    path = _nifti(tmp_path / "a.nii", _random(4, 5, 6), np.diag([5, 6, 7, 1.0]))
    image = nibabel.load(path)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "b.nii")
    stored = read_image(tmp_path / "b.nii")
    assert stored.spacing == pytest.approx((5e-3, 6e-3, 7e-3))
    np.testing.assert_allclose(stored.affine, np.diag([5e-3, 6e-3, 7e-3, 1]))


def test_nifti_without_directions_is_refused(tmp_path):
    path = _nifti(tmp_path / "flat.nii", _random(4, 5, 6))
    content = bytearray(path.read_bytes())
    content[312:328] = bytes(16)  # srow_z
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"flat\.nii: affine .* cannot be inverted"):
        read_image(path)


# What is refused.


@pytest.mark.parametrize("name", ["a.tif", "a.nii.gz"])
def test_values_that_are_not_finite(tmp_path, name):
    values = np.zeros((4, 5, 6), np.float32)
    values[0, 0, :2] = np.nan
    values[1, 2, 3] = -np.inf
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack")
    else:
        _nifti(tmp_path / name, values)
    found = r"3 of 120 values are NaN or infinite; expected finite.*nan_to_num"
    with pytest.raises(InputError, match=f"{name}: {found}"):
        read_image(tmp_path / name)


def test_check_finite_accepts_integers_and_finite_floats():
    check_finite(np.arange(3), name="a")
    check_finite(np.array([1e30, -1.5]), name="a")


def test_complex_values_are_refused(tmp_path):
    path = _nifti(tmp_path / "c.nii", np.ones((2, 3, 4), np.complex64))
    with pytest.raises(
        InputError, match=r"c\.nii: pixels are complex64; expected real"
    ):
        read_image(path)


def test_wrong_content_is_named(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    cases = {
        "b.png": (
            (tmp_path / "a.jpg").read_bytes(),
            "holds JPEG; expected PNG.*rename",
        ),
        "c.nii.gz": (
            (tmp_path / "a.jpg").read_bytes(),
            "holds JPEG; expected gzip-com",
        ),
        "d.tif": (b"<!DOCTYPE html>", r"holds unknown content \(it starts with b'<!DO"),
        "e.bmp": (b"", r"is empty \(0 bytes\); expected BMP"),
    }
    for name, (content, text) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: {text}"):
            read_image(tmp_path / name)
    _nifti(tmp_path / "f.nii", _random(2, 3, 4))
    os.rename(tmp_path / "f.nii", tmp_path / "f.nii.gz")
    text = "holds NIfTI; expected gzip-compressed NIfTI as its name says; rename"
    with pytest.raises(InputError, match=text):
        read_image(tmp_path / "f.nii.gz")


def test_missing_folder_and_unknown_suffix(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: is a folder; expected a PNG"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(InputError, match=r"no\.tif: no such file"):
        read_image(tmp_path / "no.tif")
    with pytest.raises(
        InputError, match=r"unknown suffix '\.webp'; expected one of \.p"
    ):
        read_image(tmp_path / "a.webp")


@pytest.mark.parametrize("compression", ["lzw", "zstd", "deflate", "packbits"])
def test_compressed_tiff_stacks(tmp_path, compression):
    stack = _random(3, 8, 9).astype(np.uint16) * 200
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        compression=compression,
        photometric="minisblack",
        metadata={"axes": "ZYX"},
    )
    stored = read_image(tmp_path / "a.tif").image
    np.testing.assert_array_equal(stored[..., 0], stack)


def test_a_picture_too_large_for_pillow_says_so(tmp_path, monkeypatch):
    Image.fromarray(_random(9, 9)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(InputError, match=r"a\.png: .*81 pixels.*of this size as TIFF"):
        read_image(tmp_path / "a.png")


def _whole_files(folder):
    pixels, stack = _random(16, 17, 3), _random(5, 16, 17).astype(np.uint16)
    for name in ("a.png", "a.jpg", "a.bmp"):
        Image.fromarray(pixels).save(folder / name)
    _deep_png(folder / "deep.png", pixels.astype(np.uint16) * 257)
    tifffile.imwrite(folder / "plain.tif", stack, photometric="minisblack")
    tifffile.imwrite(
        folder / "zlib.tif", stack, photometric="minisblack", compression="zlib"
    )
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True)
    with tifffile.TiffWriter(folder / "pages.tif") as writer:
        for page in stack:
            writer.write(
                page, photometric="minisblack", metadata=None, contiguous=False
            )
    white = {"photometric": "miniswhite", "imagej": False}
    tifffile.imwrite(folder / "white.tif", stack, **white)
    tifffile.imwrite(folder / "ome.tif", stack, ome=True, metadata={"axes": "ZYX"})
    tags = [(42112, "s", 0, _SCALE, True), (42113, "s", 0, "7", True)]
    gdal = {"photometric": "minisblack", "extratags": tags}
    tifffile.imwrite(folder / "gdal.tif", stack[0] % 9, **gdal)
    _nifti(folder / "a.nii", stack)
    _nifti(folder / "a.nii.gz", stack)
    return sorted(folder.iterdir())


def test_a_truncated_file_is_refused_or_read_whole(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    for path in _whole_files(tmp_path / "whole"):
        expected, content = read_image(path).image, path.read_bytes()
        refused = 0
        for part in range(10):
            cut = tmp_path / "cut" / path.name
            cut.write_bytes(content[: len(content) * part // 10])
            image, message = _outcome(cut)
            if image is None:
                assert message.startswith(f"{cut}: ")
                assert "\n" not in message
                refused += 1
            else:
                np.testing.assert_array_equal(image, expected)
        assert refused >= 7, path.name


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    (tmp_path / "whole").mkdir()
    random = np.random.default_rng(3)
    for path in _whole_files(tmp_path / "whole"):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(10):
            damaged = content.copy()
            damaged[random.integers(0, min(len(content), 400), 3)] ^= 255
            (tmp_path / path.name).write_bytes(damaged.tobytes())
            image, message = _outcome(tmp_path / path.name)
            if image is None:
                assert message.startswith(f"{tmp_path / path.name}: ")
            else:
                assert image.dtype.kind in "uif"


# Folders.


def test_list_images_is_sorted_and_not_recursive(tmp_path):
    names = ["b.tif", "a.PNG", "c.nii.gz", "notes.txt", ".hidden.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.png").write_bytes(b"x")
    assert [file.name for file in list_images(tmp_path)] == [
        "a.PNG",
        "b.tif",
        "c.nii.gz",
    ]
    assert list_images(tmp_path / "b.tif") == [tmp_path / "b.tif"]


def test_list_images_refuses(tmp_path):
    with pytest.raises(InputError, match=r"gone: no such file or folder"):
        list_images(tmp_path / "gone")
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"no image among 1 files; expected one of \.pn"
    ):
        list_images(tmp_path)
    with pytest.raises(InputError, match=r"unknown suffix '\.txt'.*\.nii\.gz"):
        list_images(tmp_path / "a.txt")
    (tmp_path / "p.jpg").write_bytes(b"x")
    (tmp_path / "p.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"p\.jpg and p\.png would both be .* p\.png"):
        list_images(tmp_path)


# Label maps.


def test_picture_gives_a_palette_png(tmp_path):
    Image.fromarray(_random(5, 7, 3)).save(tmp_path / "a.jpg")
    stored = read_image(tmp_path / "a.jpg")
    labels = _random(5, 7).astype(np.int32) % 4
    path = write_label_map(tmp_path / "new" / "out", stored, labels, PALETTE)
    assert path == tmp_path / "new" / "out" / "a.png"
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
        colors = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(colors, np.array(PALETTE, np.uint8)[labels])
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_picture_holds_256_classes(tmp_path):
    Image.fromarray(_random(16, 16)).save(tmp_path / "a.png")
    labels = np.arange(256).reshape(16, 16)
    palette = [(index, 255 - index, 7) for index in range(256)]
    stored = read_image(tmp_path / "a.png")
    path = write_label_map(tmp_path / "out", stored, labels, palette)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), labels)


@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7), (4, 6, 7)])
@pytest.mark.parametrize("spacing", [None, (2.0, 0.5, 0.25)])
@pytest.mark.parametrize("classes", [4, 300])
def test_tiff_gives_a_tiff_of_the_same_axes(tmp_path, shape, spacing, classes):
    options = {"photometric": "minisblack"}
    if spacing:
        options = {
            "imagej": True,
            "resolution": (4, 2),
            "metadata": {"axes": "ZYX"[-len(shape) :], "unit": "mm", "spacing": 2.0},
        }
    tifffile.imwrite(tmp_path / "a.tiff", _random(*shape), **options)
    stored = read_image(tmp_path / "a.tiff")
    labels = np.arange(np.prod(shape)).reshape(shape) % classes
    palette = [(0, 0, 0)] * classes
    again = read_image(write_label_map(tmp_path / "out", stored, labels, palette))
    np.testing.assert_array_equal(again.image[..., 0], labels)
    assert again.image.dtype == (np.uint8 if labels.max() < 256 else np.uint16)
    assert again.path.name == "a.tiff"
    expected = spacing and spacing[-len(shape) :]
    assert again.spacing == (expected and pytest.approx(expected))


def test_nifti_gives_a_nifti_of_the_same_space(tmp_path):
    image = nibabel.Nifti1Image(_random(4, 5, 6, 2).astype(np.int16), AFFINE)
    image.header.set_sform(AFFINE, 4)
    image.header.set_qform(np.diag([-1, 2, 3, 1.0]), 2)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2, 1)
    image.header["cal_max"] = 900
    nibabel.save(image, tmp_path / "scan.nii")
    labels = _random(4, 5, 6) % 4
    stored = read_image(tmp_path / "scan.nii")
    path = write_label_map(tmp_path / "out", stored, labels, PALETTE)
    assert path.name == "scan.nii.gz"
    written, source = nibabel.load(path), nibabel.load(tmp_path / "scan.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert np.asarray(written.dataobj).dtype == np.uint8
    np.testing.assert_array_equal(written.affine, source.affine)
    for key in ("sform_code", "qform_code", "xyzt_units", "srow_x", "quatern_b"):
        np.testing.assert_array_equal(written.header[key], source.header[key])
    np.testing.assert_array_equal(written.get_qform(), source.get_qform())
    assert written.header["cal_max"] == 0


def test_volume_without_a_header_keeps_its_affine(tmp_path):
    image = _random(4, 5, 6, 1)
    stored = StoredImage(tmp_path / "case7.nii.gz", image, AFFINE, (1, 1, 1), "volume")
    path = write_label_map(tmp_path / "out", stored, image[..., 0] % 4, PALETTE)
    again = read_image(path)
    np.testing.assert_array_equal(again.image, image % 4)
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-6)
    assert again.header.get_xyzt_units()[0] == "mm"


def test_micrometres_stay_micrometres(tmp_path):
    image = nibabel.Nifti1Image(_random(4, 5, 6), np.diag([5, 6, 7, 1.0]))
    image.header.set_xyzt_units("micron")
    image.header.set_qform(image.affine, 1)
    nibabel.save(image, tmp_path / "a.nii")
    stored = read_image(tmp_path / "a.nii")
    path = write_label_map(tmp_path / "out", stored, _random(4, 5, 6) % 4, PALETTE)
    written = nibabel.load(path)
    np.testing.assert_array_equal(written.affine, np.diag([5, 6, 7, 1]))
    assert written.header.get_xyzt_units()[0] == "micron"
    assert written.header["qform_code"] == 1


def test_equal_label_maps_are_equal_bytes(tmp_path):
    stored = read_image(_nifti(tmp_path / "scan.nii.gz", _random(4, 5, 6)))
    labels = _random(4, 5, 6) % 4
    one = write_label_map(tmp_path / "one", stored, labels, PALETTE)
    two = write_label_map(tmp_path / "two", stored, labels, PALETTE)
    assert one.read_bytes() == two.read_bytes()


def test_nothing_beside_the_input_is_overwritten(tmp_path):
    Image.fromarray(_random(5, 7, 3)).save(tmp_path / "a.png")
    Image.fromarray(_random(5, 7, 3)).save(tmp_path / "b.jpg")
    (tmp_path / "b.png").write_bytes(b"a mask drawn by hand")
    (tmp_path / "link").symlink_to(tmp_path)
    labels = np.zeros((5, 7), np.uint8)
    before = (tmp_path / "a.png").read_bytes()
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match=r"a\.png: is the input image"):
            write_label_map(folder, read_image(tmp_path / "a.png"), labels, PALETTE)
    with pytest.raises(InputError, match=r"b\.png: exists next to its image b\.jpg"):
        write_label_map(tmp_path, read_image(tmp_path / "b.jpg"), labels, PALETTE)
    assert (tmp_path / "a.png").read_bytes() == before
    assert (tmp_path / "b.png").read_bytes() == b"a mask drawn by hand"
    with pytest.raises(InputError, match=r"b\.png: cannot be created .*another"):
        write_label_map(
            tmp_path / "b.png", read_image(tmp_path / "b.jpg"), labels, PALETTE
        )


def test_a_rerun_replaces_its_own_label_map(tmp_path):
    Image.fromarray(_random(5, 7, 3)).save(tmp_path / "a.png")
    stored = read_image(tmp_path / "a.png")
    for label in (1, 2):
        labels = np.full((5, 7), label)
        path = write_label_map(tmp_path / "out", stored, labels, PALETTE)
    with Image.open(path) as picture:
        assert np.unique(np.asarray(picture)).tolist() == [2]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.zeros((5, 6), np.uint8), "Labels of shape"),
        (np.zeros((5, 7)), "must be integers"),
        (np.full((5, 7), 4), r"4\.\.4 are outside the 4 classes"),
        (np.full((5, 7), -1), "outside the 4 classes"),
    ],
)
def test_labels_that_do_not_fit_are_a_bug(tmp_path, labels, text):
    Image.fromarray(_random(5, 7, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=text):
        write_label_map(
            tmp_path / "out", read_image(tmp_path / "a.png"), labels, PALETTE
        )


def test_output_names():
    assert output_name("x/photo.v2.JPG") == "photo.v2.png"
    assert output_name("scan.nii") == "scan.nii.gz"
    assert output_name("scan.NII.gz") == "scan.nii.gz"
    assert output_name("cells.TIF") == "cells.tif"


# Tables.


def test_statistics_have_units_only_where_known(tmp_path):
    names = ("background", "cell")
    flat = np.array([[0, 1, 1], [1, 0, 0]])
    deep = np.ones((2, 3, 4), np.uint8)
    rows = label_statistics(flat, file="a.png", spacing=None, class_names=names)
    rows += label_statistics(flat, file="b.tif", spacing=(0.1, 1), class_names=names)
    rows += label_statistics(deep, file="c.nii", spacing=(1, 2, 5), class_names=names)
    write_csv(tmp_path / "table.csv", rows)
    with open(tmp_path / "table.csv", newline="") as stream:
        table = list(csv.reader(stream))
    assert table == [
        ["file", "class", "pixels", "area_mm2", "volume_ml"],
        ["a.png", "background", "3", "", ""],
        ["a.png", "cell", "3", "", ""],
        ["b.tif", "background", "3", "0.3", ""],
        ["b.tif", "cell", "3", "0.3", ""],
        ["c.nii", "background", "0", "", "0.0"],
        ["c.nii", "cell", "24", "", "0.24"],
    ]
    assert os.listdir(tmp_path) == ["table.csv"]
    with pytest.raises(ValueError, match="Label 1 is outside the 1 classes"):
        label_statistics(flat, file="a", spacing=None, class_names=names[:1])


def test_a_table_of_regions_has_a_row_for_each_of_them():
    labels = np.array([[0, 1, 2], [3, 3, 0]])
    regions = {"whole": (1, 2, 3), "core": (2, 3), "none": ()}
    rows = label_statistics(
        labels, None, file="a.png", class_names=tuple("0123"), regions=regions
    )
    found = [(row["class"], row["pixels"]) for row in rows]
    assert found == [("0", 2), ("whole", 4), ("core", 3), ("none", 0)]
    values = np.array([[1.0, 2.0, 3.0], [6.0, np.nan, 5.0]])
    means = mean_by_class(labels, values, 4, regions)
    assert means == [3.0, pytest.approx(11 / 3), 4.5, ""]


# ---- masks ---------------------------------------------------------------------------


def _values(path, **options):
    stored = read_label(path, **options)
    assert stored.image.shape[-1] == 1
    assert stored.image.dtype.kind in "ui"
    return stored.image[..., 0]


def test_palette_masks_read_as_indices(tmp_path):
    labels = _random(9, 7) % 4
    for suffix, transparency in (("a.png", None), ("b.png", 2)):
        picture = Image.fromarray(labels).convert("L")
        picture = Image.frombytes("P", (7, 9), labels.tobytes())
        picture.putpalette([part for color in PALETTE for part in color])
        options = {} if transparency is None else {"transparency": transparency}
        picture.save(tmp_path / suffix, **options)
        np.testing.assert_array_equal(_values(tmp_path / suffix), labels)
        # The image of the same file is its colours.
        colors = np.array(PALETTE, np.uint8)[labels]
        np.testing.assert_array_equal(read_image(tmp_path / suffix).image, colors)
        # With a palette in the config, colours count for every file of the set.
        turned = _values(tmp_path / suffix, palette=PALETTE[::-1])
        np.testing.assert_array_equal(turned, 3 - labels)
    table = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(
        tmp_path / "c.tif", labels, photometric="palette", colormap=table + 257
    )
    np.testing.assert_array_equal(_values(tmp_path / "c.tif"), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32])
def test_grey_masks_keep_their_values(tmp_path, dtype):
    labels = _random(6, 5, dtype=dtype)
    tifffile.imwrite(tmp_path / "m.tif", labels)
    np.testing.assert_array_equal(_values(tmp_path / "m.tif"), labels)
    if dtype in (np.uint8, np.uint16):
        Image.fromarray(labels).save(tmp_path / "m.png")
        np.testing.assert_array_equal(_values(tmp_path / "m.png"), labels)
    nibabel.save(
        nibabel.Nifti1Image(labels[..., None].astype(np.int32), AFFINE),
        tmp_path / "m.nii.gz",
    )
    expected = labels.astype(np.int32)
    np.testing.assert_array_equal(_values(tmp_path / "m.nii.gz")[..., 0], expected)


def test_masks_of_one_bit_with_alpha_or_of_equal_channels(tmp_path):
    labels = _random(6, 5) % 2
    Image.fromarray(labels * 255).convert("1").save(tmp_path / "bit.png")
    np.testing.assert_array_equal(_values(tmp_path / "bit.png"), labels)
    tifffile.imwrite(tmp_path / "bit.tif", labels.astype(bool))
    np.testing.assert_array_equal(_values(tmp_path / "bit.tif"), labels)
    grey = _random(6, 5)
    with_alpha = np.stack([grey, 255 - grey], axis=-1)
    Image.fromarray(with_alpha, "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(_values(tmp_path / "la.png"), grey)
    equal = np.stack([grey, grey, grey, 255 - grey], axis=-1)
    Image.fromarray(equal).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(_values(tmp_path / "rgba.png"), grey)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_masks_of_few_bits_keep_their_values(tmp_path, bits):
    labels = _random(6, 5) % 2**bits
    rows = [_packed(row, bits) for row in labels]
    _write_png(tmp_path / "m.png", rows, width=5, bits=bits, kind=0)
    np.testing.assert_array_equal(_values(tmp_path / "m.png"), labels)
    image = read_image(tmp_path / "m.png").image[..., 0]
    np.testing.assert_array_equal(image, labels * (255 // (2**bits - 1)))


@pytest.mark.parametrize(
    ("bits", "colors"),
    [(bits, (0, 255)) for bits in (1, 4, 8)]
    + [(bits, tuple(range(count))) for bits in (4, 8) for count in (3, 16)],
)
def test_bmp_with_a_grey_palette_is_exact(tmp_path, bits, colors):
    labels = _random(6, 5) % np.uint8(len(colors))
    rows = b""
    for row in labels[::-1]:
        packed = _packed(row, bits)
        rows += packed + bytes(-len(packed) % 4)
    palette = b"".join(bytes([color] * 3 + [0]) for color in colors)
    start = 54 + len(palette)
    head = struct.pack("<IHHI", start + len(rows), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, 5, 6, 1, bits, 0, 0, 0, 0, len(colors), 0)
    (tmp_path / "m.bmp").write_bytes(b"BM" + head + info + palette + rows)
    np.testing.assert_array_equal(_values(tmp_path / "m.bmp"), labels)
    image = read_image(tmp_path / "m.bmp").image[..., 0]
    np.testing.assert_array_equal(image, np.uint8(colors)[labels])


def test_masks_are_turned_upright(tmp_path):
    labels = _random(6, 5) % 3
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(labels).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(_values(tmp_path / "m.png"), np.rot90(labels, -1))


def test_colours_are_entries_or_refused(tmp_path):
    labels = _random(9, 7) % 4
    colors = np.array(PALETTE, np.uint8)[labels]
    path = tmp_path / "m.png"
    Image.fromarray(colors).save(path)
    np.testing.assert_array_equal(_values(path, palette=PALETTE), labels)
    with pytest.raises(InputError, match=r"a colour mask; .*palette='\(\(") as info:
        read_label(path)
    assert all(str(color) in str(info.value) for color in PALETTE)
    near = colors.copy()
    near[0, 0] = (203, 10, 18)
    Image.fromarray(near).save(path)
    with pytest.raises(
        InputError, match=r"1 pixels .*\(203, 10, 18\); the nearest "
    ) as i:
        read_label(path, palette=PALETTE, tolerance=2)
    assert "(200, 10, 20), 3 away" in str(i.value)
    labels[0, 0] = 1
    tolerant = _values(path, palette=PALETTE, tolerance=3)
    np.testing.assert_array_equal(tolerant, labels)
    close = [*PALETTE, (204, 10, 20)]
    with pytest.raises(InputError, match=r"within data.palette_tolerance=3 of"):
        read_label(path, palette=close, tolerance=3)


def test_what_is_no_mask_is_refused(tmp_path):
    Image.fromarray(_random(40, 30, 3)).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"an RGB picture of .* colours; expected"):
        read_label(tmp_path / "photo.png")
    Image.fromarray(_random(40, 30)).save(tmp_path / "m.jpg")
    with pytest.raises(InputError, match=r"JPEG, which blurs the edges of a mask"):
        read_label(tmp_path / "m.jpg")
    halves = (_random(6, 5) % 4 / 2).astype(np.float32)
    tifffile.imwrite(tmp_path / "halves.tif", halves)
    with pytest.raises(InputError, match=r"no whole numbers, such as [01].5"):
        read_label(tmp_path / "halves.tif")
    tifffile.imwrite(tmp_path / "whole.tif", 2 * halves)
    np.testing.assert_array_equal(_values(tmp_path / "whole.tif"), 2 * halves)
    tifffile.imwrite(tmp_path / "two.tif", _random(2, 6, 5), metadata={"axes": "CYX"})
    with pytest.raises(InputError, match=r"2 channels; expected one value per pixel"):
        read_label(tmp_path / "two.tif")


@pytest.mark.parametrize("value", [np.uint64(2**63 + 5), np.int64(-(2**62)), 1e30])
def test_mask_values_that_no_class_can_have_are_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "m.tif", np.array([[value, 0], [1, 1]]))
    with pytest.raises(InputError, match=r"m.tif: values from .*; renumber"):
        read_label(tmp_path / "m.tif")


def test_tiff_axes_can_be_named(tmp_path):
    image = _random(3, 6, 5)
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    assert read_image(path).image.shape == (3, 6, 5, 1)
    named = read_image(path, tiff_axes="CYX").image
    np.testing.assert_array_equal(named, np.moveaxis(image, 0, -1))
    with pytest.raises(InputError, match=r"tiff_axes is 'ZCYX', but the file has 3"):
        read_image(path, tiff_axes="ZCYX")


@pytest.mark.parametrize("axes", ["ZCYX", "ZYXC", "CZYX"])
def test_four_axes_without_names_are_asked_for(tmp_path, axes):
    sizes = {"Z": 5, "C": 2, "Y": 8, "X": 9}
    image = _random(*(sizes[axis] for axis in axes))
    tifffile.imwrite(tmp_path / "i.tif", image, photometric="minisblack")
    with pytest.raises(InputError, match=f"--config.data.tiff_axes={axes}, or the ord"):
        read_image(tmp_path / "i.tif")
    named = read_image(tmp_path / "i.tif", tiff_axes=axes).image
    np.testing.assert_array_equal(named, np.moveaxis(image, axes.index("C"), -1))


def test_the_spacing_of_an_ome_tiff(tmp_path):
    """PhysicalSizes, in the unit that stands there, micrometres else."""
    path = tmp_path / "a.ome.tif"
    for units, factor in (({}, 1e-3), ("nm", 1e-6), ("mm", 1.0)):
        sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
        if units:
            sizes |= {f"PhysicalSize{axis}Unit": units for axis in "XYZ"}
        pixels = np.zeros((5, 8, 9), np.uint16)
        tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZYX", **sizes})
        expected = [2.0 * factor, 0.25 * factor, 0.5 * factor]
        np.testing.assert_allclose(read_image(path).spacing, expected)
    tifffile.imwrite(path, np.zeros((5, 8, 9)), ome=True, metadata={"axes": "ZYX"})
    assert read_image(path).spacing is None


def test_jpeg_masks_of_more_than_two_values_are_refused(tmp_path):
    mask = np.zeros((40, 48), np.uint8)
    mask[10:21, 13:30] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=95)
    with pytest.raises(InputError, match=r"a.jpg: .* at most 2 in a JPEG, which blurs"):
        read_label(tmp_path / "a.jpg")
    mask[:], mask[:, 16:] = 0, 255  # on the border of its blocks nothing is blurred
    Image.fromarray(mask).save(tmp_path / "b.jpg", quality=100)
    assert set(np.unique(read_label(tmp_path / "b.jpg").image)) == {0, 255}


def test_tiff_axes_in_small_letters(tmp_path):
    pixels = np.arange(3 * 6 * 5, dtype=np.uint8).reshape(3, 6, 5)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    image = read_image(tmp_path / "a.tif", tiff_axes="cyx").image
    np.testing.assert_array_equal(image, np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize("values", [(0, 255), (255,), (0, 1), (0, 1, 2, 3), (0,)])
def test_gif_masks_have_their_grey_values_in_whatever_order(tmp_path, values):
    mask = np.resize(np.array(values, np.uint8), (5, 6))
    Image.fromarray(mask).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_label(tmp_path / "a.gif").image[..., 0], mask)
    # The same picture, with its palette the other way round.
    turned = Image.frombytes("P", (6, 5), (255 - mask).tobytes())
    turned.putpalette([255 - grey for grey in range(256) for _ in range(3)])
    turned.save(tmp_path / "b.gif")
    np.testing.assert_array_equal(read_label(tmp_path / "b.gif").image[..., 0], mask)


def test_gif_masks_of_colours_need_a_palette(tmp_path):
    colors = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 90)], np.uint8)
    mask = np.arange(30).reshape(5, 6) % 3
    Image.fromarray(colors[mask]).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif").image, colors[mask])
    found = read_label(tmp_path / "a.gif", palette=colors.tolist()).image[..., 0]
    np.testing.assert_array_equal(found, mask)
    with pytest.raises(InputError, match=r"colour mask; expected a colour for each"):
        read_label(tmp_path / "a.gif")


def test_a_gif_of_several_frames_is_refused(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), grey, np.uint8)) for grey in (0, 9, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="3 frames; expected a single picture"):
        read_image(tmp_path / "a.gif")
