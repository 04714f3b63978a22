"""Gives the slices of a volume their neighbours as channels, for a 2-D network.

With ``count`` neighbours on each side, slice z has the channels of slice z - count
first and those of slice z + count last. Beyond the first and the last slice these are
repeated. Nothing is copied but the region that is read.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_jax.data.case_store import Pixels


def with_neighbours(
    volume: Any, region: Sequence[slice], *, axis: int, count: int
) -> np.ndarray:
    """Read a region of a volume with the neighbours of each slice as channels.

    Args:
        volume: array or view ``(*spatial, channels)``.
        region: a slice of each spatial axis.
        axis: spatial axis across the slices.
        count: number of neighbours on each side.

    Returns:
        ``(*region, (2 * count + 1) * channels)``; the channels of one neighbour stand
        together.

    Example:
        >>> volume = np.arange(4).reshape(4, 1, 1)
        >>> region = (slice(0, 2), slice(None))
        >>> with_neighbours(volume, region, axis=0, count=1)[:, 0].tolist()
        [[0, 0, 1], [0, 1, 2]]
    """
    start, stop, _ = region[axis].indices(volume.shape[axis])
    low, high = max(start - count, 0), min(stop + count, volume.shape[axis])
    around = (*region[:axis], slice(low, high), *region[axis + 1 :])
    read = np.asarray(volume[around])
    places = np.arange(start, stop)
    shifted = [
        np.take(read, np.clip(places + offset - low, 0, high - 1 - low), axis)
        for offset in range(-count, count + 1)
    ]
    return np.concatenate(shifted, axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class AdjacentSlices:
    """A volume whose slices have their neighbours as channels when they are read.

    Attributes:
        volume: array or view ``(*spatial, channels)``.
        axis: spatial axis across the slices.
        count: number of neighbours on each side.
    """

    volume: Any
    axis: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*spatial, (2 * count + 1) * channels)``."""
        *spatial, channels = self.volume.shape
        return (*spatial, (2 * self.count + 1) * channels)

    def __getitem__(self, region: Any) -> np.ndarray:
        """Read a region, one slice an axis, with all channels."""
        return with_neighbours(self.volume, region, axis=self.axis, count=self.count)

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Read the whole volume, which takes ``2 * count + 1`` times its memory."""
        whole = self[(slice(None),) * (len(self.shape) - 1)]
        return whole.astype(dtype or whole.dtype, copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class SliceOfVolume:
    """One slice with its neighbours as channels, read as an array of two axes is.

    Attributes:
        volume: pixels ``(slices, *plane, channels)``.
        index: number of the slice.
        count: number of neighbours on each side.
    """

    volume: Pixels
    index: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*plane, (2 * count + 1) * channels)``."""
        return AdjacentSlices(self.volume, 0, self.count).shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the volume."""
        return self.volume.dtype

    def __getitem__(self, region: Any) -> np.ndarray:
        """Read a region of the plane, with all channels."""
        around = (slice(self.index, self.index + 1), *region)
        found: np.ndarray = with_neighbours(
            self.volume, around, axis=0, count=self.count
        )[0]
        return found
