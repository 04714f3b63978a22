"""Reads and writes NRRD and MetaImage, with SimpleITK: voxels with their affine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.data.files.stored import Color, StoredImage, check_affine
from unet_jax.errors import InputError

_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""ITK's axes run to the left and to the back, those of `StoredImage` to the right and
to the front."""

_PLANE = {"dimensions": "2"}
"""Tag of a file of one plane, whose label map is one too."""


def read_itk(path: Path, axes: str | None = None, indices: bool = False) -> StoredImage:
    """Decode a NRRD or MetaImage as stored, with its affine in millimetres.

    Returns:
        The volume ``(x, y, z, channels)``, its affine and spacing. A plane has one
        voxel on z; the fourth axis of a file is that of channels.

    Raises:
        InputError: SimpleITK is not installed, or the file has more than four axes.
        ValueError: the file is damaged.
    """
    sitk = _simpleitk(path)
    is_nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    try:
        # By itself SimpleITK finds no reader for a suffix in capitals.
        reader = "NrrdImageIO" if is_nrrd else "MetaImageIO"
        image = sitk.ReadImage(str(path), imageIO=reader)
    except RuntimeError as error:
        # The last line has the reason, the others places in ITK's source.
        raise ValueError(str(error).strip().splitlines()[-1]) from None
    dimensions = image.GetDimension()
    pixels = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        channels = np.moveaxis(pixels, -1, 0)
    elif dimensions == 4:
        channels = pixels
    else:
        channels = pixels[None]
    if channels.ndim not in (3, 4) or dimensions > 4:
        raise InputError(
            f"{path}: {dimensions} axes of sizes {image.GetSize()}; expected (x, y, z) "
            "or (x, y, z, channels); save one volume per file"
        )
    affine = _affine(image)
    check_affine(affine, path)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    tags = _PLANE if dimensions == 2 else {}
    if dimensions == 2:
        channels = channels[:, None]
    # ITK counts (x, y, z), and its arrays are (z, y, x).
    return StoredImage(path, channels.T, affine, spacing, "volume", tags=tags)


def _affine(image: Any) -> np.ndarray:
    """Return the affine (4, 4) of an image of two to four axes to RAS millimetres."""
    count = image.GetDimension()
    direction = np.array(image.GetDirection(), np.float64).reshape(count, count)
    used = min(count, 3)
    columns, affine = np.eye(3), np.eye(4)
    columns[:used, :used] = (direction * np.array(image.GetSpacing()))[:used, :used]
    affine[:3, :3] = _TO_RAS @ columns
    affine[:used, 3] = _TO_RAS[:used, :used] @ np.array(image.GetOrigin())[:used]
    return affine


def write_itk(
    path: Path, labels: np.ndarray, stored: StoredImage, palette: Sequence[Color]
) -> None:
    """Write a label map ``(x, y, z)`` at the place of its image, compressed."""
    sitk = _simpleitk(path)
    affine = _TO_RAS @ np.array(stored.affine, np.float64)[:3]
    spacing = np.linalg.norm(affine[:, :3], axis=0)
    direction, used = affine[:, :3] / spacing, 3
    if stored.tags.get("dimensions") == "2":
        labels, used = labels[..., 0], 2
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.T))
    image.SetSpacing(spacing[:used].tolist())
    image.SetOrigin(affine[:used, 3].tolist())
    image.SetDirection(direction[:used, :used].ravel().tolist())
    sitk.WriteImage(image, str(path), True)


def _simpleitk(path: Path) -> Any:
    """Import SimpleITK, which only these formats need."""
    try:
        import SimpleITK
    except ImportError:
        raise InputError(
            f"{path}: SimpleITK is not installed; expected it for NRRD and MetaImage "
            "files; run `pip install simpleitk`"
        ) from None
    return SimpleITK
