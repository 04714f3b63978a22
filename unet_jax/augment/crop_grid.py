"""The crop that augmentation moves: its size, its spacing, and what it reads."""

import dataclasses
import itertools
import math

_MUCH_THINNER = 3
"""Ratio of pixels above which pixels stay in their plane, as in nnU-Net."""


@dataclasses.dataclass(frozen=True)
class CropGrid:
    """The grid of a crop.

    Attributes:
        shape: pixels on each spatial axis.
        spacing: millimetres per pixel on each axis; None where it is unknown, and all
            axes count as equal.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None

    @property
    def thin_axis(self) -> int | None:
        """The axis with less than a third of the pixels of the others, if one has.

        A turn would move most of such a volume out of itself: pixels move in the plane
        of the two other axes (nnU-Net calls it "dummy 2-D").
        """
        if len(self.shape) < 3:
            return None
        thin, *others = sorted(self.shape)
        if min(others) <= _MUCH_THINNER * thin:
            return None
        return self.shape.index(thin)

    @property
    def moving_axes(self) -> tuple[int, ...]:
        """The axes along which pixels turn, scale and deform."""
        thin = self.thin_axis
        return tuple(axis for axis in range(len(self.shape)) if axis != thin)

    def step(self, axis: int) -> float:
        """Return the millimetres of a pixel along an axis, or 1."""
        return 1.0 if self.spacing is None else float(self.spacing[axis])


def reach(
    grid: CropGrid, *, degrees: tuple[float, float], factor: float, moved: float
) -> tuple[int, ...]:
    """Return the pixels that a thin crop reads when it is turned, scaled and deformed.

    Args:
        degrees: limits of the angle.
        factor: largest factor on coordinates.
        moved: largest displacement along an axis, in pixels.

    Returns:
        A size for each axis, larger than the crop by an even number. It is that of the
        crop for pictures and for volumes without a thin axis.
    """
    if grid.thin_axis is None:
        return grid.shape
    size = list(grid.shape)
    moving = {axis: grid.shape[axis] + 2 * moved for axis in grid.moving_axes}
    for axis, other in itertools.permutations(moving, 2):
        beside = moving[other] * grid.step(other) / grid.step(axis)
        widest = max(_turned(moving[axis], beside, limit) for limit in degrees)
        margin = (factor * widest - grid.shape[axis]) / 2
        size[axis] += 2 * max(0, math.ceil(margin - 1e-6))
    return tuple(size)


def _turned(along: float, beside: float, degrees: float) -> float:
    """Return the largest width of a rectangle on a way from 0 to an angle."""
    limit = min(abs(math.radians(degrees)), math.pi / 2)
    angle = min(limit, math.atan2(beside, along))
    return along * math.cos(angle) + beside * math.sin(angle)
