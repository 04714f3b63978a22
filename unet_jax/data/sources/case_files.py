"""From the files of a case to its image and its label."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unet_jax.data.canonical import as_case_image
from unet_jax.data.reading import read_image, read_label
from unet_jax.data.stored import StoredImage
from unet_jax.errors import InputError

KINDS = ("channels", "slices", "parts")
"""What several files of a case are: channels of its image (which has one mask), slices
of a volume (images and masks), or one binary mask a class (of one image)."""


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How files are read.

    Attributes:
        palette: colours of colour masks.
        palette_tolerance: largest difference of a channel that is forgiven.
        tiff_axes: axes of TIFF images; "" as they say. A mask has no channels that
            could be taken for slices.
        slice_axis: axis for the pages of TIFF stacks, and for slices that are files.
        known_spacing: millimetres on each axis of cases whose files say none; () if
            nobody knows.
    """

    palette: tuple[tuple[int, int, int], ...] = ()
    palette_tolerance: float = 0.0
    tiff_axes: str = ""
    slice_axis: int = 2
    known_spacing: tuple[float, ...] = ()


def read_case_image(
    files: Sequence[str | Path],
    options: ReadOptions,
    *,
    kind: str = "channels",
    finite: bool = True,
) -> tuple[np.ndarray, tuple[float, ...] | None, list[StoredImage]]:
    """Read the image of a case.

    Args:
        files: in the order of the channels, or of the slices.
        options: how to read.
        kind: one of ``KINDS``.
        finite: refuse NaN and infinite values.

    Returns:
        ``(*spatial, channels)`` on the case's axes, its spacing, and the files as
        stored.

    Raises:
        InputError: a file cannot be read, or the files differ in size.
    """
    axes = options.tiff_axes or None
    stored = [read_image(file, tiff_axes=axes, finite=finite) for file in files]
    parts = [as_case_image(one, options.slice_axis) for one in stored]
    images, spacing = [part[0] for part in parts], parts[0][1]
    if kind == "slices":
        image, spacing = _stacked(images, files, options.slice_axis), None
    else:
        _check_sizes([part.shape[:-1] for part in images], files, "channels")
        image = images[0] if len(images) == 1 else np.concatenate(images, axis=-1)
    if spacing is None and options.known_spacing:
        spacing = tuple(float(size) for size in options.known_spacing)
        if len(spacing) != image.ndim - 1 or min(spacing) <= 0:
            raise InputError(
                f"data.known_spacing: found {spacing}, expected {image.ndim - 1} sizes "
                f"above 0 in mm, one for each axis of {files[0]}"
            )
    return image, spacing, stored


def read_case_label(
    files: Sequence[str | Path],
    options: ReadOptions,
    *,
    kind: str = "channels",
    painted: Sequence[int] = (),
    shape: tuple[int, ...] = (),
) -> tuple[np.ndarray, StoredImage]:
    """Read the stored label values of a case.

    Args:
        files: the mask, or those of the slices, or those of the classes.
        options: how to read.
        kind: one of ``KINDS``.
        painted: for "parts" the value that each mask paints; later ones lie on top.
        shape: for "parts" the spatial shape of the image; masks that are an exact
            fraction of it are repeated to that size.

    Returns:
        ``(*spatial)`` integers on the case's axes, and the first file as stored.

    Raises:
        InputError: a file cannot be read, or the files differ in size.
    """
    if kind == "parts":
        return _painted(files, painted, shape)
    stored = [
        read_label(file, palette=options.palette, tolerance=options.palette_tolerance)
        for file in files
    ]
    parts = [as_case_image(one, options.slice_axis)[0] for one in stored]
    label = _stacked(parts, files, options.slice_axis) if kind == "slices" else parts[0]
    return label[..., 0], stored[0]


def _check_sizes(
    shapes: Sequence[tuple[int, ...]], files: Sequence[str | Path], what: str
) -> None:
    """Refuse files of one case that differ in size."""
    if len(set(shapes)) > 1:
        raise InputError(
            f"{files[0]}: its {what} have the sizes {sorted(set(shapes))}; expected "
            "one; export them on one grid"
        )


def _stacked(
    parts: Sequence[np.ndarray], files: Sequence[str | Path], axis: int
) -> np.ndarray:
    """Stack pictures to a volume."""
    for part, file in zip(parts, files, strict=True):
        if part.ndim != 3:
            raise InputError(
                f"{file}: {part.ndim - 1} spatial axes; expected a picture, one slice "
                "of its folder's volume; set data.stack=False"
            )
    _check_sizes([part.shape for part in parts], files, "slices (with channels)")
    return np.stack(parts, axis=axis)


def _painted(
    files: Sequence[str | Path], values: Sequence[int], shape: tuple[int, ...]
) -> tuple[np.ndarray, StoredImage]:
    """Paint binary masks over each other."""
    first = read_label(files[0])
    label: np.ndarray = np.zeros(first.image.shape[:-1], np.uint8)
    for number, (file, value) in enumerate(zip(files, values, strict=True)):
        mask = (read_label(file) if number else first).image[..., 0]
        _check_sizes([label.shape, mask.shape], [file], "image's masks")
        found = np.unique(mask)
        if len(found) > 2 or (len(found) == 2 and found[0] != 0):
            raise InputError(
                f"{file}: the values {found[:8].tolist()} ({len(found)} of them); "
                "expected 0 and one other, since it is the mask of one class; save it "
                "without blurred edges"
            )
        label[mask != 0] = value
    factor = shape[0] // label.shape[0] if shape else 1
    if factor > 1 and tuple(factor * size for size in label.shape) == shape:
        for axis in range(label.ndim):
            label = np.repeat(label, factor, axis=axis)
    return label, first
