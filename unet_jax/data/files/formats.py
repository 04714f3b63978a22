"""Lists the file formats: suffixes, first bytes, and functions to read and write.

A new format is one module with its functions, and one row of ``FORMATS``.
"""

import functools
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet_jax.data.files.dicom import SUFFIXES as DICOM_SUFFIXES
from unet_jax.data.files.dicom import read_dicom
from unet_jax.data.files.itk import read_itk, write_itk
from unet_jax.data.files.nifti import read_nifti, write_nifti
from unet_jax.data.files.pictures import read_picture, write_palette_png
from unet_jax.data.files.stored import Color, StoredImage
from unet_jax.data.files.tiff import read_tiff, write_tiff
from unet_jax.errors import InputError


class Format(NamedTuple):
    """One file format.

    Attributes:
        magic: pairs of position and bytes, one of which the content has; () for a
            compressed format, whose name is "gzip-compressed" and its content's.
        read: function ``(path, axes, indices) -> StoredImage``. ``axes`` names the
            axes, None for those of the file. With ``indices`` a palette file gives its
            indices instead of colours.
        write: function ``(path, labels, image, palette)`` that writes a label map
            ``(*spatial)`` of integers for an image of this format.
        label_suffix: ending of that label map; "" for the ending of the image.
        lossy: whether the format changes pixels, so that it suits no mask of several
            classes.
        pages: whether a file may be a stack of pages without known directions.
        volumes: whether a file states how its voxels lie, in millimetres.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...]
    read: Callable[[Path, str | None, bool], StoredImage]
    write: Callable[[Path, np.ndarray, StoredImage, Sequence[Color]], None]
    label_suffix: str
    largest_label: int = 65535
    lossy: bool = False
    pages: bool = False
    volumes: bool = False


_picture = functools.partial(
    Format,
    read=read_picture,
    write=write_palette_png,
    label_suffix=".png",
    largest_label=255,
)
_volume = functools.partial(Format, volumes=True)
_nifti = functools.partial(
    _volume, read=read_nifti, write=write_nifti, label_suffix=".nii.gz"
)
# The pixels of .nhdr and .mhd lie in a file of their own; a label map is one file.
_itk = functools.partial(_volume, read=read_itk, write=write_itk)
DICOM = _volume(
    "DICOM",
    DICOM_SUFFIXES,
    ((128, b"DICM"),),
    read=read_dicom,
    write=write_nifti,
    label_suffix=".nii.gz",
)
_META = ((0, b"ObjectType"), (0, b"NDims"), (0, b"Comment"))

FORMATS = (
    _picture("PNG", (".png",), ((0, b"\x89PNG\r\n\x1a\n"),)),
    _picture("JPEG", (".jpg", ".jpeg"), ((0, b"\xff\xd8\xff"),), lossy=True),
    _picture("BMP", (".bmp",), ((0, b"BM"),)),
    _picture("GIF", (".gif",), ((0, b"GIF87a"), (0, b"GIF89a"))),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
        read=read_tiff,
        write=write_tiff,
        label_suffix="",
        pages=True,
    ),
    _nifti("gzip-compressed NIfTI", (".nii.gz",), ()),
    _nifti("NIfTI", (".nii",), ((344, b"n+1\0"), (4, b"n+2\0"))),
    _itk("NRRD", (".nrrd", ".nhdr"), ((0, b"NRRD000"),), label_suffix=".nrrd"),
    _itk("MetaImage", (".mha", ".mhd"), _META, label_suffix=".mha"),
    DICOM,
)
"""Every format that images and masks may have."""

SUFFIXES = tuple(suffix for one in FORMATS for suffix in one.suffixes)
"""Endings of file names that can be read, in lower case; files may use capitals."""

_GZIP = b"\x1f\x8b"
_START = 352  # bytes that reach behind the magic of every format


def file_suffix(path: Path) -> str:
    """Return the known ending of a file name, one of ``SUFFIXES``, or InputError.

    A folder is a DICOM series, whose name has none: "".
    """
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    if path.is_dir():
        return ""
    raise InputError(
        f"{path}: unknown suffix {path.suffix!r}; expected one of "
        f"{' '.join(SUFFIXES)}; convert it to one of these"
    )


def format_of(path: Path) -> Format:
    """Return the row of ``FORMATS`` for a file name; InputError if there is none."""
    suffix = file_suffix(path)
    return next((one for one in FORMATS if suffix in one.suffixes), DICOM)


def content_name(path: Path) -> str:
    """Name the format of a file's content by its first bytes.

    Returns:
        Name of a format, or "unknown content" with the bytes; "" for an empty file.

    Raises:
        OSError: the file cannot be opened or decompressed.
    """
    with open(path, "rb") as stream:
        start = stream.read(_START)
    compressed = start.startswith(_GZIP)
    if compressed:
        with gzip.open(path, "rb") as stream:
            start = stream.read(_START)
    elif not start:
        return ""
    name = f"unknown content (it starts with {start[:8]!r})"
    for one in FORMATS:
        if any(start[at : at + len(code)] == code for at, code in one.magic):
            name = one.name
    return f"gzip-compressed {name}" if compressed else name


def stem_of(path: Path) -> str:
    """Return the name of a file without its known ending."""
    return path.name[: len(path.name) - len(file_suffix(path))]


def output_name(path: str | Path) -> str:
    """Name the label map of an image: photo.jpg to photo.png, scan.nii to .nii.gz."""
    path = Path(path)
    return stem_of(path) + (format_of(path).label_suffix or file_suffix(path))
