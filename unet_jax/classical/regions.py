"""Grows regions from seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from unet_jax.classical.prototypes import (
    Features,
    Prototypes,
    fit_prototypes,
    local_std,
)
from unet_jax.classical.samples import Reference, Sample
from unet_jax.classical.search import Model

NONE = -1
"""Index of a pixel that is no seed, or that no region has reached."""


def grow_regions(
    image: np.ndarray, seeds: np.ndarray, *, tolerance: float
) -> np.ndarray:
    """Grow regions from seeds to all connected pixels of similar values.

    A pixel belongs to the region with the nearest mean of seeds, if it is within the
    tolerance of that mean and connected with one of the seeds (also diagonally) through
    such pixels. One seed gives the result of scikit-image's ``flood``.

    Args:
        image: ``(*spatial, channels)``; distances are Euclidean over the channels.
        seeds: ``(*spatial)`` index of a region from 0, or NONE.
        tolerance: largest distance from the mean of the region's seeds, to within the
            rounding of float32: 0.3 is within 0.1 of 0.2.

    Returns:
        ``(*spatial)`` index of a region, or NONE where no region grew.

    Source:
        Adams and Bischof: Seeded Region Growing (1994), with the mean of the seeds
        instead of the growing region's mean: the order of growing does not matter.

    Example:
        >>> import numpy as np
        >>> image = np.array([[0, 1, 9, 1, 9]])[..., None]
        >>> grow_regions(image, np.array([[0, -1, 1, -1, -1]]), tolerance=2.0)
        array([[ 0,  0,  1, -1, -1]])
    """
    values = image.astype(np.float32)
    regions = np.full(seeds.shape, NONE)
    nearest = np.full(seeds.shape, np.inf, np.float32)
    owner = np.full(seeds.shape, NONE)
    present = [int(index) for index in np.unique(seeds) if index != NONE]
    for index in present:
        mean = values[seeds == index].mean(axis=0, dtype=np.float64)
        distance = np.sqrt(np.square(values - mean.astype(np.float32)).sum(axis=-1))
        # Of the pixel, which is at most so large, and of its difference from the mean.
        rounding = 2 * np.finfo(np.float32).eps * (np.abs(mean).max() + tolerance)
        closer = (distance <= tolerance + rounding) & (distance < nearest)
        nearest[closer], owner[closer] = distance[closer], index
    all_neighbours = np.ones((3,) * seeds.ndim)
    for index in present:
        parts, count = ndimage.label(owner == index, all_neighbours)
        reached = np.zeros(count + 1, bool)
        reached[parts[seeds == index]] = True
        reached[0] = False
        regions[reached[parts]] = index
    # A seed belongs to its region, also where it differs from the mean of the others.
    return np.where(seeds != NONE, seeds, regions)


def automatic_seeds(
    values: np.ndarray, prototypes: Prototypes, *, fraction: float
) -> np.ndarray:
    """Find seeds: the most uniform part of the pixels that look like each class.

    Args:
        values: ``(*spatial, features)``, the features of the prototypes.
        fraction: fraction of the pixels nearest to a prototype that become its seeds:
            those with the smallest changes around them.

    Returns:
        ``(*spatial)`` class index, or NONE.

    Source:
        Shih and Cheng: Automatic seeded region growing for color image segmentation
        (2005), where seeds are alike to their neighbours.
    """
    classes = prototypes.distances(values).argmin(axis=-1)
    change = (local_std(values, 3) / prototypes.spread).max(axis=-1)
    seeds = np.full(classes.shape, NONE)
    for index in range(len(prototypes.means)):
        own = classes == index
        if own.any():
            calm = change <= np.quantile(change[own], fraction)
            seeds[own & calm] = index
    return seeds


def make_growing(
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    fraction: float,
    tolerance: float,
    rest: str,
    scale: str,
    seeds: Sequence[tuple[int, Sequence[int]]] | None = None,
) -> Model:
    """Make region growing from seeds that are given, or found in each image.

    Args:
        tolerance: see `grow_regions`, in units of the std within the classes.
        rest: class of the pixels that no region reaches: "background" (0), or that of
            the "nearest" region.
        seeds: ``((class, position), ...)`` for every image; None to find them.
    """
    prototypes = fit_prototypes(pieces, Features(scale), num_classes)

    def predict(image: np.ndarray, spacing: Any, reference: Reference) -> np.ndarray:
        del spacing
        values = prototypes.features(image, reference)
        if seeds is None:
            found = automatic_seeds(values, prototypes, fraction=fraction)
        else:
            found = _given_seeds(seeds, image.shape[:-1])
        grown = grow_regions(values / prototypes.spread, found, tolerance=tolerance)
        return _complete(grown, rest)

    chosen: dict[str, Any] = {"tolerance": tolerance, "rest": rest, "scale": scale}
    if seeds is None:
        chosen["fraction"] = fraction
    else:
        chosen["seeds"] = [[index, list(position)] for index, position in seeds]
    return Model(predict, chosen)


def _given_seeds(
    seeds: Sequence[tuple[int, Sequence[int]]], shape: Sequence[int]
) -> np.ndarray:
    """Put seeds on an image; those outside of a small image are left out."""
    found = np.full(shape, NONE)
    for index, position in seeds:
        if all(0 <= p < size for p, size in zip(position, shape, strict=True)):
            found[tuple(position)] = index
    return found


def _complete(grown: np.ndarray, rest: str) -> np.ndarray:
    """Give a class to what no region has reached."""
    bare = grown == NONE
    if rest == "nearest" and bare.any() and not bare.all():
        nearest = ndimage.distance_transform_edt(
            bare, return_distances=False, return_indices=True
        )
        grown = grown[tuple(nearest)]
    return np.where(grown == NONE, 0, grown).astype(np.uint8)
