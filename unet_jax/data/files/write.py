"""Label maps out, in the form of their images, and tables of what they hold."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from PIL import Image

from unet_jax.data.files.nifti import millimetres
from unet_jax.data.files.stored import StoredImage, output_name
from unet_jax.errors import InputError
from unet_jax.runtime.atomic import atomic_path

Color = tuple[int, int, int]


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


def check_targets(
    targets: Iterable[Path], *, inputs: Iterable[Path], overwrite: bool
) -> None:
    """Refuse to replace files, before the work that they are to hold.

    Args:
        targets: files that will be written.
        inputs: files that will be read; none of them is ever replaced, by whatever
            name, link or case a target has it.
        overwrite: whether other files may be replaced.

    Raises:
        InputError: a target is an input, a folder, or exists and may not be replaced.
    """
    read = {_identity(path) for path in inputs}
    for target in targets:
        if not target.exists():
            continue
        if _identity(target) in read:
            raise InputError(
                f"{target}: is an input image; expected another place for what is "
                "written; choose another output folder"
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
    """Return what two names of one file have in common."""
    found = path.stat()
    return found.st_dev, found.st_ino


def label_statistics(
    labels: np.ndarray,
    spacing: tuple[float, ...] | None,
    *,
    file: str,
    class_names: Sequence[str],
) -> list[dict[str, object]]:
    """Count the pixels of every class, and measure them where the spacing is known.

    Args:
        labels: ``(*spatial)`` class indices.
        spacing: millimetres a pixel on each spatial axis, or None.
        file: what to write in the column of that name.
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
    affine[:3] /= millimetres(header)
    two = isinstance(header, nibabel.Nifti2Header)
    kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    # nibabel keeps the header's codes where the affine is the header's own.
    nibabel.save(kind(labels, affine, header), path)


def _digits(value: float) -> float:
    """Round to nine digits, so that a table shows 0.3 and not 0.30000000000000004."""
    return float(f"{value:.9g}")
