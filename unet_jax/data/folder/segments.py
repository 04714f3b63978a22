"""Joins the segments of a DICOM mask to a label, or to regions that may overlap."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unet_jax.data.files.dicom_masks import Voxels, segment_voxels
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.regions import Region
from unet_jax.errors import InputError, setting

_LARGEST = 62  # regions in the bits of an integer


def read_dicom_mask(
    path: Path,
    *,
    image: StoredImage,
    segments: Sequence[str],
    regions: Sequence[Region] = (),
) -> StoredImage:
    """Read a DICOM segmentation or RTSTRUCT as a mask on the grid of its image.

    Args:
        image: the series that the mask was drawn on, or another image of its grid.
        segments: names of the segments; the voxels of the first have the value 1.
            Other segments are left out.
        regions: regions with the names of segments; a voxel has the value of the class
            that is in those regions whose segments cover it. () for segments that
            exclude each other.

    Returns:
        The mask, ``(*image.shape, 1)`` of integers, with the affine of the image.

    Raises:
        InputError: in the cases of `segment_voxels`, and for segments that overlap and
            are no regions.
    """
    parts = (one for one in segment_voxels(path, image) if one[0] in segments)
    shape = image.image.shape[:-1]
    if regions:
        label = _of_regions(parts, shape, regions, path)
    else:
        label = _painted(parts, shape, segments, path)
    return StoredImage(path, label[..., None], image.affine, image.spacing, "volume")


def _painted(
    parts: Iterable[tuple[str, Voxels]],
    shape: tuple[int, ...],
    segments: Sequence[str],
    path: Path,
) -> np.ndarray:
    """Give each segment its value; refuse segments that overlap."""
    label = np.zeros(shape, np.min_scalar_type(len(segments)))
    for name, voxels in parts:
        at, value = tuple(voxels.T), segments.index(name) + 1
        other = label[at]
        clash = (other != 0) & (other != value)
        if clash.any():
            first = segments[int(other[clash][0]) - 1]
            raise InputError(
                f"{path}: the segments {first!r} and {name!r} overlap in "
                f"{int(clash.sum())} pixels of a slice; expected segments that exclude "
                "each other, or regions with the names of the segments, in which "
                "classes are combinations of segments; if the second lies in the first "
                f"one, set {setting('data.regions', _nested(first, name))}"
            )
        label[at] = value
    return label


def _nested(outer: str, inner: str) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """Return the regions of a segment and another one in it."""
    return ((outer, (1, 2), 1), (inner, (2,), 2))


def _of_regions(
    parts: Iterable[tuple[str, Voxels]],
    shape: tuple[int, ...],
    regions: Sequence[Region],
    path: Path,
) -> np.ndarray:
    """Give each voxel the class that is in those regions that cover it."""
    names = [one.name for one in regions]
    if len(names) > _LARGEST:
        raise InputError(
            f"{path}: {len(names)} regions; expected at most {_LARGEST} for DICOM "
            "masks; leave some out of data.regions"
        )
    bits = np.zeros(shape, np.min_scalar_type(2 ** len(names)))
    for name, voxels in parts:
        bits[tuple(voxels.T)] |= bits.dtype.type(1 << names.index(name))
    table = {0: 0}
    classes = sorted({index for one in regions for index in one.classes})
    written = {one.written for one in regions}
    for index in sorted(classes, key=lambda one: one not in written):
        inside = sum(1 << n for n, one in enumerate(regions) if index in one.classes)
        table.setdefault(inside, index)
    label = np.zeros(shape, np.min_scalar_type(max(classes)))
    for found in np.unique(bits).tolist():
        if found not in table:
            count = int(np.count_nonzero(bits == found))
            inside_of = [one for n, one in enumerate(names) if found >> n & 1]
            raise InputError(
                f"{path}: {count} voxels are in {' and '.join(map(repr, inside_of))} "
                "alone; expected a class of data.regions that is in these regions and "
                "no others; add one"
            )
        label[bits == found] = table[found]
    return label
