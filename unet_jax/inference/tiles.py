"""Divides the planes of an image into tiles, so that their scores fit into memory.

The scores of a row of windows take several GiB where there are a hundred classes. Those
of a tile of the row take less, but the windows at the border of two tiles are computed
for both. The scores do not depend on the tiles.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from unet_jax.data.grids import Inverse, Tile, without
from unet_jax.inference.sliding_window import reaching_windows

SCORES_BYTES = 2**29
"""Memory for the scores of an image; more where two windows need more."""

_HELD = 4
"""Planes of a tile at a time: two, what is interpolated between them, and a part."""


@dataclasses.dataclass(frozen=True)
class ImageWindows:
    """The windows of a network that cover an image.

    Attributes:
        inverse: way of the scores from the training grid to the image's.
        axis: axis across the planes.
        starts: starts of the windows along each axis of the training grid.
        window: pixels of a window along each axis.
        channels: number of scores of a pixel.
    """

    inverse: Inverse
    axis: int
    starts: tuple[tuple[int, ...], ...]
    window: tuple[int, ...]
    channels: int

    def window_bytes(self) -> int:
        """Return the bytes of the scores of a window."""
        return 4 * math.prod(self.window) * self.channels

    def tile_bytes(self, grid: int, pixels: int) -> int:
        """Return the bytes of a tile's scores.

        Args:
            grid: pixels of the training grid that a plane of the tile needs.
            pixels: pixels of a plane of the tile.
        """
        planes = self.window[self.axis] * grid + _HELD * pixels
        return 4 * self.channels * planes

    def cuts(self, number: int) -> tuple[int, ...]:
        """Return where a plane's axis may be cut: at the starts of windows."""
        low, high = without(self.inverse.box, self.axis)[number]
        size = without(self.inverse.grid, self.axis)[number]
        starts = without(self.starts, self.axis)[number]
        return tuple(low - (-start * (high - low)) // size for start in starts[1:])

    def needed(self, number: int, part: tuple[int, int]) -> tuple[int, int]:
        """Count the windows and the grid's pixels for a part of a plane's axis."""
        tile = list(self.inverse.whole(self.axis))
        tile[number] = part
        wanted = self.inverse.needed(self.axis, tuple(tile))[number]
        starts = without(self.starts, self.axis)[number]
        window = without(self.window, self.axis)[number]
        return len(reaching_windows(starts, window, wanted)), wanted[1] - wanted[0]


class _Split(NamedTuple):
    """A way to divide an axis.

    Attributes:
        parts: (start, stop) of each part.
        windows: windows of all parts, for each network.
        grid: most pixels of the training grid that a part needs, for each network.
        longest: pixels of the longest part.
    """

    parts: Tile
    windows: tuple[int, ...]
    grid: tuple[int, ...]
    longest: int


def choose_tiles(
    networks: Sequence[ImageWindows], limit: int = SCORES_BYTES
) -> list[Tile]:
    """Choose tiles that fit into the memory and need few windows.

    Args:
        networks: windows of each network, whose scores are in memory together.
        limit: bytes of the scores of a tile; more where two windows need more.

    Returns:
        Tiles that cover the planes without overlap: one where it fits. Where none
        fits, those that take the least memory.
    """
    limit = max(limit, 2 * sum(one.window_bytes() for one in networks))
    sizes = without(networks[0].inverse.shape, networks[0].axis)

    def rank(splits: Sequence[_Split]) -> tuple[bool, int]:
        pixels = math.prod(split.longest for split in splits)
        scores = windows = 0
        for index, network in enumerate(networks):
            grid = math.prod(split.grid[index] for split in splits)
            scores += network.tile_bytes(grid, pixels)
            windows += math.prod(split.windows[index] for split in splits)
        too_large = scores > limit
        return too_large, scores if too_large else windows

    axes = [_splits(networks, number, size) for number, size in enumerate(sizes)]
    best = min(itertools.product(*axes), key=rank)
    return list(itertools.product(*(split.parts for split in best)))


def _splits(networks: Sequence[ImageWindows], number: int, size: int) -> list[_Split]:
    """Divide an axis of the planes into 1, 2, ... parts of about the same length."""
    cuts = networks[0].cuts(number)
    splits = []
    for count in range(1, len(cuts) + 2):
        targets = (size * index / count for index in range(1, count))
        chosen = {min(cuts, key=lambda cut: abs(cut - at)) for at in targets}
        parts = tuple(itertools.pairwise((0, *sorted(chosen), size)))
        costs = [[one.needed(number, part) for part in parts] for one in networks]
        splits.append(
            _Split(
                parts,
                tuple(sum(windows for windows, _ in cost) for cost in costs),
                tuple(max(pixels for _, pixels in cost) for cost in costs),
                max(stop - start for start, stop in parts),
            )
        )
    return splits
