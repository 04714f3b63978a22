"""Makes synthetic heads with synthetic lesions from one scan."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

RADII_MM = (3.0, 16.0)
"""Smallest and largest mean radius of a lesion."""

_SMALLEST = 12  # fewest voxels of a lesion
_REPLACED = 0.6  # fraction of the tissue that is replaced in the middle of a lesion
_REACH = 2.3  # radii that contain a lesion: 1.3 * (1 + 2 * _WIGGLE) and its edge
_WIGGLE = 0.35  # distance of the outline from an ellipsoid, as a fraction of the radius


class Lesion(NamedTuple):
    """Properties of an implanted lesion.

    Attributes:
        radius_mm: mean radius.
        contrast: change of the intensity as a fraction of white matter's; a lesion
            with a negative contrast is darker than the tissue around it.
        voxels: number of voxels of its label.
    """

    radius_mm: float
    contrast: float
    voxels: int


def deformed(
    volume: np.ndarray,
    *,
    rng: np.random.Generator,
    first: int,
    count: int,
    step: int,
    largest_mm: float = 4.0,
) -> np.ndarray:
    """Sample a slab of a deformed head.

    The head is rotated by a few degrees, scaled by a few percent, mirrored or not, and
    bent by a smooth random field.

    Args:
        volume: scan ``(x, y, z)`` with voxels of 1 mm.
        rng: random generator for the head.
        first: index of the first slice on the last axis.
        count: number of slices of the slab.
        step: distance of two slices, in voxels of the scan.
        largest_mm: standard deviation of the bending field.

    Returns: ``(x, y, count)`` float32, linearly interpolated; 0 outside of the scan.
    """
    shape = (*volume.shape[:2], count)
    grid = np.indices(shape, np.float32)
    grid[2] = first + step * grid[2]
    middle = (np.array(volume.shape, np.float32) - 1) / 2
    points = grid - middle[:, None, None, None]
    if rng.random() < 0.5:
        points[0] = -points[0]
    angles = np.deg2rad(rng.uniform(-8, 8, 3))
    matrix = _rotation(angles) @ np.diag(rng.uniform(0.93, 1.07, 3))
    points = np.einsum("ij,jxyz->ixyz", matrix.astype(np.float32), points)
    for axis in range(3):
        points[axis] += largest_mm * smooth_noise(shape, rng=rng, sigma=(24, 24, 12))
    points += middle[:, None, None, None]
    return ndimage.map_coordinates(
        volume.astype(np.float32), points, order=1, mode="constant"
    )


def implant(
    image: np.ndarray, *, rng: np.random.Generator, count: int, spacing: tuple
) -> tuple[np.ndarray, np.ndarray, list[Lesion]]:
    """Put lesions of random place, size, shape, contrast and edge into a slab.

    An outline is an ellipsoid whose radius varies smoothly; at the outline the lesion
    fades into the tissue within one to three millimetres. The label covers the voxels
    with more than half of the lesion's strength. Lesions lie in the brain and do not
    touch.

    Args:
        image: ``(x, y, z)`` float32, 0 outside of the brain.
        rng: random generator for the lesions.
        count: number of lesions; there are fewer where there is no room.
        spacing: millimetres of a voxel along each axis.

    Returns: The image with the lesions, their label ``(x, y, z)`` bool, and the
        properties of each lesion.
    """
    # Only in the plane: the ends of the slab are not the edge of the brain.
    brain = ndimage.binary_erosion(image > 0, np.ones((5, 5, 1)))
    white = float(np.percentile(image[image > 0], 90))
    result, label = image.copy(), np.zeros(image.shape, bool)
    lesions: list[Lesion] = []
    for _ in range(20 * count):
        if len(lesions) == count:
            break
        radius = float(np.exp(rng.uniform(*np.log(RADII_MM))))
        contrast = float(rng.uniform(0.25, 0.6) * rng.choice((-1, 1)))
        box, strength = _outline(brain, rng=rng, radius=radius, spacing=spacing)
        found = (strength > 0.5) & brain[box]
        near = ndimage.binary_dilation(found, iterations=3)
        if found.sum() < _SMALLEST or (near & label[box]).any():
            continue
        texture = 1 + 0.15 * smooth_noise(found.shape, rng=rng, sigma=(1.5, 1.5, 1))
        # A lesion replaces most of the tissue and its folds.
        tissue = result[box]
        inner = float(tissue[found].mean())
        changed = tissue + _REPLACED * strength * (inner - tissue)
        changed += contrast * white * strength * texture
        result[box] = np.where(brain[box], np.maximum(changed, 1), result[box])
        label[box] |= found
        lesions.append(Lesion(radius, contrast, int(found.sum())))
    return result, label, lesions


def scanned(image: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Add the effects of a scanner: a gain, a smooth bias field, and noise.

    Args:
        image: ``(x, y, z)`` float32, 0 outside of the brain.
        rng: random generator for gain, bias and noise.

    Returns: ``(x, y, z)`` uint8, 0 outside of the brain and above 0 inside.
    """
    bias = 1 + 0.03 * smooth_noise(image.shape, rng=rng, sigma=(40, 40, 20))
    noise = rng.normal(0, 0.012 * image.max(), image.shape)
    values = rng.uniform(0.6, 0.8) * image * bias + noise
    return np.where(image > 0, np.clip(np.rint(values), 1, 255), 0).astype(np.uint8)


def smooth_noise(
    shape: tuple[int, ...], *, rng: np.random.Generator, sigma: tuple[float, ...]
) -> np.ndarray:
    """Draw a smooth random field.

    Args:
        shape: shape of the field.
        rng: random generator for the field.
        sigma: width of the smoothing Gaussian, in voxels along each axis.

    Returns: Field ``shape`` float32 with mean 0 and standard deviation 1.
    """
    # Coarse noise is interpolated: a wide Gaussian over every voxel takes seconds.
    steps = [max(1, int(width)) for width in sigma]
    coarse = [size // step + 4 for size, step in zip(shape, steps, strict=True)]
    field = ndimage.gaussian_filter(rng.normal(size=coarse), 1.0)
    places = np.meshgrid(
        *(1 + np.arange(size) / step for size, step in zip(shape, steps, strict=True)),
        indexing="ij",
    )
    field = ndimage.map_coordinates(field, places, order=3)
    field -= field.mean()
    return (field / max(field.std(), 1e-6)).astype(np.float32)


def _outline(
    brain: np.ndarray, *, rng: np.random.Generator, radius: float, spacing: tuple
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Draw one lesion: its box, and its strength in each voxel, from 0 to 1."""
    places = np.flatnonzero(brain)
    centre = np.unravel_index(places[rng.integers(len(places))], brain.shape)
    reach = _REACH * radius + 4
    ranges = [
        range(max(0, int(at - reach / step)), min(size, int(at + reach / step) + 2))
        for at, step, size in zip(centre, spacing, brain.shape, strict=True)
    ]
    offsets = np.stack(
        np.meshgrid(
            *(
                (np.array(places) - at) * step
                for places, at, step in zip(ranges, centre, spacing, strict=True)
            ),
            indexing="ij",
        )
    )
    axes = radius * rng.uniform(0.75, 1.3, 3)
    turn = _rotation(rng.uniform(0, 2 * np.pi, 3)) / axes[:, None]
    turned = np.einsum("ij,jxyz->ixyz", turn, offsets)
    distance = np.sqrt(np.sum(turned**2, axis=0))
    sigma = tuple(max(1.0, 0.6 * radius / step) for step in spacing)
    # The wiggle is bounded, so that a lesion fits into its box.
    wiggle = np.clip(smooth_noise(distance.shape, rng=rng, sigma=sigma), -2, 2)
    regions, _ = ndimage.label(distance + _WIGGLE * wiggle < 1)
    sizes = np.bincount(regions.ravel(), minlength=2)[1:]
    # Keep the largest region: splinters are not separate lesions.
    solid = regions == 1 + int(np.argmax(sizes))
    edge = rng.uniform(0.25, 0.75)  # mm; 5 to 95 % of the change takes six of these
    outside, inside = (
        ndimage.distance_transform_edt(mask, sampling=spacing)
        for mask in (~solid, solid)
    )
    # The outline is between two voxels, half a millimetre from both.
    away = np.where(solid, 0.5 - inside, outside - 0.5)
    strength = 1 / (1 + np.exp(np.clip(away / edge, -30, 30)))
    box = tuple(slice(places.start, places.stop) for places in ranges)
    return box, strength.astype(np.float32)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Return the matrix that rotates about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        one, two = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result
