"""Tests unusable images: formats, sizes, dtypes, channels."""

import gzip
import pickle
import shutil
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.bad_input.contents import (
    GREY,
    MANY,
    NOT_FINITE,
    RGB,
    Malicious,
    nifti,
    not_finite,
    picture,
    tiff,
    tiff_axes,
)
from tests.bad_input.given import (
    READ_DATA,
    SIZE,
    one_problem,
    predict_command,
    problems,
)
from unet_jax.errors import listed_lines

pytestmark = pytest.mark.slow  # some 300 commands in all


def _png(width, height):
    """Make a PNG that states a size and has no pixels."""
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b""))):
        check = struct.pack(">I", zlib.crc32(name + body))
        data += struct.pack(">I", len(body)) + name + body + check
    return data


WHOLE = {
    ".png": ("PNG", picture("PNG")),
    ".jpg": ("JPEG", picture("JPEG")),
    ".bmp": ("BMP", picture("BMP")),
    ".gif": ("GIF", picture("GIF")),
    ".tif": ("TIFF", tiff()),
    ".nii": ("NIfTI", nifti(SIZE, SIZE, 4)),
    ".nii.gz": ("gzip-compressed NIfTI", gzip.compress(nifti(SIZE, SIZE, 4))),
}


class BadFile(NamedTuple):
    """Write a file that is no image; ``line`` follows its name and a colon."""

    name: str
    suffix: str
    content: bytes
    line: str


def _bad_files():
    unknown = "expected {form} as its name says; export or copy it again"
    for suffix, (form, whole) in WHOLE.items():
        foreign = "PNG" if form == "BMP" else "BMP"
        for name, content, line in (
            ("empty", b"", "is empty (0 bytes); expected {form}; copy it again"),
            (
                "garbage",
                bytes(range(7, 107)),
                "holds unknown content (it starts with b'\\x07\\x08\\t\\n\\x0b\\x0c"
                "\\r\\x0e'); " + unknown,
            ),
            (
                "text",
                b"id,split\n1,train\n",
                "holds unknown content (it starts with b'id,split'); " + unknown,
            ),
            (
                "a pickle",
                pickle.dumps(Malicious()),
                "holds unknown content (it starts with <any>); " + unknown,
            ),
            (
                "another format",
                picture(foreign),
                f"holds {foreign}; expected {{form}} as its name says; rename it",
            ),
            (
                "cut",
                whole[: len(whole) // 2],
                "cannot be read (<any>); expected a whole {form} file; export or copy "
                "it again",
            ),
        ):
            line = line.replace("{form}", form)
            yield BadFile(f"{suffix} {name}", suffix, content, line)


_COMPLEX = "pixels are complex64; expected real numbers; save it as integers or floats"
_AXES = "expected YX or ZYX with at most one channel axis; save one time point or "
_VOLUME = "expected (x, y, z) or (x, y, z, channels); save one volume per file"
BAD_FILES = [
    *_bad_files(),
    BadFile(
        "no pixels, PNG",
        ".png",
        _png(0, 0),
        "cannot be read (<any>); expected a whole PNG file; export or copy it again",
    ),
    BadFile(
        "3.6 gigapixels, PNG",
        ".png",
        _png(60000, 60000),
        "cannot be read (<any>); expected a whole PNG file; save an image of this "
        "size as TIFF",
    ),
    BadFile(
        "no pixels, NIfTI",
        ".nii",
        nifti(0, 4, 4),
        "shape (0, 4, 4, 1) has no pixels; expected an image; export it again",
    ),
    BadFile("1-D", ".nii", nifti(9), f"shape (9, 1); {_VOLUME}"),
    BadFile(
        "6-D",
        ".nii",
        nifti(4, 4, 4, 2, 2, 2),
        f"shape (4, 4, 4, 2, 2, 2); {_VOLUME}",
    ),
    BadFile(
        "4-D TIFF",
        ".tif",
        tiff(np.zeros((2, 3, SIZE, SIZE), "u1"), **tiff_axes("TZYX")),
        f"axes TZYX of shape (2, 3, 24, 24); {_AXES}channel per file",
    ),
    BadFile("NaN, TIFF", ".tif", tiff(not_finite(np.nan)), NOT_FINITE),
    BadFile("Inf, TIFF", ".tif", tiff(not_finite(-np.inf)), NOT_FINITE),
    BadFile(
        "NaN, NIfTI",
        ".nii",
        nibabel.Nifti1Image(not_finite(np.nan), np.eye(4)).to_bytes(),
        NOT_FINITE,
    ),
    BadFile("complex, TIFF", ".tif", tiff(GREY.astype(np.complex64)), _COMPLEX),
    BadFile("complex, NIfTI", ".nii", nifti(9, 9, dtype=np.complex64), _COMPLEX),
]
OTHER_CHANNELS = [
    BadFile("3 channels", ".png", picture("PNG", RGB), "3"),
    BadFile("5 channels", ".tif", tiff(MANY, **tiff_axes("CYX")), "5"),
]


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
@pytest.mark.parametrize("mode", READ_DATA)
def test_an_image_that_is_none(place, refused, mode, bad):
    (place / "data/images/2.png").unlink()
    file = place / f"data/images/2{bad.suffix}"
    file.write_bytes(bad.content)
    if bad.suffix == ".nii":  # its mask must say as well how its pixels lie
        mask = place / "data/masks/2.png"
        labels = np.asarray(Image.open(mask)).T
        nibabel.Nifti1Image(labels, np.eye(4)).to_filename(mask.with_suffix(".nii"))
        mask.unlink()
    lines = [f"{file}: {bad.line}"]
    if "NaN" in bad.name and bad.suffix == ".nii":  # it is read, and has a spacing
        lines.append(
            f"{file}: a known spacing: True in 1 cases; expected False as in the "
            "others; set data.known_spacing to the mm on each axis of the files "
            "without a spacing, or convert or remove them"
        )
    problems(refused, mode, place, lines)
    assert not Path("malicious").exists()


@pytest.mark.parametrize("bad", OTHER_CHANNELS, ids=lambda bad: bad.name)
@pytest.mark.parametrize("mode", READ_DATA)
def test_an_image_of_other_channels(place, refused, mode, bad):
    (place / "data/images/2.png").unlink()
    file = place / f"data/images/2{bad.suffix}"
    file.write_bytes(bad.content)
    one_problem(
        refused,
        mode,
        place,
        f"{file}: channels: {bad.line} in 1 cases; expected 1 as in the others; "
        "convert or remove them",
    )


def test_predict_names_each_bad_file_and_does_the_good_one(place, refused):
    folder = place / "in"
    folder.mkdir()
    lines = []
    convert = "convert it (RGB to grey, or grey to RGB) or choose another model"
    for number, bad in enumerate([*BAD_FILES, *OTHER_CHANNELS]):
        file = folder / f"{number:03}{bad.suffix}"
        file.write_bytes(bad.content)
        line = bad.line
        if bad in OTHER_CHANNELS:
            line = f"{line} channels; expected 1 as in training; {convert}"
        lines.append(f"{file}: {line}")
    shutil.copy(place / "data/images/0.png", folder / "zzz.png")
    count = len(lines)
    refused(
        f"--input {folder}: {count} of {count + 1} images not segmented:\n  "
        + "\n  ".join(listed_lines(lines)),
        *predict_command(place, folder),
        workdir=place / "out",
    )
    assert not Path("malicious").exists()
    names = [path.name for path in (place / "out").iterdir()]
    tables = ["classes.csv", "objects.csv"]
    assert sorted(names) == [*tables, "overlays", "report.html", "zzz.png"]


@pytest.mark.parametrize("flag", ["--noprobabilities", "--contours"])
def test_predict_of_one_bad_file_leaves_nothing(place, refused, flag):
    (place / "a.png").write_bytes(b"")
    line = f"{place / 'a.png'}: is empty (0 bytes); expected PNG; copy it again"
    refused(
        f"--input {place / 'a.png'}: 1 of 1 images not segmented:\n  {line}",
        *predict_command(place, place / "a.png", flag),
    )
    assert not (place / "out").exists()
