"""Writes label maps in the format of their images."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unet_jax.data.files.formats import format_of, output_name
from unet_jax.data.files.nifti import write_nifti
from unet_jax.data.files.stored import Color, StoredImage
from unet_jax.data.files.tiff import write_tiff
from unet_jax.errors import InputError
from unet_jax.runtime.atomic import atomic_path


def write_label_map(
    folder: str | Path,
    stored: StoredImage,
    labels: np.ndarray,
    palette: Sequence[Color],
) -> Path:
    """Write a label map in the format of its image, and overwrite no input.

    A picture gives a palette PNG (class index and colour in one file), a TIFF a TIFF
    with the same axes and spacing, a NIfTI a .nii.gz with the same affine, codes and
    units, a NRRD or MetaImage a .nrrd or .mha at the same place. The file appears
    complete or not at all.

    Args:
        folder: output folder; created if missing.
        labels: ``(*spatial)`` class indices on the stored grid, at most 65535 (255
            for pictures).

    Raises:
        InputError: the file would overwrite the image, or another file next to it.
        ValueError: labels have another shape, are outside the classes or no integers.
    """
    _check_labels(stored, labels, len(palette))
    target = _target(Path(folder), stored.path)
    kind = np.uint8 if labels.max() <= 255 else np.uint16
    labels = np.ascontiguousarray(labels, dtype=kind)
    with atomic_path(target) as temporary:
        format_of(stored.path).write(temporary, labels, stored, palette)
    return target


def map_name(stem: str, what: str, source: str | Path) -> str:
    """Name the map of an image: ``scan.entropy.nii.gz`` or ``photo.entropy.tif``."""
    ending = ".nii.gz" if format_of(Path(source)).volumes else ".tif"
    return f"{stem}.{what}{ending}"


def write_map(path: Path, stored: StoredImage, values: np.ndarray) -> None:
    """Write numbers of every pixel, float32, complete or not at all.

    A volume gives a NIfTI with its affine, any other image a TIFF with its spacing.

    Args:
        path: file to write, see `map_name`; its folder exists.
        values: ``(*spatial)`` on the stored grid.
    """
    write = write_tiff if stored.affine is None else write_nifti
    with atomic_path(path) as temporary:
        write(temporary, np.ascontiguousarray(values, np.float32), stored, ())


def check_targets(
    targets: Iterable[Path], *, inputs: Iterable[Path], overwrite: bool
) -> None:
    """Refuse to replace files, before their content is computed.

    Args:
        inputs: files that will be read; none of them is ever replaced, even if a target
            names it by a link or in other case.

    Raises:
        InputError: a target is an input, a folder, or exists and may not be replaced.
    """
    read = {_identity(path) for path in inputs}
    for target in targets:
        if not target.exists():
            continue
        if _identity(target) in read:
            raise InputError(
                f"{target}: is an input image, which is never overwritten; choose "
                "another output folder"
            )
        if target.is_dir():
            raise InputError(
                f"{target}: is a folder; expected nothing, or a file to replace; "
                "choose another output folder"
            )
        if not overwrite:
            raise InputError(
                f"{target}: exists; expected no such file; choose another output "
                "folder, or replace what is there with --overwrite"
            )


def _identity(path: Path) -> tuple[int, int]:
    """Return numbers that all names of one file have in common."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _check_labels(stored: StoredImage, labels: np.ndarray, classes: int) -> None:
    """Check that labels can be this image's label map."""
    if labels.shape != stored.image.shape[:-1]:
        raise ValueError(
            f"Labels of shape {labels.shape} for {stored.path} of "
            f"{stored.image.shape[:-1]}"
        )
    if labels.dtype.kind not in "ui":
        raise ValueError(f"Labels must be integers, not {labels.dtype}")
    limit = min(classes, 1 + format_of(stored.path).largest_label)
    if labels.min() < 0 or labels.max() >= limit:
        raise ValueError(
            f"Labels {labels.min()}..{labels.max()} are outside the {limit} classes"
        )


def _target(folder: Path, source: Path) -> Path:
    """Return the file of a label map, which overwrites no input."""
    target = folder / output_name(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be created ({error.strerror}); expected a folder for "
            "the label maps; choose another"
        ) from error
    if target.resolve() == source.resolve() or (
        target.exists() and source.exists() and target.samefile(source)
    ):
        raise InputError(
            f"{target}: is the input image, which is never overwritten; choose another "
            "output folder"
        )
    if target.exists() and folder.resolve() == source.parent.resolve():
        raise InputError(
            f"{target}: exists next to its image {source.name}, so it may be your own "
            "file; expected no such file; choose another output folder"
        )
    return target
