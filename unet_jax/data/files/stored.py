"""Holds an image or a mask as its file stores it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np

from unet_jax.errors import InputError

Color = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImage:
    """One image as its file stores it.

    Attributes:
        image: ``(*spatial, channels)`` in the stored dtype and axis order.
        affine: ``(4, 4)`` from voxel index to millimetres (RAS+); volumes only.
        spacing: millimetres per pixel on each stored spatial axis; None if unknown.
        kind: "picture" (PNG, JPEG, BMP, GIF), "tiff" or "volume" (all others).
        header: NIfTI header, so that a label map can have the same codes; without a
            header a label map has the affine only, in millimetres.
        orientation: EXIF or TIFF orientation of the file, 1 to 8; 1 is upright.
        transparent: ``(*spatial)`` bool, pixels with an alpha of 0; None if there are
            none, or nothing else.
        missing: ``(*spatial)`` bool, pixels that the file declares as missing (GDAL
            nodata); None if there are none.
        nodata: value that stands for missing pixels; None if the file declares none.
        colors: colour of each stored value of a mask, as far as the file states it.
        lossy: whether the compression changes pixels.
        step: difference of neighbouring values of a NIfTI with a slope; 0 without one.
        tags: what else the file states, in words, such as its photometric.
    """

    path: Path
    image: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...] | None
    kind: Literal["picture", "tiff", "volume"]
    header: nibabel.Nifti1Header | None = None
    _: dataclasses.KW_ONLY
    orientation: int = 1
    transparent: np.ndarray | None = None
    missing: np.ndarray | None = None
    nodata: float | None = None
    colors: Mapping[int, Color] = dataclasses.field(default_factory=dict)
    lossy: bool = False
    step: float = 0.0
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


def check_affine(affine: np.ndarray, path: Path) -> None:
    """Refuse an affine ``(4, 4)`` that cannot be inverted."""
    sizes = np.sqrt(np.sum(affine[:3, :3] ** 2, axis=0))
    # Only directions count: the voxels of a microscope are small, not flat.
    directions = affine[:3, :3] / np.where(sizes > 0, sizes, 1)
    if not np.isfinite(affine).all() or abs(np.linalg.det(directions)) < 1e-6:
        raise InputError(
            f"{path}: affine {affine[:3].tolist()} cannot be inverted; expected voxel "
            "directions and sizes; fix the header, of a NIfTI its sform or qform"
        )


def turned_upright(stored: StoredImage) -> StoredImage:
    """Undo the EXIF or TIFF orientation of an image; the spacing follows its axes."""
    orientation, spacing = stored.orientation, stored.spacing
    if orientation not in range(2, 9):
        return stored
    if spacing is not None and orientation >= 5:
        spacing = (*spacing[:-2], spacing[-1], spacing[-2])

    def turn(pixels: np.ndarray | None) -> np.ndarray | None:
        return (
            pixels
            if pixels is None
            else upright(pixels[..., None], orientation)[..., 0]
        )

    return dataclasses.replace(
        stored,
        image=upright(stored.image, orientation),
        spacing=spacing,
        transparent=turn(stored.transparent),
        missing=turn(stored.missing),
    )


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF or TIFF orientation.

    Args:
        image: ``(..., height, width, channels)``.
        orientation: 1 to 8 as EXIF counts; other values count as 1, upright.
    """
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(-3, -2)
    if orientation in (3, 4, 7, 8):
        image = np.flip(image, -3)
    if orientation in (2, 3, 6, 7):
        image = np.flip(image, -2)
    return image


def transparent_pixels(alpha: np.ndarray) -> np.ndarray | None:
    """Return where alpha is 0; None if that is nowhere or everywhere (alpha unused).

    Args:
        alpha: ``(*spatial)`` numbers.
    """
    transparent = alpha == 0
    return transparent if transparent.any() and not transparent.all() else None
