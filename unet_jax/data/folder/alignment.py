"""Checks that the files of a case lie at the same place."""

import itertools

import nibabel
import numpy as np

from unet_jax.data.files.stored import StoredImage


def misplaced(first: StoredImage, other: StoredImage) -> str:
    """Check that a mask, or another channel, lies where the image lies.

    Args:
        first: the image, or its first channel.
        other: the mask, or another channel; its axis order may differ.

    Returns:
        The problem, in one line; "" if both lie at the same place, or neither file has
        a position.
    """
    if (first.affine is None) != (other.affine is None):
        says, not_says = (first, other) if other.affine is None else (other, first)
        return (
            f"{other.path}: {says.path.name} states how its voxels lie, "
            f"{not_says.path.name} does not; expected both or neither, because only "
            f"one would be reoriented; save {not_says.path.name} in the format of "
            f"{says.path.name}, with its header"
        )
    away = _apart(first, other)
    if not away:
        return ""
    return (
        f"{other.path}: its affine differs from {first.path.name}'s, voxels are up to "
        f"{away:.3g} mm apart; expected the same place; resample it, or copy the "
        "header if the voxels do match"
    )


def _apart(one: StoredImage, two: StoredImage) -> float:
    """Return the largest distance in mm of equal corners; 0 within a tenth voxel."""
    if one.affine is None or two.affine is None or one.spacing is None:
        return 0.0
    (affine, shape), (other, size) = _canonical(one), _canonical(two)
    if shape != size:
        return 0.0  # different sizes are reported elsewhere
    corners = np.array(
        [(*corner, 1) for corner in itertools.product(*((0, n) for n in shape))]
    )
    away = np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max()
    return float(away) if away > 0.1 * min(one.spacing) else 0.0


def _canonical(stored: StoredImage) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return affine and shape on the axes of a case: right, anterior, superior."""
    assert stored.affine is not None
    codes = nibabel.orientations.io_orientation(stored.affine)
    shape = stored.image.shape[:3]
    turned = stored.affine @ nibabel.orientations.inv_ornt_aff(codes, shape)
    order = codes[:, 0].astype(int).tolist()
    return turned, tuple(shape[order.index(axis)] for axis in range(3))
