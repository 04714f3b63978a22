"""Holds an image or a mask as its file stores it."""

import dataclasses
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np

Color = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImage:
    """One image as its file stores it.

    Attributes:
        image: ``(*spatial, channels)`` in the stored dtype and axis order.
        affine: ``(4, 4)`` from voxel index to millimetres (RAS+); NIfTI only.
        spacing: millimetres per pixel on each stored spatial axis; None if unknown.
        kind: "picture" (PNG, JPEG, BMP), "tiff" or "volume" (NIfTI).
        header: NIfTI header, so that a label map can have the same codes; without a
            header a label map has the affine only, in millimetres.
    """

    path: Path
    image: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...] | None
    kind: Literal["picture", "tiff", "volume"]
    header: nibabel.Nifti1Header | None = None


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
