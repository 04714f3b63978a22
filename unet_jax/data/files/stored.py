"""An image or a mask as its file holds it, and how files are named."""

import dataclasses
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np

from unet_jax.errors import InputError

FORMS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".nii.gz": "gzip-compressed NIfTI",
    ".nii": "NIfTI",
}
SUFFIXES = tuple(FORMS)
"""File name endings that ``read_image`` knows, in any case."""


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


def file_suffix(path: Path) -> str:
    """Return the known ending of a file name, in lower case.

    Args:
        path: the file.

    Returns:
        One of ``SUFFIXES``.

    Raises:
        InputError: it has none of them.
    """
    for suffix in (".nii.gz", *SUFFIXES):
        if path.name.lower().endswith(suffix):
            return suffix
    raise InputError(
        f"{path}: unknown suffix {path.suffix!r}; expected one of "
        f"{' '.join(SUFFIXES)}; convert it to one of these"
    )


def output_name(path: str | Path) -> str:
    """Name the label map of an image: photo.jpg to photo.png, scan.nii to scan.nii.gz.

    Args:
        path: the image file.

    Returns:
        A file name without a folder.
    """
    path = Path(path)
    suffix = file_suffix(path)
    stem = path.name[: -len(suffix)]
    if suffix in (".nii", ".nii.gz"):
        return stem + ".nii.gz"
    if suffix in (".tif", ".tiff"):
        return stem + suffix
    return stem + ".png"


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF or TIFF orientation.

    Args:
        image: ``(..., height, width, channels)``.
        orientation: 1 to 8 as EXIF counts; others count as 1, upright.

    Returns:
        The image as it is meant to be seen.
    """
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(-3, -2)
    if orientation in (3, 4, 7, 8):
        image = np.flip(image, -3)
    if orientation in (2, 3, 6, 7):
        image = np.flip(image, -2)
    return image
