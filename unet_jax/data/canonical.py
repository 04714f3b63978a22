"""From a stored image to the axes that a case has, and back."""

from collections.abc import Callable

import numpy as np

from unet_jax.data.preprocess import from_canonical, to_canonical
from unet_jax.data.stored import StoredImage

Restore = Callable[[np.ndarray], np.ndarray]
"""Brings labels from the case's axes back to those of the file."""


def as_case_image(
    stored: StoredImage, slice_axis: int
) -> tuple[np.ndarray, tuple[float, ...] | None, Restore]:
    """Give an image the axes of a case.

    A NIfTI is turned to RAS; one that is a single slice becomes a picture. The pages of
    a TIFF stack, which says nothing of the patient, go to ``slice_axis``.

    Args:
        stored: the image, or a mask, as its file holds it.
        slice_axis: axis that the pages of a TIFF stack stand on.

    Returns:
        The image ``(*spatial, channels)``, its spacing on these axes, and the way back
        for labels ``(*spatial)``.
    """
    if stored.affine is not None:
        return _nifti_case(stored)
    if stored.image.ndim == 3:
        return stored.image, stored.spacing, np.asarray
    pages, sizes = np.moveaxis(stored.image, 0, slice_axis), stored.spacing
    if sizes is not None:
        sizes = tuple(np.insert(sizes[1:], slice_axis, sizes[0]).tolist())
    return pages, sizes, lambda labels: np.moveaxis(labels, slice_axis, 0)


def _nifti_case(
    stored: StoredImage,
) -> tuple[np.ndarray, tuple[float, ...] | None, Restore]:
    """Turn to RAS, and drop the axis of a single slice."""
    assert stored.affine is not None
    image, spacing, orientation = to_canonical(stored.image, stored.affine)
    single = [axis for axis, size in enumerate(image.shape[:-1]) if size == 1]
    if len(single) != 1:
        return image, spacing, lambda labels: from_canonical(labels, orientation)
    axis = single[0]
    left = tuple(size for other, size in enumerate(spacing) if other != axis)

    def restore(labels: np.ndarray) -> np.ndarray:
        return from_canonical(np.expand_dims(labels, axis), orientation)

    return image.squeeze(axis), left, restore
