"""Resamples images and labels to the training grid, and scores back.

Both grids span the same extent, so pixel centres lie at (i + 1/2) * old / new - 1/2.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from unet_jax.data.label_grids import resample_labels
from unet_jax.data.schemes import nearest_planes


@dataclasses.dataclass(frozen=True)
class Inverse:
    """Brings scores back from the training grid; made by ``Preprocessing.apply``.

    Attributes:
        shape: spatial shape of the image.
        box: part of the image that the crop kept, (start, stop) on each axis.
        grid: spatial shape on the training grid.
        coarse: axis along which scores come from the nearest plane; None for none.
    """

    shape: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    grid: tuple[int, ...]
    coarse: int | None = None

    def planes(
        self,
        bands: Iterator[tuple[int, np.ndarray]],
        *,
        axis: int,
        num_classes: int,
        finish: Callable[[np.ndarray], np.ndarray] = lambda plane: plane,
    ) -> Iterator[np.ndarray]:
        """Bring scores back plane by plane, with at most two planes in memory.

        Args:
            bands: first plane and scores ``(planes, *rest, classes)`` of each band, in
                order, an iterator; planes of the training grid lie along ``axis`` and
                ``rest`` are its other axes.
            axis: axis across the planes.
            finish: makes the final scores of a plane, such as probabilities of logits.

        Yields:
            Scores ``(*rest, classes)`` of each plane of the image's grid, interpolated
            linearly, in order; cropped pixels have 1 for class 0. A plane is valid
            until the next one is requested.
        """
        rest = tuple(n for other, n in enumerate(self.shape) if other != axis)
        boxes = [part for other, part in enumerate(self.box) if other != axis]
        inside = tuple(stop - start for start, stop in boxes)
        empty = np.zeros((*rest, num_classes), np.float32)
        empty[..., 0] = 1
        start, stop = self.box[axis]
        yield from (empty for _ in range(start))
        nearest = None if self.coarse is None else self._nearest_in_plane(axis)
        for plane in _between(
            bands, self.grid[axis], stop - start, inside, nearest, self.coarse == axis
        ):
            plane = finish(plane)
            if inside == rest:
                yield plane
                continue
            whole = empty.copy()
            whole[slices(tuple(boxes))] = plane
            yield whole
        yield from (empty for _ in range(self.shape[axis] - stop))

    def _nearest_in_plane(self, axis: int) -> int | None:
        """Return the coarse axis as an axis of the planes; None if it is across."""
        assert self.coarse is not None
        return None if self.coarse == axis else self.coarse - (self.coarse > axis)


def _between(
    bands: Iterator[tuple[int, np.ndarray]],
    size: int,
    wanted: int,
    plane_shape: tuple[int, ...],
    nearest: int | None,
    whole: bool,
) -> Iterator[np.ndarray]:
    """Interpolate from ``size`` planes to ``wanted`` ones, each of ``plane_shape``.

    Along the axis ``nearest`` of the planes, and across them if they are to be left
    ``whole``, the nearest one is taken.
    """
    resized = (
        _resized_plane(plane, plane_shape, copy=size != wanted, nearest=nearest)
        for _, band in bands
        for plane in band
    )
    if size == wanted:
        yield from resized
        return
    below, lower = next(resized), 0
    above = below
    for index in range(wanted):
        place = min(max((index + 0.5) * size / wanted - 0.5, 0.0), size - 1.0)
        if whole:
            place = float(math.floor(place + 0.5))
        while lower < int(place) or (above is below and place > lower):
            if above is not below:
                below, lower = above, lower + 1
            following = next(resized, None)
            above = below if following is None else following
            if following is None:
                break
        weight = place - lower
        yield below if weight <= 0 else (1 - weight) * below + weight * above


def _resized_plane(
    plane: np.ndarray, shape: tuple[int, ...], *, copy: bool, nearest: int | None
) -> np.ndarray:
    """Interpolate the scores of one plane, one class at a time."""
    if nearest is not None and plane.shape[nearest] != shape[nearest]:
        chosen = nearest_planes(plane.shape[nearest], shape[nearest])
        plane, copy = plane.take(chosen, axis=nearest), False
    if plane.shape[:-1] == shape:
        return plane.astype(np.float32, copy=copy)
    resized = np.empty((*shape, plane.shape[-1]), np.float32)
    for index in range(plane.shape[-1]):
        resized[..., index] = _linear(plane[..., index].astype(np.float32), shape)
    return resized


def apply_label(label: np.ndarray, inverse: Inverse) -> np.ndarray:
    """Resample a label to the training grid of its image.

    Args:
        label: ``(*spatial)`` integers.

    Returns:
        ``(*grid)`` in the same dtype; every pixel has the class with the largest area
        in it (`label_grids`).

    Raises:
        ValueError: label and image have different shapes.
    """
    if label.shape != inverse.shape:
        raise ValueError(f"Label of {label.shape} for an image of {inverse.shape}")
    return resample_labels(label[slices(inverse.box)], inverse.grid)


def slices(box: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Return the index of a box."""
    return tuple(slice(start, stop) for start, stop in box)


def _linear(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate (*spatial) float32 linearly; the border repeats."""
    if values.shape == shape:
        return values
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    return ndimage.zoom(
        values, factors, order=1, mode="nearest", grid_mode=True, output=np.float32
    )


def shrunk_or_grown(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate an image; axes that shrink are blurred first, against aliasing.

    Args:
        values: ``(*spatial)`` float32.

    Returns:
        ``(*shape)`` float32.
    """
    ratios = [old / new for new, old in zip(shape, values.shape, strict=True)]
    sigmas = [max(0.0, (ratio - 1) / 2) for ratio in ratios]
    if any(sigmas):
        values = ndimage.gaussian_filter(values, sigmas, mode="nearest")
    return _linear(values, shape)
