"""Reads images and masks of every format.

Pixels keep their stored values and dtype. Only three things are undone: an EXIF or TIFF
orientation (cameras store sideways), a palette, and a NIfTI intensity scale that is not
the identity.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unet_jax.data.files.colors import ColorsError, count_colors, match_palette
from unet_jax.data.files.formats import (
    FORMATS,
    SUFFIXES,
    content_name,
    file_suffix,
    format_of,
    output_name,
)
from unet_jax.data.files.stored import StoredImage
from unet_jax.errors import InputError

# Two flat values may survive; between more values a lossy format makes new ones.
_LOSSY_VALUES = 2

# Larger values wrap around when they are looked up.
_LARGEST_VALUE = 2**53


def list_images(path: str | Path) -> list[Path]:
    """List the image files of a path.

    Args:
        path: an image file, or a folder; only files directly in the folder are taken.

    Raises:
        InputError: the path does not exist, has no readable file, or has two files
            whose label maps would have the same name.
    """
    path = Path(path)
    known = " ".join(SUFFIXES)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give an image or a folder")
    if not path.is_dir():
        file_suffix(path)
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


def read_image(
    path: str | Path, *, tiff_axes: str | None = None, finite: bool = True
) -> StoredImage:
    """Read one image exactly.

    Pictures lose their alpha channel, keep 16 bits, and are turned upright; 1-bit
    images become uint8 of 0 and 255; palettes and CMYK become RGB. TIFF axes come from
    the file's metadata: (Z, Y, X) or (Y, X); a plain stack of pages counts as Z. A
    NIfTI of four axes has its channels on the last.

    Args:
        tiff_axes: name of each axis of a TIFF, such as "CYX"; None takes the names from
            the file. Other formats define their axes.
        finite: whether to refuse NaN and infinite values; if not, the caller has to
            call `check_finite`.

    Raises:
        InputError: the file is missing, a folder, empty, damaged, without pixels, of an
            unknown or another format, or has values that are not finite.
    """
    stored = _decode(Path(path), tiff_axes=tiff_axes, indices=False)
    if finite:
        check_finite(stored.image, name=str(path))
    return stored


def read_label(
    path: str | Path, *, palette: Sequence[Sequence[int]] = (), tolerance: float = 0.0
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
    stored = _decode(path, tiff_axes=None, indices=not palette)
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
        values = _whole_numbers(values, path)
    kind = format_of(path)
    if kind.lossy and not palette:
        count = len(np.unique(values))
        if count > _LOSSY_VALUES:
            raise InputError(
                f"{path}: {count} different values; expected at most "
                f"{_LOSSY_VALUES} in a {kind.name}, which blurs the edges of a "
                "mask into values of no class; save masks as PNG or TIFF"
            )
    return dataclasses.replace(stored, image=values)


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


def _whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """Turn floats that are whole numbers into integers."""
    whole = np.rint(values)
    wrong = values != whole
    if wrong.any():
        raise InputError(
            f"{path}: {int(wrong.sum())} of {values.size} values are no whole numbers, "
            f"such as {values[wrong][0]:g}; expected the class of every pixel; save "
            "the mask without interpolation"
        )
    return whole.astype(np.int64)


def _decode(path: Path, *, tiff_axes: str | None, indices: bool) -> StoredImage:
    """Decode a file of any format to plain numbers, at least one pixel."""
    kind = format_of(path)
    _check_content(path, kind.name)
    with _decoding(path, kind.name):
        stored = kind.read(path, tiff_axes, indices)
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
    """Refuse an image with NaN or infinite values, and count them."""
    if image.dtype.kind != "f":
        return
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        raise InputError(
            f"{name}: {bad} of {image.size} values are NaN or infinite; expected "
            "finite numbers; replace them, e.g. with numpy.nan_to_num, and save again"
        )


def _check_content(path: Path, expected: str) -> None:
    """Compare the first bytes with the suffix, so that no decoder has to guess."""
    if path.is_dir():
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
