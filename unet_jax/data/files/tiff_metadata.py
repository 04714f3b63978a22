"""Reads what the tags of a TIFF say about its numbers: planes, colours, pixel size."""

import json
import math
import re
import xml.etree.ElementTree
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import tifffile

from unet_jax.data.files.stored import Color
from unet_jax.errors import InputError, setting

_MILLIMETRES = {
    **{"m": 1000.0, "cm": 10.0, "mm": 1.0, "millimeter": 1.0, "nm": 1e-6},
    **dict.fromkeys(
        ("um", "\u00b5m", "\u03bcm", "\\u00b5m", "micron", "microns"), 1e-3
    ),
}

_PROPOSED = 24
"""Largest number of greys that a message proposes as a palette."""

_GDAL_METADATA = 42112

_LARGEST_SPACING_FILE = 10_000
"""Bytes; a larger JSON file beside a TIFF has contours or other things."""

PRINTED = "none (only a printing resolution)"
"""Source of the spacing of a TIFF that has a resolution in dpi and no pixel size."""

_JPEG = (
    tifffile.COMPRESSION.OJPEG,
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.JPEG_LOSSY,
)


def check_planes(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path
) -> None:
    """Refuse an image of which planes are missing; tifffile would give zeros."""
    ome = _ome_elements(tiff)
    if "BinaryOnly" in ome:
        root = ome["BinaryOnly"][0].get("MetadataFile")
        raise InputError(
            f"{path}: holds a part of an OME-TIFF whose metadata lie in {root}; "
            "expected an image with its own metadata; read that file if it is a TIFF, "
            "or save the image as one file"
        )
    absent, total = sum(page is None for page in series.pages), len(series.pages)
    if series.kind != "ome" and "Pixels" in ome:
        # Where no file has the name that the metadata give it, tifffile reads one file.
        total = _stated_planes(ome)
        absent = total - len(tiff.pages)
    if absent <= 0:
        return
    listed = sorted({one.get("FileName") or "" for one in ome.get("UUID", [])} - {""})
    names = [name for name in listed if not (path.parent / name).exists()]
    found = f"{absent} of {total} planes are missing"
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise InputError(
            f"{path}: {found}, which lie in {', '.join(names[:3])}{more}; expected all "
            "files of the OME-TIFF in one folder under their own names; put them "
            "there, or save the image as one file"
        )
    raise InputError(
        f"{path}: {found}; expected every plane that its OME metadata name; export it "
        "again"
    )


def _ome_elements(tiff: tifffile.TiffFile) -> dict[str, list[Element]]:
    """Return the elements of the OME metadata by name; {} without valid metadata."""
    found: dict[str, list[Element]] = {}
    try:
        root = xml.etree.ElementTree.fromstring(tiff.ome_metadata or "")
    except xml.etree.ElementTree.ParseError:
        return {}
    for element in root.iter():
        found.setdefault(element.tag.rpartition("}")[2], []).append(element)
    return found


def _stated_planes(ome: Mapping[str, list[Element]]) -> int:
    """Return the number of planes that OME metadata state; 0 if they are damaged."""
    first = (ome.get("Channel") or [Element("Channel")])[0]
    sizes = [ome["Pixels"][0].get(f"Size{axis}", "1") for axis in "ZCT"]
    try:
        depth, channels, times = map(int, sizes)
        return depth * times * channels // int(first.get("SamplesPerPixel", "1"))
    except (ValueError, ZeroDivisionError):
        return 0


def check_photometric(page: tifffile.TiffPage, path: Path) -> None:
    """Refuse colours that are neither grey, RGB nor a palette."""
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    if photometric.name in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE"):
        return
    # The decoder of JPEG turns YCbCr into RGB.
    if photometric.name == "YCBCR" and is_lossy(page):
        return
    raise InputError(
        f"{path}: colours are {photometric.name} with the compression "
        f"{tifffile.COMPRESSION(page.compression).name}; expected grey, RGB, a palette "
        "or YCbCr within JPEG; save it as RGB"
    )


def is_lossy(page: tifffile.TiffPage) -> bool:
    """Tell whether pixels are compressed as JPEG, which changes them."""
    return page.compression in _JPEG


def is_transparency_mask(page: tifffile.TiffPage) -> bool:
    """Tell whether a page says which pixels of another one have data (0: none)."""
    return bool(int(page.subfiletype) & 4)


def white_is_zero(
    image: np.ndarray, page: tifffile.TiffPage, path: Path, *, is_mask: bool
) -> np.ndarray:
    """Invert a TIFF whose photometric says that 0 is white.

    A mask is inverted only if it is black and white. The values of another one may be
    meant as numbers of classes, so that two readings are possible; the same holds for a
    mask of ImageJ, which shows its objects of value 255 as black.
    """
    if image.dtype == bool:
        # tifffile gives a boolean array this photometric without being asked.
        return image if page.software.startswith("tifffile") else ~image
    if image.dtype.kind != "u":
        raise InputError(
            f"{path}: photometric WhiteIsZero with {image.dtype} values, whose black "
            "is unknown; expected unsigned integers; save it as BlackIsZero"
        )
    white = 2 ** int(page.bitspersample) - 1
    if is_mask:
        values = np.unique(image).tolist()
        if page.is_imagej or not set(values) <= {0, white}:
            shown = [white - value for value in values]
            greys = tuple((value, value, value) for value in shown)
            keys = ""
            if white == 255 and len(greys) <= _PROPOSED:
                keys = (
                    f", or set {setting('data.palette', greys)} for the stored order, "
                    f"{setting('data.palette', greys[::-1])} for the shown one"
                )
            raise InputError(
                f"{path}: photometric WhiteIsZero, so that its values "
                f"{', '.join(map(str, values[:3]))} show as "
                f"{', '.join(map(str, shown[:3]))}, and either may be meant; expected "
                f"BlackIsZero; save it so{keys}"
            )
    return image.dtype.type(white) - image


def gdal_scaled(image: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Apply the scale and offset of each channel that GDAL writes; float32 with one.

    Args:
        image: ``(*spatial, channels)``.
    """
    try:
        root = xml.etree.ElementTree.fromstring(str(page.tags.valueof(_GDAL_METADATA)))
    except xml.etree.ElementTree.ParseError:
        return image
    factors = {"scale": np.ones(image.shape[-1]), "offset": np.zeros(image.shape[-1])}
    for item in root.iter("Item"):
        channel, role = int(item.get("sample", 0)), item.get("role")
        if role in factors and channel < image.shape[-1]:
            factors[role][channel] = float(item.text or "nan")
    scale, offset = factors.values()
    if (scale == 1).all() and (offset == 0).all():
        return image
    values = image.astype(np.float32)
    values *= scale.astype(np.float32)
    values += offset.astype(np.float32)
    return values


def color_table(page: tifffile.TiffPage) -> np.ndarray | None:
    """Return the palette ``(entries, 3)`` uint8; None without one."""
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    # The table holds 16 bits per colour, of which the high byte counts.
    return (np.asarray(page.colormap).T >> 8).astype(np.uint8)


def colors_of(table: np.ndarray) -> dict[int, Color]:
    """Return the colour of each index of a palette ``(entries, 3)``."""
    rows: list[list[int]] = table.tolist()
    return {index: (row[0], row[1], row[2]) for index, row in enumerate(rows)}


def spacing_beside(path: Path) -> tuple[tuple[float, ...], str] | None:
    """Return the spacing that nnU-Net keeps beside a stack, ``scan.json``.

    Args:
        path: the stack ``scan.tif``, or a channel of it, ``scan_0000.tif``.

    Returns:
        Millimetres per pixel on Z, Y, X, and the name of the file; None without one.

    Raises:
        InputError: the spacing is not three numbers above 0.
    """
    stems = path.stem, re.sub(r"_\d{4}$", "", path.stem)
    files = [path.with_name(f"{stem}.json") for stem in stems]
    file = next((one for one in files if one.is_file()), None)
    if file is None or file.stat().st_size > _LARGEST_SPACING_FILE:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(content, dict) or "spacing" not in content:
        return None
    try:
        sizes = tuple(map(float, content["spacing"]))
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != 3 or not all(0 < size < math.inf for size in sizes):
        raise InputError(
            f"{file}: spacing is {content['spacing']!r}; expected three sizes above 0 "
            "in mm, on Z, Y and X; fix it, or remove the file"
        )
    return sizes, file.name


def spacing_of(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage
) -> tuple[tuple[float, float, float] | None, str]:
    """Return millimetres per pixel on Z, Y, X (Z is 0 if unknown), and their source.

    Only OME and ImageJ metadata state the size of a pixel. The resolution tags alone
    say how large a camera or scanner wants the picture printed.
    """
    spacing = _ome_spacing(tiff)
    if spacing is not None:
        return spacing, "OME metadata"
    spacing = _imagej_spacing(page, tiff.imagej_metadata or {})
    if spacing is not None:
        return spacing, "ImageJ metadata"
    printed = page.tags.valueof("ResolutionUnit", 1) > 1 and "XResolution" in page.tags
    return None, PRINTED if printed else ""


def _ome_spacing(tiff: tifffile.TiffFile) -> tuple[float, float, float] | None:
    """Return the PhysicalSizes of an OME-TIFF in mm on Z, Y, X (Z is 0 if unknown)."""
    pixels = _ome_elements(tiff).get("Pixels")
    if not pixels:
        return None
    sizes = []
    for axis in "ZYX":
        # Micrometres are the default of the schema.
        unit = pixels[0].get(f"PhysicalSize{axis}Unit", "um").lower()
        try:
            size = float(pixels[0].get(f"PhysicalSize{axis}", 0.0))
        except ValueError:
            return None
        sizes.append(size * _MILLIMETRES.get(unit, 0.0))
    z, y, x = sizes
    return (z, y, x) if y > 0 and x > 0 else None


def _imagej_spacing(
    page: tifffile.TiffPage, imagej: Mapping[str, object]
) -> tuple[float, float, float] | None:
    """Return millimetres per pixel on Z, Y, X (Z is 0 if unknown), or None.

    ImageJ writes the unit "inch" where it copies the printing resolution of another
    program, so that unit is no pixel size.
    """
    unit = str(imagej.get("unit")).lower()
    x, y = (page.tags.valueof(f"{axis}Resolution", (0, 1)) for axis in "XY")
    if unit not in _MILLIMETRES or not all((*x, *y)):
        return None
    scale = _MILLIMETRES[unit]
    across, down = scale * x[1] / x[0], scale * y[1] / y[0]
    depth = imagej.get("spacing", 0.0)
    return scale * abs(float(str(depth))), down, across
