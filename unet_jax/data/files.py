"""Image files in, label maps out: PNG, JPEG, BMP, TIFF and NIfTI.

Pixels come as they are stored, in their stored dtype. Three things alone are undone:
an EXIF or TIFF orientation (cameras store sideways), a palette, and a NIfTI intensity
scale that is not the identity.
"""

import contextlib
import csv
import dataclasses
import gzip
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import tifffile
from PIL import ExifTags, Image

from unet_jax.atomic import atomic_path
from unet_jax.errors import InputError

_FORMS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".nii.gz": "gzip-compressed NIfTI",
    ".nii": "NIfTI",
}
SUFFIXES = tuple(_FORMS)
"""File name endings that ``read_image`` knows, in any case."""

_STOCK_DPI = (72.0, 96.0, 150.0, 300.0, 600.0)
"""Resolutions that programs write without having measured anything."""

_MILLIMETRES = {
    "m": 1000.0,
    "cm": 10.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "um": 1e-3,
    "\u00b5m": 1e-3,
    "\u03bcm": 1e-3,
    "\\u00b5m": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "nm": 1e-6,
    "inch": 25.4,
}

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImage:
    """One image as its file holds it.

    Attributes:
        path: the file.
        image: ``(*spatial, channels)`` in the stored dtype and axis order.
        affine: ``(4, 4)`` from voxel index to millimetres (RAS+); NIfTI only.
        spacing: millimetres a pixel on each stored spatial axis; None if unknown.
        kind: "picture" (PNG, JPEG, BMP), "tiff" or "volume" (NIfTI).
        header: the NIfTI header, so that a label map can carry the same codes; without
            one a label map has the affine alone, in millimetres.
    """

    path: Path
    image: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...] | None
    kind: Literal["picture", "tiff", "volume"]
    header: nibabel.Nifti1Header | None = None


def list_images(path: str | Path) -> list[Path]:
    """List the image files that a path names.

    Args:
        path: an image file, or a folder, whose own files are taken (not its folders').

    Returns:
        The files, sorted by name; hidden files are left out.

    Raises:
        InputError: nothing is there, nothing readable is there, or two files would
            give a label map of the same name.
    """
    path = Path(path)
    known = " ".join(SUFFIXES)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give an image or a folder")
    if not path.is_dir():
        _suffix(path)
        return [path]
    names = sorted(entry for entry in path.iterdir() if entry.is_file())
    files = [name for name in names if name.name.lower().endswith(SUFFIXES)]
    files = [name for name in files if not name.name.startswith(".")]
    if not files:
        raise InputError(
            f"{path}: no image among {len(names)} files; expected one of {known}"
        )
    written: dict[str, Path] = {}
    for file in files:
        other = written.setdefault(output_name(file), file)
        if other != file:
            raise InputError(
                f"{path}: {other.name} and {file.name} would both be written as "
                f"{output_name(file)}; expected one of them; rename or move the other"
            )
    return files


def read_image(path: str | Path) -> StoredImage:
    """Read one image exactly.

    Pictures lose their alpha channel, keep 16 bits, and are turned upright; 1-bit
    images become uint8 of 0 and 255; a palette becomes RGB, CMYK too. TIFF axes come
    from the file's own metadata: (Z, Y, X) or (Y, X), a plain stack of pages counts
    as Z. A NIfTI of four axes has its channels on the last.

    Args:
        path: a file with one of ``SUFFIXES``.

    Returns:
        The image with what its file says of the geometry.

    Raises:
        InputError: missing, a folder, empty, of an unknown or another format,
            damaged, without pixels, or with values that are not finite.
    """
    path = Path(path)
    suffix = _suffix(path)
    _check_content(path, _FORMS[suffix])
    with _decoding(path, _FORMS[suffix]):
        if suffix in (".nii", ".nii.gz"):
            stored = _read_nifti(path)
        elif suffix in (".tif", ".tiff"):
            stored = _read_tiff(path)
        else:
            stored = StoredImage(path, _read_picture(path), None, None, "picture")
    image = _plain_numbers(stored.image, path)
    if not image.size:
        raise InputError(
            f"{path}: shape {image.shape} has no pixels; expected an image; export it "
            "again"
        )
    check_finite(image, name=str(path))
    return dataclasses.replace(stored, image=image)


def check_finite(image: np.ndarray, *, name: str) -> None:
    """Refuse an image with NaN or infinite values.

    Args:
        image: any shape and real dtype.
        name: the file or case, for the message.

    Raises:
        InputError: with the number of such values.
    """
    if image.dtype.kind != "f":
        return
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        raise InputError(
            f"{name}: {bad} of {image.size} values are NaN or infinite; expected "
            "finite numbers; replace them, e.g. with numpy.nan_to_num, and save again"
        )


def output_name(path: str | Path) -> str:
    """Name the label map of an image: photo.jpg to photo.png, scan.nii to scan.nii.gz.

    Args:
        path: the image file.

    Returns:
        A file name without a folder.
    """
    path = Path(path)
    suffix = _suffix(path)
    stem = path.name[: -len(suffix)]
    if suffix in (".nii", ".nii.gz"):
        return stem + ".nii.gz"
    if suffix in (".tif", ".tiff"):
        return stem + suffix
    return stem + ".png"


def write_label_map(
    folder: str | Path,
    stored: StoredImage,
    labels: np.ndarray,
    palette: Sequence[Color],
) -> Path:
    """Write a label map beside none of the inputs, in the form of its image.

    A picture gives a palette PNG (class index and colour in one file), a TIFF a TIFF
    of the same axes and spacing, a NIfTI a .nii.gz with the same affine, codes and
    units. The file appears whole or not at all.

    Args:
        folder: where to; made if missing.
        stored: the image that was segmented.
        labels: ``(*spatial)`` class indices on the stored grid, at most 65535 (255
            for pictures).
        palette: a colour (red, green, blue in 0..255) for each class.

    Returns:
        The file written.

    Raises:
        InputError: it would overwrite the image, or another file next to the image.
        ValueError: labels of another shape, outside the classes or not integers.
    """
    _check_labels(stored, labels, len(palette))
    target = _target(Path(folder), stored.path)
    kind = np.uint8 if labels.max() <= 255 else np.uint16
    labels = np.ascontiguousarray(labels, dtype=kind)
    with atomic_path(target) as temporary:
        if stored.kind == "picture":
            _write_png(temporary, labels, palette)
        elif stored.kind == "tiff":
            _write_tiff(temporary, labels, stored.spacing)
        else:
            _write_nifti(temporary, labels, stored)
    return target


def label_statistics(
    labels: np.ndarray,
    *,
    file: str,
    spacing: tuple[float, ...] | None,
    class_names: Sequence[str],
) -> list[dict[str, object]]:
    """Count the pixels of every class, and measure them where the spacing is known.

    Args:
        labels: ``(*spatial)`` class indices.
        file: what to write in the column of that name.
        spacing: millimetres a pixel on each spatial axis, or None.
        class_names: one for each class, the background first.

    Returns:
        A row for each class: file, class, pixels, area_mm2 (two axes) or volume_ml
        (three axes); "" where it is not known.
    """
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    if len(counts) > len(class_names):
        raise ValueError(
            f"Label {len(counts) - 1} is outside the {len(class_names)} classes"
        )
    rows: list[dict[str, object]] = []
    for name, count in zip(class_names, counts.tolist(), strict=True):
        size = "" if spacing is None else _digits(count * float(np.prod(spacing)))
        volume = size if isinstance(size, str) else _digits(size / 1000)
        rows.append(
            {
                "file": file,
                "class": name,
                "pixels": count,
                "area_mm2": size if labels.ndim == 2 else "",
                "volume_ml": volume if labels.ndim == 3 else "",
            }
        )
    return rows


def write_csv(path: str | Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys as a table with a header line.

    Args:
        path: the file; it appears whole or not at all.
        rows: at least one.
    """
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# What the file claims to be.


def _suffix(path: Path) -> str:
    """Return the known ending of a file name, in lower case."""
    for suffix in (".nii.gz", *SUFFIXES):
        if path.name.lower().endswith(suffix):
            return suffix
    raise InputError(
        f"{path}: unknown suffix {path.suffix!r}; expected one of "
        f"{' '.join(SUFFIXES)}; convert it to one of these"
    )


def _check_content(path: Path, expected: str) -> None:
    """Compare the first bytes with the suffix, before a decoder guesses."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a {expected} file")
    if not path.exists():
        raise InputError(f"{path}: no such file; expected a {expected} file")
    with _decoding(path, expected), open(path, "rb") as stream:
        start = stream.read(352)
    found = _form(start)
    if found == "gzip":
        with _decoding(path, expected), gzip.open(path, "rb") as stream:
            found = f"gzip-compressed {_form(stream.read(352))}"
    if found != expected:
        known = found in _FORMS.values()
        mend = "rename it" if known else "export or copy it again"
        raise InputError(
            f"{path}: holds {found}; expected {expected} as its name says; {mend}"
            if start
            else f"{path}: is empty (0 bytes); expected {expected}; copy it again"
        )


def _form(start: bytes) -> str:
    """Name a format by the first 352 bytes."""
    magic = {
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"\xff\xd8\xff": "JPEG",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"II+\0": "TIFF",
        b"MM\0+": "TIFF",
        b"\x1f\x8b": "gzip",
    }
    for code, name in magic.items():
        if start.startswith(code):
            return name
    if start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0":
        return "NIfTI"
    return f"unknown content (it starts with {start[:8]!r})"


@contextlib.contextmanager
def _decoding(path: Path, form: str) -> Iterator[None]:
    """Turn whatever a decoder throws at a damaged file into one line.

    Decoders fail on damaged bytes with any exception (struct.error, zlib.error,
    KeyError, SyntaxError, ...), so everything but ours is caught; the cause is kept.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        found = " ".join(str(error).split())[:120] or type(error).__name__
        mend = "export or copy it again"
        if "imagecodecs" in found:
            mend = "save it without compression, or pip install imagecodecs"
        if isinstance(error, Image.DecompressionBombError):
            mend = "save so large an image as TIFF"
        raise InputError(
            f"{path}: cannot be read ({found}); expected a whole {form} file; {mend}"
        ) from error


def _plain_numbers(image: np.ndarray, path: Path) -> np.ndarray:
    """Bring pixels into the machine's byte order; 1 bit becomes 0 and 255."""
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "uif":
        raise InputError(
            f"{path}: pixels are {image.dtype}; expected real numbers; save it as "
            "integers or floats"
        )
    if image.dtype.itemsize > 8:
        return image.astype(np.float64)
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))


# Pictures.


def _read_picture(path: Path) -> np.ndarray:
    """Decode PNG, JPEG or BMP to (height, width, channels), upright."""
    with Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
        raw = picture.tile[0].args if picture.format == "PNG" else None
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        if raw in ("RGB;16B", "RGBA;16B", "LA;16B"):
            pixels = _read_deep_png(path, str(raw))
        elif picture.mode in ("L", "RGB", "I;16", "I"):
            pixels = np.asarray(picture)
        elif picture.mode in ("1", "LA"):
            pixels = np.asarray(picture.convert("L"))
        elif picture.mode in ("P", "PA", "RGBA"):
            # A palette may carry transparency, which only RGBA takes in.
            pixels = np.asarray(picture.convert("RGBA"))[..., :3]
        else:
            pixels = np.asarray(picture.convert("RGB"))
    return _upright(pixels if pixels.ndim == 3 else pixels[..., None], orientation)


def _read_deep_png(path: Path, raw: str) -> np.ndarray:
    """Decode a 16-bit colour PNG; Pillow keeps the high byte only, so ask twice."""
    halves = {"LA;16B": ("RGBA",)}.get(raw, (raw, raw.replace("16B", "16L")))
    decoded = []
    for half in halves:
        with Image.open(path, formats=("PNG",)) as picture:
            # Decoding as little endian gives the low byte.
            picture.tile = [picture.tile[0]._replace(args=half)]
            decoded.append(np.asarray(picture).astype(np.uint16))
    if raw == "LA;16B":
        # Four bytes a pixel: grey high, grey low, alpha high, alpha low.
        return decoded[0][..., 0] * 256 + decoded[0][..., 1]
    return (decoded[0] * 256 + decoded[1])[..., :3]


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1..8) of an image (..., height, width, channels)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(-3, -2)
    if orientation in (3, 4, 7, 8):
        image = np.flip(image, -3)
    if orientation in (2, 3, 6, 7):
        image = np.flip(image, -2)
    return image


# TIFF.


class _DamageLog(logging.Handler):
    """Collects the complaints that this thread's reading causes."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep errors, and the warnings that speak of corruption."""
        text = record.getMessage()
        serious = record.levelno >= logging.ERROR or "corrupt" in text
        if serious and record.thread == self.thread:
            self.messages.append(text)


def _read_tiff(path: Path) -> StoredImage:
    """Decode a TIFF; one that lost pages is refused."""
    # tifffile only logs when a stack is cut short, and returns the pages left.
    damage, logger = _DamageLog(), logging.getLogger("tifffile")
    logger.addHandler(damage)
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.series) != 1:
                shapes = ", ".join(str(series.shape) for series in tiff.series)
                raise InputError(
                    f"{path}: holds {len(tiff.series)} images of shapes {shapes}; "
                    "expected one; save each as a file"
                )
            page, axes = tiff.series[0].keyframe, tiff.series[0].axes
            image = _spatial_then_channels(tiff.series[0].asarray(), axes, path)
            image = _tiff_colors(image, page, path)
            spacing = _tiff_spacing(page, tiff.imagej_metadata or {})
            orientation = page.tags.valueof("Orientation", 1)
    finally:
        logger.removeHandler(damage)
    if damage.messages:
        raise ValueError(damage.messages[0])
    image = _upright(image, orientation)
    known: tuple[float, ...] | None = None
    if spacing is not None:
        z, y, x = spacing
        plane = (x, y) if orientation >= 5 else (y, x)
        known = (z, *plane)[-(image.ndim - 1) :]
    if known is not None and 0.0 in known:
        known = None
    return StoredImage(path, image, None, known, "tiff")


def _spatial_then_channels(image: np.ndarray, axes: str, path: Path) -> np.ndarray:
    """Put the channel axis of a TIFF last, and leave the spatial axes in order."""
    for axis in reversed(range(len(axes))):
        if image.shape[axis] == 1 and axes[axis] not in "YX":
            image, axes = image.squeeze(axis), axes[:axis] + axes[axis + 1 :]
    if "Z" not in axes:
        # A plain stack of pages: tifffile calls its axis I, or Q for any other.
        axes = axes.replace("I", "Z").replace("Q", "Z")
    channel = axes.find("S") if "S" in axes else axes.find("C")
    if channel < 0:
        image = image[..., None]
    else:
        image = np.moveaxis(image, channel, -1)
        axes = axes[:channel] + axes[channel + 1 :]
    if axes not in ("YX", "ZYX"):
        raise InputError(
            f"{path}: axes {axes} of shape {image.shape[:-1]}; expected YX or ZYX "
            "with at most one channel axis; save one time point or channel a file"
        )
    return image


def _tiff_colors(image: np.ndarray, page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """Drop alpha and expand a palette; grey values stay as stored."""
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    if photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        # The table holds 16 bits a colour, of which the high byte counts.
        table = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        return table[image[..., 0]]
    if photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
        raise InputError(
            f"{path}: colours are {photometric.name}; expected grey, RGB or a palette; "
            "save it as RGB"
        )
    extra = page.extrasamples if page.samplesperpixel == image.shape[-1] else ()
    first = image.shape[-1] - len(extra)
    alpha = [first + index for index, kind in enumerate(extra) if int(kind) in (1, 2)]
    return np.delete(image, alpha, axis=-1) if alpha else image


def _tiff_spacing(
    page: tifffile.TiffPage, imagej: Mapping[str, object]
) -> tuple[float, float, float] | None:
    """Return millimetres a pixel on Z, Y, X (Z is 0 if unknown), or None."""
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1)))
    unit = str(imagej.get("unit", unit)).lower()
    x, y = (page.tags.valueof(f"{axis}Resolution", (0, 1)) for axis in "XY")
    if unit not in _MILLIMETRES or not all((*x, *y)):
        return None
    scale = _MILLIMETRES[unit]
    across, down = scale * x[1] / x[0], scale * y[1] / y[0]
    if not imagej and any(abs(25.4 / across - dpi) < 0.5 for dpi in _STOCK_DPI):
        return None
    depth = imagej.get("spacing", 0.0)
    return scale * abs(float(str(depth))), down, across


# NIfTI.


def _read_nifti(path: Path) -> StoredImage:
    """Decode a NIfTI as stored, with its affine in millimetres."""
    nifti = nibabel.load(path)
    if not isinstance(nifti, nibabel.Nifti1Image):
        raise InputError(
            f"{path}: is {type(nifti).__name__}; expected a NIfTI image; export it as "
            "a volume"
        )
    proxy: Any = nifti.dataobj
    scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
    image = np.asarray(proxy)
    if scaled:
        image = image.astype(np.float32)
    image = _nifti_channels(image, path)
    affine = np.array(nifti.affine, dtype=np.float64)
    affine[:3] *= _millimetres(nifti.header)
    spacing = np.sqrt(np.sum(affine[:3, :3] ** 2, axis=0))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise InputError(
            f"{path}: affine {affine[:3].tolist()} cannot be inverted; expected voxel "
            "directions and sizes; mend the header's sform or qform"
        )
    voxel = tuple(float(size) for size in spacing)
    return StoredImage(path, image, affine, voxel, "volume", nifti.header)


def _millimetres(header: nibabel.Nifti1Header) -> float:
    """Return the millimetres of the header's unit; without one it is millimetres."""
    unit = header.get_xyzt_units()[0]
    return {"meter": 1000.0, "micron": 1e-3}.get(unit, 1.0)


def _nifti_channels(image: np.ndarray, path: Path) -> np.ndarray:
    """Return (x, y, z, channels)."""
    if image.dtype.names:
        # RGB24 and RGBA32 are records; alpha is dropped.
        names = [name for name in image.dtype.names if name in "RGB"]
        image = np.stack([image[name] for name in names], axis=-1)
    elif image.ndim == 5 and image.shape[3] == 1:
        # NIfTI keeps axis 4 for time, so a vector stands on axis 5.
        image = image.squeeze(3)
    elif image.ndim <= 3:
        image = image[..., None]
    if image.ndim == 3:
        image = image[:, :, None]
    if image.ndim != 4:
        raise InputError(
            f"{path}: shape {image.shape}; expected (x, y, z) or (x, y, z, channels); "
            "save one volume a file"
        )
    return image


# Label maps.


def _check_labels(stored: StoredImage, labels: np.ndarray, classes: int) -> None:
    """Refuse what cannot be this image's label map."""
    if labels.shape != stored.image.shape[:-1]:
        raise ValueError(
            f"Labels of shape {labels.shape} for {stored.path} of "
            f"{stored.image.shape[:-1]}"
        )
    if labels.dtype.kind not in "ui":
        raise ValueError(f"Labels must be integers, not {labels.dtype}")
    limit = min(classes, 256 if stored.kind == "picture" else 65536)
    if labels.min() < 0 or labels.max() >= limit:
        raise ValueError(
            f"Labels {labels.min()}..{labels.max()} are outside the {limit} classes"
        )


def _target(folder: Path, source: Path) -> Path:
    """Return where the label map goes, which is nowhere that would lose an input."""
    target = folder / output_name(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}); expected a folder for the "
            "label maps; choose another"
        ) from error
    if target.resolve() == source.resolve() or (
        target.exists() and source.exists() and target.samefile(source)
    ):
        raise InputError(
            f"{target}: is the input image; expected another place for its label map; "
            "choose another output folder"
        )
    if target.exists() and folder.resolve() == source.parent.resolve():
        raise InputError(
            f"{target}: exists next to its image {source.name}, so it may be yours; "
            "expected no such file; choose another output folder"
        )
    return target


def _write_png(path: Path, labels: np.ndarray, palette: Sequence[Color]) -> None:
    """Write (height, width) uint8 as indices into a palette."""
    height, width = labels.shape
    picture = Image.frombytes("P", (width, height), labels.tobytes())
    picture.putpalette([part for color in palette for part in color])
    picture.save(path)


def _write_tiff(
    path: Path, labels: np.ndarray, spacing: tuple[float, ...] | None
) -> None:
    """Write (Y, X) or (Z, Y, X) with its axes and, if known, its spacing."""
    axes = "ZYX"[-labels.ndim :]
    if spacing is None:
        # Without minisblack three or four slices would count as colours.
        tifffile.imwrite(
            path, labels, photometric="minisblack", metadata={"axes": axes}
        )
        return
    metadata: dict[str, object] = {"axes": axes, "unit": "mm"}
    if labels.ndim == 3:
        metadata["spacing"] = spacing[0]
    # Only ImageJ's dialect has a place for the distance of slices.
    tifffile.imwrite(
        path,
        labels,
        imagej=True,
        photometric="minisblack",
        resolution=(1 / spacing[-1], 1 / spacing[-2]),
        metadata=metadata,
    )


def _write_nifti(path: Path, labels: np.ndarray, stored: StoredImage) -> None:
    """Write (x, y, z) with the header of its image."""
    if stored.header is None:
        header = nibabel.Nifti1Header()
        header.set_xyzt_units("mm")
    else:
        header = stored.header.copy()
    header.extensions.clear()
    header.set_data_dtype(labels.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    affine = np.array(stored.affine, dtype=np.float64)
    affine[:3] /= _millimetres(header)
    two = isinstance(header, nibabel.Nifti2Header)
    kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    # nibabel keeps the header's codes where the affine is the header's own.
    nibabel.save(kind(labels, affine, header), path)


def _digits(value: float) -> float:
    """Round to nine digits, so that a table shows 0.3 and not 0.30000000000000004."""
    return float(f"{value:.9g}")
