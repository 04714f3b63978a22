"""Reorients stored images to the axes of a case, and labels back."""

import dataclasses
from collections.abc import Callable

import nibabel
import numpy as np

from unet_jax.data.files.stored import StoredImage

Restore = Callable[[np.ndarray], np.ndarray]
"""Function that reorients labels from the axes of a case to those of its file."""


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Orientation of a stored volume, from ``to_canonical``.

    Attributes:
        axes: nearest RAS axis of each stored axis.
        flips: for each stored axis, 1 if it runs in the direction of its RAS axis, else
            -1.
    """

    axes: tuple[int, int, int]
    flips: tuple[int, int, int]


def to_canonical(
    image: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, tuple[float, ...], Orientation]:
    """Reorient a volume to right, anterior, superior by swapping and flipping axes.

    An oblique volume is not resampled: each axis gets the nearest direction.

    Args:
        image: ``(x, y, z, channels)`` or ``(x, y, z)`` in stored order.
        affine: ``(4, 4)`` from voxel index to millimetres.

    Returns:
        A view of the voxels in RAS order, the millimetres per voxel on each RAS axis,
        and the orientation for ``from_canonical``.
    """
    codes = nibabel.orientations.io_orientation(affine)
    axes, flips = codes.astype(int).T.tolist()
    sizes = np.sqrt(np.sum(np.asarray(affine, np.float64)[:3, :3] ** 2, axis=0))
    spacing = tuple(float(sizes[axes.index(axis)]) for axis in range(3))
    # A view, because a copy of a large volume would stay in memory beside it.
    turned = nibabel.orientations.apply_orientation(image, codes)
    return turned, spacing, Orientation(tuple(axes), tuple(flips))


def from_canonical(labels: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Reorient a volume from RAS to the stored order of its image.

    Args:
        labels: ``(x, y, z)``; more axes may follow.

    Returns:
        The voxels in stored order.
    """
    stored = np.transpose(labels, (*orientation.axes, *range(3, labels.ndim)))
    for axis, flip in enumerate(orientation.flips):
        if flip < 0:
            stored = np.flip(stored, axis)
    return np.ascontiguousarray(stored)


def as_case_image(
    stored: StoredImage, slice_axis: int, *, turned: bool = True
) -> tuple[np.ndarray, tuple[float, ...] | None, Restore]:
    """Reorient an image to the axes of a case.

    A NIfTI is reoriented to RAS, and becomes a picture if it is a single slice. A TIFF
    stack has no directions of the patient, so its pages go to ``slice_axis``.

    Args:
        slice_axis: axis for the pages of a TIFF stack.
        turned: whether a NIfTI is reoriented; without, its axes stay as stored.

    Returns:
        The image ``(*spatial, channels)``, its spacing on these axes, and the way back
        for labels ``(*spatial)``.
    """
    if stored.affine is not None:
        return _nifti_case(stored, turned)
    if stored.image.ndim == 3:
        return stored.image, stored.spacing, np.asarray
    pages, sizes = np.moveaxis(stored.image, 0, slice_axis), stored.spacing
    if sizes is not None:
        sizes = tuple(np.insert(sizes[1:], slice_axis, sizes[0]).tolist())
    return pages, sizes, lambda labels: np.moveaxis(labels, slice_axis, 0)


def _nifti_case(
    stored: StoredImage, turned: bool
) -> tuple[np.ndarray, tuple[float, ...] | None, Restore]:
    """Reorient to RAS if asked for, and drop the axis of a single slice."""
    assert stored.affine is not None
    image, spacing, orientation = to_canonical(stored.image, stored.affine)
    if not turned:
        assert stored.spacing is not None
        image, spacing = stored.image, stored.spacing
        orientation = Orientation((0, 1, 2), (1, 1, 1))
    single = [axis for axis, size in enumerate(image.shape[:-1]) if size == 1]
    if len(single) != 1:
        return image, spacing, lambda labels: from_canonical(labels, orientation)
    axis = single[0]
    left = tuple(size for other, size in enumerate(spacing) if other != axis)

    def restore(labels: np.ndarray) -> np.ndarray:
        return from_canonical(np.expand_dims(labels, axis), orientation)

    return image.squeeze(axis), left, restore
