"""Tests every row of the table of formats: content, reading, label map."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from tests.data.files.dicoms import write_slice
from unet_jax.data.files.formats import (
    FORMATS,
    SUFFIXES,
    content_name,
    file_suffix,
    format_of,
    output_name,
)
from unet_jax.data.files.read import read_image, read_label
from unet_jax.data.files.write import write_label_map

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 5), dtype=np.uint8)


def _write(path, name):
    """Write a small image of a format."""
    if "NIfTI" in name:
        nibabel.save(nibabel.Nifti1Image(PIXELS[..., None], np.eye(4)), path)
    elif name == "TIFF":
        tifffile.imwrite(path, PIXELS)
    elif name == "DICOM":
        write_slice(path, PIXELS.T, position=(0, 0, 0))
    elif name in ("NRRD", "MetaImage"):
        image = SimpleITK.GetImageFromArray(PIXELS.T[None])
        SimpleITK.WriteImage(image, str(path))
    else:
        Image.fromarray(PIXELS).save(path)


def _cases():
    return [(one, suffix) for one in FORMATS for suffix in one.suffixes]


@pytest.mark.parametrize(("one", "suffix"), _cases(), ids=[s for _, s in _cases()])
def test_a_row_reads_its_files_and_writes_their_label_maps(one, suffix, tmp_path):
    path = tmp_path / f"a.b{suffix.upper()}"
    _write(tmp_path / f"a{suffix}", one.name)
    (tmp_path / f"a{suffix}").rename(path)
    assert format_of(path) is one
    assert file_suffix(path) == suffix
    assert content_name(path) == one.name
    stored = read_image(path)
    assert stored.image.shape[:2] == PIXELS.shape
    labels = (np.indices(stored.image.shape[:-1]).sum(0) % 3).astype(np.uint8)
    colors = [(0, 0, 0), (1, 2, 3), (9, 9, 9)]
    written = write_label_map(tmp_path / "out", stored, labels, colors)
    assert written.name == output_name(path)
    assert written.name == f"a.b{one.label_suffix or suffix}"
    np.testing.assert_array_equal(read_label(written).image[..., 0], labels)


def test_no_two_rows_share_a_suffix_or_bytes():
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)
    codes = [code for one in FORMATS for code in one.magic]
    assert len(set(codes)) == len(codes)


def test_other_content_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"hello world")
    assert content_name(path) == "unknown content (it starts with b'hello wo')"
    path.write_bytes(gzip.compress(b"hello world"))
    assert content_name(path) == (
        "gzip-compressed unknown content (it starts with b'hello wo')"
    )
    _write(tmp_path / "b.png", "PNG")
    path.write_bytes(gzip.compress((tmp_path / "b.png").read_bytes()))
    assert content_name(path) == "gzip-compressed PNG"
    path.write_bytes(b"")
    assert content_name(path) == ""
