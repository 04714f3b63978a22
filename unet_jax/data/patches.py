"""Draws crops of one size from images of any size, some of them centred on a class."""

from collections.abc import Sequence

import numpy as np

from unet_jax.data.adjacent_slices import SliceOfVolume
from unet_jax.data.case_store import Pixels
from unet_jax.data.one_hot import WithOneHot
from unet_jax.labels import IGNORE


def class_coordinates(
    label: np.ndarray, *, num_classes: int, limit: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Find pixels of each class once, so that no draw has to search the label.

    A rare class keeps all of its pixels, a common class a random sample: memory is
    bounded by ``num_classes * limit`` numbers for a label of any size.

    Args:
        label: ``(*spatial)`` integers, class index or ``IGNORE``.

    Returns:
        For each class the sorted flat indices of its pixels; an empty array for an
        absent class. int32, or int64 if the label has too many pixels for it.
    """
    dtype = np.int32 if label.size <= np.iinfo(np.int32).max else np.int64
    flat = label.ravel()
    coordinates = []
    for index in range(num_classes):
        found = np.flatnonzero(flat == index)
        if len(found) > limit:
            kept = rng.choice(len(found), limit, replace=False, shuffle=False)
            found = found[np.sort(kept)]
        coordinates.append(found.astype(dtype))
    return tuple(coordinates)


def draw_patch(
    image: Pixels | SliceOfVolume | WithOneHot,
    label: Pixels,
    coordinates: Sequence[np.ndarray],
    *,
    patch_size: Sequence[int],
    centred: bool,
    rng: np.random.Generator,
    source_size: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one crop of exactly ``patch_size``, determined by ``rng`` alone.

    A centred crop has its centre on a random stored pixel of a random present class.
    All foreground classes are equally likely, whatever their size; background is chosen
    only if nothing else is present. A crop that would leave the image is moved inside.
    Other crops lie anywhere in the image.

    An image smaller than the patch lies in the middle of the crop. The padding is 0,
    the mean of a z-scored image; its label is ``IGNORE``, which no loss counts.

    Args:
        image: ``(*spatial, channels)`` float32; only the crop is read.
        label: ``(*spatial)`` signed integers.
        coordinates: flat indices of each class in this label, from
            ``class_coordinates``.
        patch_size: pixels of the crop on each spatial axis.
        source_size: pixels of a larger crop about the same centre, which is returned
            instead; None for ``patch_size``.

    Returns:
        Copies ``(*source_size, channels)`` and ``(*source_size)`` in the given dtypes.

    Raises:
        ValueError: ``patch_size`` has not one entry for each axis of ``label``.
    """
    if len(patch_size) != label.ndim:
        raise ValueError(
            f"patch_size {tuple(patch_size)} has {len(patch_size)} axes; "
            f"expected {label.ndim} for a label of shape {label.shape}"
        )
    centre = None
    if centred:
        centre = _foreground_pixel(label.shape, coordinates, rng)
    start = _patch_start(label.shape, patch_size, centre, rng)
    size = patch_size if source_size is None else source_size
    start = tuple(
        first - (wide - patch) // 2
        for first, wide, patch in zip(start, size, patch_size, strict=True)
    )
    return (
        _crop(image, start, size, padding=0),
        _crop(label, start, size, padding=IGNORE),
    )


def _foreground_pixel(
    shape: tuple[int, ...], coordinates: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[int, ...] | None:
    """Choose a pixel of a random present class; None if every pixel is ignored."""
    background, *foreground = coordinates
    present = [found for found in foreground if len(found)]
    if not present and len(background):
        present = [background]
    if not present:
        return None
    found = present[rng.integers(len(present))]
    pixel = np.unravel_index(int(found[rng.integers(len(found))]), shape)
    return tuple(int(position) for position in pixel)


def _patch_start(
    shape: tuple[int, ...],
    patch_size: Sequence[int],
    centre: tuple[int, ...] | None,
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Find the first pixel of the patch; negative if the image is smaller."""
    start = []
    for axis, (size, patch) in enumerate(zip(shape, patch_size, strict=True)):
        room = size - patch
        if room < 0:
            start.append(-(-room // 2))
        elif centre is None:
            start.append(int(rng.integers(room + 1)))
        else:
            start.append(min(max(centre[axis] - patch // 2, 0), room))
    return tuple(start)


def _crop(
    array: Pixels | SliceOfVolume | WithOneHot,
    start: Sequence[int],
    patch_size: Sequence[int],
    *,
    padding: int,
) -> np.ndarray:
    """Copy the patch from the leading axes; pixels outside become ``padding``."""
    source, target = [], []
    for first, patch, size in zip(start, patch_size, array.shape, strict=False):
        low, high = max(first, 0), min(first + patch, size)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    shape = (*patch_size, *array.shape[len(patch_size) :])
    patch_array = np.full(shape, padding, dtype=array.dtype)
    patch_array[tuple(target)] = array[tuple(source)]
    return patch_array
