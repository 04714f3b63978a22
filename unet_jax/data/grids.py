"""Resamples images and labels to the training grid, and scores back.

Both grids span the same extent, so pixel centres lie at (i + 1/2) * old / new - 1/2.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from unet_jax.data.label_grids import resample_labels
from unet_jax.data.one_hot import WithOneHot
from unet_jax.data.schemes import nearest_planes

Tile = tuple[tuple[int, int], ...]
"""Part of a plane: (start, stop) on each axis."""


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
        tile: Tile | None = None,
    ) -> Iterator[np.ndarray]:
        """Bring scores back plane by plane, with at most two planes in memory.

        Args:
            bands: first plane and scores ``(planes, *rest, classes)`` of each band, in
                order, an iterator; planes of the training grid lie along ``axis`` and
                ``rest`` are its other axes, which have the part that is `needed`.
            axis: axis across the planes.
            finish: makes the final scores of a plane, such as probabilities of logits.
            tile: part of each plane of the image; None for the whole plane.

        Yields:
            Scores ``(*tile, classes)`` of each plane of the image's grid, interpolated
            linearly, in order; cropped pixels have 1 for class 0. A plane is valid
            until the next one is requested.
        """
        tile = tile or self.whole(axis)
        lines = self._lines(axis, tile)
        empty = np.zeros((*(stop - start for start, stop in tile), num_classes), "f4")
        empty[..., 0] = 1
        inside = tuple(
            slice(max(low - start, 0), min(high, stop) - start)
            for (start, stop), (low, high) in zip(
                tile, without(self.box, axis), strict=True
            )
        )
        filled = tuple(len(line.below) for line in lines) == empty.shape[:-1]
        start, stop = self.box[axis]
        yield from (empty for _ in range(start))
        size = stop - start
        across = _line(self.grid[axis], size, (0, size), self.coarse == axis)
        for plane in _between(bands, across, lines):
            plane = finish(plane)
            if filled:
                yield plane
                continue
            whole = empty.copy()
            whole[inside] = plane
            yield whole
        yield from (empty for _ in range(self.shape[axis] - stop))

    def whole(self, axis: int) -> Tile:
        """Return the tile that is a whole plane of the image."""
        return tuple((0, size) for size in without(self.shape, axis))

    def needed(self, axis: int, tile: Tile) -> Tile:
        """Return the part of the training grid's planes that a tile is made of."""
        return tuple(line.needed for line in self._lines(axis, tile))

    def _lines(self, axis: int, tile: Tile) -> tuple["_Line", ...]:
        """Return how a tile's pixels are made, along each axis of the planes."""
        nearest = tuple(other == self.coarse for other in range(len(self.grid)))
        parts = (without(all_axes, axis) for all_axes in (self.grid, self.box, nearest))
        return tuple(
            _line(size, high - low, (max(start, low) - low, min(stop, high) - low), one)
            for size, (low, high), one, (start, stop) in zip(*parts, tile, strict=True)
        )


def without(values: Sequence[Any], axis: int) -> tuple[Any, ...]:
    """Leave out the value of one axis."""
    return (*values[:axis], *values[axis + 1 :])


class _Line(NamedTuple):
    """How pixels along an axis are made of pixels of the training grid.

    Attributes:
        below: index of the grid's pixel at or below each one, sorted.
        above: index of the one above; ``below`` where its weight is 0.
        weight: weight of the one above, in [0, 1).
    """

    below: np.ndarray
    above: np.ndarray
    weight: np.ndarray

    @property
    def needed(self) -> tuple[int, int]:
        """First pixel of the grid that is read, and the one behind the last."""
        return int(self.below[0]), int(self.above[-1]) + 1

    @property
    def copies(self) -> bool:
        """Whether every pixel is one of the grid's, one after the other."""
        return not self.weight.any() and bool(np.all(np.diff(self.below) == 1))


def _line(old: int, new: int, wanted: tuple[int, int], nearest: bool) -> _Line:
    """Make the ``wanted`` ones of ``new`` pixels from ``old`` ones."""
    index = np.arange(*wanted)
    if old == new or nearest:
        below = index if old == new else nearest_planes(old, new)[index]
        return _Line(below, below, np.zeros(len(index)))
    place = np.clip((index + 0.5) * old / new - 0.5, 0, old - 1)
    below = place.astype(int)
    weight = place - below
    return _Line(below, below + (weight > 0), weight)


def _between(
    bands: Iterator[tuple[int, np.ndarray]], across: _Line, lines: Sequence[_Line]
) -> Iterator[np.ndarray]:
    """Interpolate the pixels of each plane, and between the planes."""
    planes = (plane for _, band in bands for plane in band)
    if across.copies and across.below[0] == 0:
        yield from (_resized_plane(plane, lines, copy=False) for plane in planes)
        return
    held: dict[int, np.ndarray] = {}
    mixed: np.ndarray | None = None
    read = 0
    for below, above, weight in zip(*across, strict=True):
        held = {at: plane for at, plane in held.items() if at >= below}
        for at in range(read, above + 1):
            plane = next(planes)
            if at >= below:
                # A band is overwritten when the next is asked for.
                held[at] = _resized_plane(plane, lines, copy=True)
        read = max(read, above + 1)
        if not weight:
            yield held[below]
            continue
        if mixed is None:
            mixed, part = np.empty_like(held[below]), np.empty_like(held[below])
        np.multiply(held[below], 1 - float(weight), out=mixed)
        np.multiply(held[above], float(weight), out=part)
        mixed += part
        yield mixed


def _resized_plane(
    plane: np.ndarray, lines: Sequence[_Line], *, copy: bool
) -> np.ndarray:
    """Interpolate the scores of one plane, whose axes begin where they are needed."""
    if all(line.copies for line in lines):
        return plane.astype(np.float32, copy=copy)
    made = np.empty((*(len(one.below) for one in lines), plane.shape[-1]), np.float32)
    first, *others = lines
    if not others:
        _fill(made, plane, first)
        return made
    start, _ = first.needed
    for row, below, above, weight in zip(made, *first, strict=True):
        pixels = plane[below - start]
        if weight:
            pixels = pixels + np.float32(weight) * (plane[above - start] - pixels)
        _fill(row, pixels, others[0])
    return made


def _fill(row: np.ndarray, pixels: np.ndarray, line: _Line) -> None:
    """Interpolate pixels ``(old, classes)`` along their axis into a row."""
    start, _ = line.needed
    row[...] = pixels[line.below - start]
    if line.weight.any():
        slope = pixels[line.above - start]
        slope -= row
        slope *= line.weight[:, None].astype(np.float32)
        row += slope


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


def with_prediction(
    prepared: Any, labels: np.ndarray, inverse: Inverse, *, classes: int
) -> WithOneHot:
    """Give a prepared image one-hot channels of labels that its own grid has.

    Args:
        prepared: array or view ``(*grid, channels)``.
        labels: class index of every pixel ``(*spatial)``.
        classes: number of classes without the background.
    """
    return WithOneHot(prepared, apply_label(labels, inverse), classes)


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
