"""Crops of one size from images of any size, some of them centred on a class."""

from collections.abc import Sequence

import numpy as np

from unet_jax.labels import IGNORE


def class_coordinates(
    label: np.ndarray, *, num_classes: int, limit: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Find where each class is, once, so that no draw has to search the label.

    A rare class keeps all of its pixels, a common one a random sample: memory is
    bounded by ``num_classes * limit`` numbers whatever the size of the label.

    Args:
        label: ``(*spatial)`` integers, class index or ``IGNORE``.
        num_classes: number of classes, background included.
        limit: the most pixels to keep of one class.
        rng: chooses the pixels that are kept.

    Returns:
        For each class the sorted flat indices of its pixels: an empty array where it
        is absent, int32 unless the label has more pixels than that can count.
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
    image: np.ndarray,
    label: np.ndarray,
    coordinates: Sequence[np.ndarray],
    *,
    patch_size: Sequence[int],
    centred: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one crop of exactly ``patch_size``, determined by ``rng`` alone.

    A centred one has its centre on a random stored pixel of a random present class,
    every class being as likely however small it is, and is moved inside where it would
    leave the image. Background takes part only where nothing else is present. Any other
    may lie anywhere.

    An image smaller than the patch is put in its middle. The padding is 0, the mean of
    a z-scored image, and its label ``IGNORE``, so that it counts for nothing in a loss.

    Args:
        image: ``(*spatial, channels)`` float32.
        label: ``(*spatial)`` signed integers.
        coordinates: of this label, from ``class_coordinates``.
        patch_size: pixels of the crop on each spatial axis.
        centred: whether to centre it on a class.
        rng: the only source of chance.

    Returns:
        Copies ``(*patch_size, channels)`` and ``(*patch_size)``, dtypes as given.

    Raises:
        ValueError: if ``patch_size`` has not one entry for each axis of ``label``.
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
    return (
        _crop(image, start, patch_size, padding=0),
        _crop(label, start, patch_size, padding=IGNORE),
    )


def _foreground_pixel(
    shape: tuple[int, ...],
    coordinates: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> tuple[int, ...] | None:
    """Choose a pixel of a random present class; None where every pixel is ignored."""
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
    """Find the first pixel of the patch; negative where the image is smaller."""
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
    array: np.ndarray, start: Sequence[int], patch_size: Sequence[int], *, padding: int
) -> np.ndarray:
    """Copy the patch out of the leading axes; what lies outside is ``padding``."""
    source, target = [], []
    for first, patch, size in zip(start, patch_size, array.shape, strict=False):
        low, high = max(first, 0), min(first + patch, size)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    shape = (*patch_size, *array.shape[len(patch_size) :])
    patch_array = np.full(shape, padding, dtype=array.dtype)
    patch_array[tuple(target)] = array[tuple(source)]
    return patch_array
