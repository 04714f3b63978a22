"""Reads images and masks of every format.

Pixels keep their stored values and dtype, except where the file itself gives them
another meaning: an EXIF or TIFF orientation, a palette, alpha, a photometric in which 0
is white, and a NIfTI intensity scale are applied (docs/data.md lists all).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unet_jax.data.files.colors import ColorsError, count_colors, match_palette
from unet_jax.data.files.dicom import dicom_files, is_series, mask_kind
from unet_jax.data.files.formats import (
    FORMATS,
    SUFFIXES,
    content_name,
    file_suffix,
    format_of,
    output_name,
)
from unet_jax.data.files.nodata import filled, is_class
from unet_jax.data.files.stored import StoredImage, turned_upright
from unet_jax.errors import InputError

# Two flat values may survive; between more values a lossy format makes new ones.
_LOSSY_VALUES = 2

# Larger values wrap around when they are looked up.
_LARGEST_VALUE = 2**53

# Larger intensities are marks of missing values, such as the largest float32.
_LARGEST_INTENSITY = 1e30

# A NIfTI of whole numbers whose slope is larger than this may hold other numbers.
_LARGEST_STEP = 0.1

# A rounded slope, 0.50001 for 0.5, moves a whole number by less than this.
_SLOPE_ERROR = 1e-3


def list_images(path: str | Path) -> list[Path]:
    """List the image files of a path.

    Args:
        path: an image file, a folder with a DICOM series, or a folder of such images;
            only those directly in the folder are taken.

    Raises:
        InputError: the path does not exist, has no readable file, or has two files
            whose label maps would have the same name.
    """
    path = Path(path)
    known = " ".join(SUFFIXES)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give an image or a folder")
    if not path.is_dir() or is_series(path):
        file_suffix(path)
        return [path]
    names = sorted(entry for entry in path.iterdir() if entry.is_file())
    files = [name for name in names if name.name.lower().endswith(SUFFIXES)]
    files += [one for one in path.iterdir() if one.is_dir() and is_series(one)]
    files = [one for one in files if not (one.name.startswith(".") or mask_kind(one))]
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


def read_image(
    path: str | Path,
    *,
    tiff_axes: str | None = None,
    upright: bool = True,
    finite: bool = True,
) -> StoredImage:
    """Read one image exactly.

    Pictures keep 16 bits, and are turned upright; alpha is dropped, and pixels without
    any opacity become 0, because nobody sees their colours; 1-bit images become uint8
    of 0 and 255; palettes and CMYK become RGB. Pixels that a TIFF declares as missing
    get the mean of the others, and `StoredImage.missing`. TIFF axes come from the
    file's metadata: (Z, Y, X) or (Y, X); a plain stack of pages counts as Z. A NIfTI of
    four axes has its channels on the last.

    Args:
        tiff_axes: name of each axis of a TIFF, such as "CYX"; None takes the names from
            the file. Other formats define their axes.
        upright: whether to undo an EXIF or TIFF orientation.
        finite: whether to refuse NaN and infinite values; if not, the caller has to
            call `check_finite`.

    Raises:
        InputError: the file is missing, a folder, empty, damaged, without pixels, of an
            unknown or another format, or has values that are not finite.
    """
    stored = _decode(Path(path), tiff_axes=tiff_axes, indices=False, upright=upright)
    if stored.transparent is not None:
        image = np.where(stored.transparent[..., None], 0, stored.image)
        stored = dataclasses.replace(stored, image=image.astype(stored.image.dtype))
    if stored.missing is not None:
        image = filled(stored.image, stored.missing)
        stored = dataclasses.replace(stored, image=image)
    if finite:
        check_finite(stored.image, name=str(path))
    return stored


def read_label(
    path: str | Path,
    *,
    palette: Sequence[Sequence[int]] = (),
    tolerance: float = 0.0,
    upright: bool = True,
) -> StoredImage:
    """Read the value that a mask stores for every pixel, exactly.

    A palette file gives its indices; a grey file gives its values (0 and 1 of one bit).
    Alpha is dropped, and three equal channels are grey. With a ``palette``, colours
    (also those of a palette file) give the index of the entry that they match; no
    colour is replaced by the nearest entry beyond the tolerance.

    Returns:
        The mask; its ``image`` is ``(*spatial, 1)`` integers.

    Raises:
        InputError: in the cases of `read_image`, and for a colour that matches no entry
            or two, colours without a palette, or values that are no whole numbers.
    """
    path = Path(path)
    stored = _decode(path, tiff_axes=None, indices=not palette, upright=upright)
    _check_transparency(stored)
    missing = stored.missing
    if missing is not None and stored.nodata is not None:
        if is_class(stored.nodata):
            missing = None
        else:
            image = np.where(missing[..., None], 0, stored.image)
            stored = dataclasses.replace(stored, image=image)
    values = _one_channel(stored.image, palette, tolerance, str(path))
    if values.dtype.kind == "f":
        check_finite(values, name=str(path))
    low, high = values.min(), values.max()
    if max(-float(low), float(high)) > _LARGEST_VALUE:
        raise InputError(
            f"{path}: values from {low} to {high}; expected the class of every pixel, "
            f"or object numbers up to {_LARGEST_VALUE}; renumber the objects"
        )
    if values.dtype.kind == "f":
        values = _whole_numbers(values, stored)
    kind = format_of(path)
    if (kind.lossy or stored.lossy) and not palette:
        count = len(np.unique(values))
        if count > _LOSSY_VALUES:
            name = kind.name if kind.lossy else f"{kind.name} compressed as JPEG"
            raise InputError(
                f"{path}: {count} different values; expected at most "
                f"{_LOSSY_VALUES} in a {name}, which blurs the edges of a "
                "mask into values of no class; save masks as PNG or lossless TIFF"
            )
    colors = stored.colors
    if not colors and not palette and stored.kind != "volume":
        colors = {0: (0, 0, 0)}  # other greys may be meant as numbers of classes
    return dataclasses.replace(stored, image=values, colors=colors, missing=missing)


def _one_channel(
    values: np.ndarray, palette: Sequence[Sequence[int]], tolerance: float, name: str
) -> np.ndarray:
    """Reduce grey or colours to one value per pixel."""
    channels = values.shape[-1]
    if channels not in (1, 3):
        raise InputError(
            f"{name}: {channels} channels; expected one value per pixel, or red, green "
            "and blue; save one mask per file"
        )
    if palette:
        colors = values if channels == 3 else np.repeat(values, 3, axis=-1)
        return match_palette(colors, palette, tolerance=tolerance, name=name)
    if channels == 3 and (values != values[..., :1]).any():
        raise ColorsError(name, count_colors(values, name=name))
    return values[..., :1]


def _check_transparency(stored: StoredImage) -> None:
    """Refuse a mask in which one value is both visible and transparent."""
    if stored.transparent is None:
        return
    hidden, shown = (
        set(map(tuple, np.unique(stored.image[where], axis=0).tolist()))
        for where in (stored.transparent, ~stored.transparent)
    )
    if both := sorted(hidden & shown):
        value = both[0][0] if len(both[0]) == 1 else both[0]
        raise InputError(
            f"{stored.path}: the value {value} is visible in some pixels and fully "
            "transparent in others; expected one meaning for a value; save the mask "
            "without alpha, with a value of its own for what is transparent now"
        )


def _whole_numbers(values: np.ndarray, stored: StoredImage) -> np.ndarray:
    """Turn floats that are whole numbers into integers.

    A NIfTI with a slope stores the nearest of its steps, so that a whole number may be
    half a step away.
    """
    whole, step = np.rint(values), stored.step
    rounding = 4e-7 * np.maximum(np.abs(values), 1) if step else 0.0
    half = step / 2 if step <= _LARGEST_STEP else _SLOPE_ERROR
    half = half if step else 0.0
    wrong = np.abs(values - whole) > half + rounding
    if wrong.any():
        fix = "save the mask without interpolation"
        if step:
            fix += f", or with scl_slope 1 in place of {step:.6g}"
        raise InputError(
            f"{stored.path}: {int(wrong.sum())} of {values.size} values are no whole "
            f"numbers, such as {values[wrong][0]:g}; expected the class of every "
            f"pixel; {fix}"
        )
    return whole.astype(np.int64)


def _decode(
    path: Path, *, tiff_axes: str | None, indices: bool, upright: bool
) -> StoredImage:
    """Decode a file of any format to plain numbers, at least one pixel."""
    kind = format_of(path)
    _check_content(path, kind.name)
    with _decoding(path, kind.name):
        stored = kind.read(path, tiff_axes, indices)
    if upright:
        stored = turned_upright(stored)
    if indices and stored.image.dtype == bool:
        stored = dataclasses.replace(stored, image=stored.image.astype(np.uint8))
    image = _plain_numbers(stored.image, path)
    if not image.size:
        raise InputError(
            f"{path}: shape {image.shape} has no pixels; expected an image; export it "
            "again"
        )
    return dataclasses.replace(stored, image=image)


def check_finite(image: np.ndarray, *, name: str) -> None:
    """Refuse an image with NaN, infinite or huge values, and count them."""
    if image.dtype.kind != "f":
        return
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        raise InputError(
            f"{name}: {bad} of {image.size} values are NaN or infinite; expected "
            "finite numbers; replace them, e.g. with numpy.nan_to_num, and save again"
        )
    low, high = (float(value) for value in (image.min(), image.max()))
    if max(-low, high) > _LARGEST_INTENSITY:
        extreme = high if high > _LARGEST_INTENSITY else low
        raise InputError(
            f"{name}: {int(np.count_nonzero(image == extreme))} of {image.size} values "
            f"are {extreme:.6g}; expected intensities, and this is a mark of missing "
            "values; replace it, or declare it in a TIFF with "
            f"gdal_edit.py -a_nodata {extreme!r}"
        )


def _check_content(path: Path, expected: str) -> None:
    """Compare the first bytes with the suffix, so that no decoder has to guess."""
    if path.is_dir():
        if dicom_files(path):
            return
        raise InputError(f"{path}: is a folder; expected a {expected} file")
    if not path.exists():
        found, fix = "no such file", ""
        if path.is_symlink():
            found = f"a link to nothing ({path.readlink()})"
            fix = "; put the file back, or remove the link"
        raise InputError(f"{path}: {found}; expected a {expected} file{fix}")
    with _decoding(path, expected):
        found = content_name(path)
    if not found:
        raise InputError(
            f"{path}: is empty (0 bytes); expected {expected}; copy it again"
        )
    if found != expected:
        known = found in [one.name for one in FORMATS]
        fix = "rename it" if known else "export or copy it again"
        raise InputError(
            f"{path}: holds {found}; expected {expected} as its name says; {fix}"
        )


@contextlib.contextmanager
def _decoding(path: Path, form: str) -> Iterator[None]:
    """Turn any exception of a decoder into one line.

    Decoders fail on damaged bytes with any exception (struct.error, zlib.error,
    KeyError, SyntaxError, ...), so all but ours are caught; the cause is kept.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        found = " ".join(str(error).split())[:120] or type(error).__name__
        fix = "export or copy it again"
        if isinstance(error, Image.DecompressionBombError):
            fix = "save an image of this size as TIFF"
        raise InputError(
            f"{path}: cannot be read ({found}); expected a whole {form} file; {fix}"
        ) from error


def _plain_numbers(image: np.ndarray, path: Path) -> np.ndarray:
    """Convert pixels to the machine's byte order; 1 bit becomes 0 and 255."""
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
