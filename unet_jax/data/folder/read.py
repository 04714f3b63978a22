"""Reads the image and the label of a case from its files."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unet_jax.data.files.dicom import mask_kind
from unet_jax.data.files.formats import format_of
from unet_jax.data.files.read import read_image, read_label
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.folder.alignment import misplaced
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.folder.segments import read_dicom_mask
from unet_jax.errors import InputError, SharedProblem, named_files, raise_all, setting

KINDS = ("channels", "slices", "parts", "union")
"""Meaning of several files of a case: channels of its image (which has one mask),
slices of a volume (images and masks), one binary mask per class (of one image), or
masks whose union is the label (images may be channels)."""


class StoredCase(NamedTuple):
    """A case whose label has the stored values, which may be no classes yet.

    Attributes:
        image: ``(*spatial, channels)`` on the case's axes.
        label: ``(*spatial)`` integers, the stored values.
        spacing: millimetres per pixel and axis; None if unknown.
        missing: ``(*spatial)`` bool, pixels without data, which are ignored; None if
            there are none.
    """

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, ...] | None
    missing: np.ndarray | None = None


def used_slice_axis(
    images: Sequence[str | Path], options: ReadOptions, kind: str
) -> int | None:
    """Return the axis that slices or pages are stacked along; None without any."""
    stacked = kind == "slices" or any(format_of(Path(file)).pages for file in images)
    return options.slice_axis if stacked else None


def read_case_image(
    files: Sequence[str | Path],
    options: ReadOptions,
    *,
    kind: str = "channels",
    finite: bool = True,
) -> tuple[np.ndarray, tuple[float, ...] | None, list[StoredImage]]:
    """Read the image of a case.

    Args:
        files: image files, in the order of the channels or slices.

    Returns:
        ``(*spatial, channels)`` on the case's axes, its spacing, and the files as
        stored.

    Raises:
        InputErrors: one error for each file that cannot be read or has another size.
        SharedProblem: the known spacing does not fit.
    """
    axes = options.tiff_axes or None
    upright = options.orientation != "stored"
    stored = _each(
        files,
        lambda file: (
            _read_mask(file, options)
            if options.labels_only
            else read_image(file, tiff_axes=axes, upright=upright, finite=finite)
        ),
    )
    parts = [options.as_case_image(one) for one in stored]
    images, spacing = [part[0] for part in parts], parts[0][1]
    if kind == "slices":
        image, spacing = _stacked(images, files, options.slice_axis), None
    else:
        _check_sizes([part.shape[:-1] for part in images], files, "channels")
        image = images[0] if len(images) == 1 else np.concatenate(images, axis=-1)
    if spacing is None and options.known_spacing:
        spacing = tuple(float(size) for size in options.known_spacing)
        if len(spacing) != image.ndim - 1 or min(spacing) <= 0:
            raise SharedProblem(
                str(files[0]),
                f"data.known_spacing is {spacing}; expected {image.ndim - 1} sizes "
                "above 0 in mm, one per axis",
            )
    return image, spacing, stored


def read_case_label(
    files: Sequence[str | Path],
    options: ReadOptions,
    *,
    kind: str = "channels",
    painted: Sequence[int] = (),
    shape: tuple[int, ...] = (),
    grid: StoredImage | None = None,
) -> tuple[np.ndarray, list[StoredImage]]:
    """Read the stored label values of a case.

    Args:
        files: the mask, or the masks of the slices, of the classes or of the union.
        painted: for "parts", the value that each mask paints; later masks cover
            earlier ones.
        shape: for "parts", the spatial shape of the image; masks that are an exact
            fraction of it are repeated to that size.
        grid: the image, whose grid a DICOM mask is read on.

    Returns:
        ``(*spatial)`` integers on the case's axes, and the files as stored.

    Raises:
        InputErrors: one error for each file that cannot be read or has another size.
    """
    upright = options.orientation != "stored"
    if kind == "parts":
        return _painted(files, painted, shape, upright)
    stored = _each(files, lambda file: _read_mask(file, options, grid))
    parts = [options.as_case_image(one)[0] for one in stored]
    if kind == "slices":
        return _stacked(parts, files, options.slice_axis)[..., 0], stored
    label = parts[0] if len(parts) == 1 else _union(parts, stored)
    return label[..., 0], stored


def joined(
    image: np.ndarray,
    label: np.ndarray,
    spacing: tuple[float, ...] | None,
    *,
    images: Sequence[StoredImage],
    masks: Sequence[StoredImage],
    options: ReadOptions,
    kind: str,
) -> StoredCase:
    """Join image and label, which have one size, and find the pixels without data."""
    found = [missing_of_case(images, options, kind)]
    if kind != "parts":
        found.append(missing_of_case(masks, options, kind))
    missing = [one for one in found if one is not None]
    if not missing:
        return StoredCase(image, label, spacing)
    without = np.logical_or.reduce(missing)
    if not without.all():
        # A value under missing pixels is of no class, and need not be mapped to one.
        label = np.where(without, label[~without][0], label)
    return StoredCase(image, label, spacing, without)


def missing_of_case(
    stored: Sequence[StoredImage], options: ReadOptions, kind: str
) -> np.ndarray | None:
    """Join the missing pixels of the files of a case on its axes; None for none."""
    if all(one.missing is None for one in stored):
        return None
    parts = []
    for one in stored:
        missing = one.missing
        if missing is None:
            missing = np.zeros(one.image.shape[:-1], bool)
        pixels = dataclasses.replace(one, image=missing[..., None])
        parts.append(options.as_case_image(pixels)[0][..., 0])
    if kind == "slices":
        return np.stack(parts, axis=options.slice_axis)
    return np.asarray(np.logical_or.reduce(parts))


def file_with_values(
    files: Sequence[str | Path], values: AbstractSet[int], options: ReadOptions
) -> str:
    """Find the mask of a case that stores certain values.

    Args:
        files: readable masks of the case: one, or one per slice.

    Returns:
        The first file that has one of the values.
    """
    for file in files[:-1]:
        if mask_kind(Path(file)):  # segments without a class were refused by name
            break
        label, _ = read_case_label([file], options)
        if values & set(np.unique(label).tolist()):
            return str(file)
    return str(files[-1])


def image_of_mask(
    images: Sequence[str | Path], masks: Sequence[str | Path]
) -> StoredImage | None:
    """Read the image whose grid a DICOM mask is read on; None for other masks."""
    return read_image(images[0]) if mask_kind(Path(masks[0])) else None


def _read_mask(
    file: str | Path, options: ReadOptions, grid: StoredImage | None = None
) -> StoredImage:
    """Read the values that a mask stores."""
    if grid is not None and mask_kind(Path(file)):
        return read_dicom_mask(
            Path(file), image=grid, segments=options.segments, regions=options.regions
        )
    stored = read_label(
        file,
        palette=options.palette,
        tolerance=options.palette_tolerance,
        upright=options.orientation != "stored",
    )
    if options.labels_only:  # both image and label: wide integers would take gigabytes
        ends = stored.image.min(), stored.image.max()
        small = np.result_type(*map(np.min_scalar_type, ends))
        stored = dataclasses.replace(stored, image=stored.image.astype(small))
    return stored


def _each(
    files: Sequence[str | Path], read: Callable[[str | Path], StoredImage]
) -> list[StoredImage]:
    """Read all files, and raise the errors of all that cannot be read."""
    stored, problems = [], []
    for file in files:
        try:
            stored.append(read(file))
        except InputError as error:
            problems.append(error)
    raise_all(problems)
    return stored


def _check_sizes(
    shapes: Sequence[tuple[int, ...]], files: Sequence[str | Path], what: str
) -> None:
    """Name the files of a case whose size differs from most."""
    (most, _), *others = Counter(shapes).most_common()
    problems = []
    for size, _ in others:
        names = [str(f) for f, s in zip(files, shapes, strict=True) if s == size]
        problems.append(
            InputError(
                f"{named_files(names)}: size {size}; expected {most} as the other "
                f"{what}; export them on one grid"
            )
        )
    raise_all(problems)


def _stacked(
    parts: Sequence[np.ndarray], files: Sequence[str | Path], axis: int
) -> np.ndarray:
    """Stack pictures to a volume."""
    raise_all(
        [
            InputError(
                f"{file}: {part.ndim - 1} spatial axes; expected a picture, one slice "
                f"of its folder's volume; give {setting('data.stack', False)}"
            )
            for part, file in zip(parts, files, strict=True)
            if part.ndim != 3
        ]
    )
    _check_sizes([part.shape for part in parts], files, "slices (with channels)")
    return np.stack(parts, axis=axis)


def _union(parts: Sequence[np.ndarray], stored: Sequence[StoredImage]) -> np.ndarray:
    """Join masks; each pixel has the one value that is not 0 in any of them."""
    files = [str(one.path) for one in stored]
    _check_sizes([part.shape for part in parts], files, "masks of the image")
    kind = np.result_type(*parts)
    kind = kind if kind.kind in "iu" else np.dtype(np.int64)  # of uint64 and int64
    label = parts[0].astype(kind)
    for part, one in zip(parts[1:], stored[1:], strict=True):
        if problem := misplaced(stored[0], one):
            raise InputError(problem)
        other = (label != 0) & (part != 0) & (label != part)
        if other.any():
            values = int(label[other][0]), int(part[other][0])
            raise InputError(
                f"{one.path}: {int(other.sum())} pixels have another value than in "
                f"{files[0]} and the masks after it, such as {values[1]} where those "
                f"have {values[0]}; expected masks that do not contradict each other; "
                "fix the masks, or remove one"
            )
        label = np.where(part != 0, part.astype(kind), label)
    return label


def _painted(
    files: Sequence[str | Path],
    values: Sequence[int],
    shape: tuple[int, ...],
    upright: bool,
) -> tuple[np.ndarray, list[StoredImage]]:
    """Paint binary masks over each other."""
    stored = _each(files, lambda file: _read_part(file, upright))
    masks = [one.image[..., 0] for one in stored]
    _check_sizes([mask.shape for mask in masks], files, "masks of the image")
    label: np.ndarray = np.zeros(masks[0].shape, np.uint8)
    for mask, value in zip(masks, values, strict=True):
        label[mask != 0] = value
    factor = shape[0] // label.shape[0] if shape else 1
    if factor > 1 and tuple(factor * size for size in label.shape) == shape:
        for axis in range(label.ndim):
            label = np.repeat(label, factor, axis=axis)
    return label, stored


def _read_part(file: str | Path, upright: bool) -> StoredImage:
    """Read the mask of one class."""
    stored = read_label(file, upright=upright)
    found = np.unique(stored.image)
    if len(found) > 2 or (len(found) == 2 and found[0] != 0):
        raise InputError(
            f"{file}: the values {found[:8].tolist()} ({len(found)} of them); "
            "expected 0 and one other, because it is the mask of one class; save it "
            "without blurred edges"
        )
    return stored
