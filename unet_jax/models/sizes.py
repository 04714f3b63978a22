"""Computes which input sizes a network of stages takes, and the size of its logits."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

Counts = int | Sequence[int]
"""A number for all stages, or one for each."""

Sizes = int | Sequence[int]
"""A number for all spatial axes, or one for each."""


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """The convolutions of an encoder and decoder, as far as sizes depend on them.

    Attributes:
        kernel_sizes: of the convolutions in each stage, one number for each axis.
        strides: between each stage and the next, one number for each axis.
        down: number of convolutions in each stage of the encoder.
        up: number of convolutions in each stage of the decoder, finest first.
        padding: ``"SAME"`` or ``"VALID"``.
    """

    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    down: tuple[int, ...]
    up: tuple[int, ...]
    padding: str = "SAME"

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_sizes[0])

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Pixels of the input on each axis for one pixel of the coarsest stage."""
        return tuple(
            math.prod(step[axis] for step in self.strides) for axis in range(self.axes)
        )

    @property
    def multiple(self) -> tuple[int, ...]:
        """Pixels between possible places of windows that tile an image.

        Without padding it is the total stride: all windows must see one coarse grid.
        """
        return (1,) * self.axes if self.padding == "SAME" else self.total_stride

    @property
    def margin(self) -> tuple[int, ...]:
        """Pixels that the logits lack on each side of an axis; 0 with padding."""
        size = self.fitting_size((1,) * self.axes)
        left = self.output_size(size)
        return tuple((n - k) // 2 for n, k in zip(size, left, strict=True))

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of the logits: what is left of it without padding.

        Raises:
            ValueError: the size does not fit a network without padding: a stage would
                have an odd rest, or nothing.
        """
        if self.padding == "SAME":
            return tuple(size)
        found = []
        for axis, extent in enumerate(size):
            left = self._left(axis, extent)
            if left is None:
                raise ValueError(
                    f"An input of {tuple(size)} does not fit a network without "
                    f"padding; the next size that does is {self.tiling_size(size)}"
                )
            found.append(left)
        return tuple(found)

    def fitting_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the smallest input size that fits and is not smaller than a size."""
        return self._next_size(size, (1,) * len(size))

    def tiling_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the smallest input size whose logits can tile an image.

        Logits of fewer pixels than `multiple` would leave gaps between windows.
        """
        return self._next_size(size, self.multiple)

    def _next_size(self, size: Sequence[int], least: Sequence[int]) -> tuple[int, ...]:
        """Return the next size of each axis that fits and leaves this many logits."""
        if self.padding == "SAME":
            return tuple(size)
        return tuple(
            next(
                candidate
                for candidate in itertools.count(start)
                if (self._left(axis, candidate) or 0) >= least[axis]
            )
            for axis, start in enumerate(size)
        )

    def largest_size(self, limit: Sequence[int]) -> tuple[int, ...] | None:
        """Return the largest input size within a limit of which at least half is left.

        It fits and can tile; None where there is none. ``limit`` itself with padding.
        """
        if self.padding == "SAME":
            return tuple(limit)
        found = []
        for axis, most in enumerate(limit):
            for candidate in range(most, 0, -1):
                left = self._left(axis, candidate) or 0
                if left >= max(candidate / 2, self.total_stride[axis]):
                    found.append(candidate)
                    break
            else:
                return None
        return tuple(found)

    def _left(self, axis: int, size: int) -> int | None:
        """Size of the logits along one axis; None where the input does not fit."""
        for index, count in enumerate(self.down):
            if index:
                if size % self.strides[index - 1][axis]:
                    return None
                size //= self.strides[index - 1][axis]
            size -= count * (self.kernel_sizes[index][axis] - 1)
            if size < 1:
                return None
        for index in reversed(range(len(self.up))):
            size = size * self.strides[index][axis]
            size -= self.up[index] * (self.kernel_sizes[index][axis] - 1)
            if size < 1:
                return None
        return size


def stage_counts(name: str, counts: Counts, stages: int) -> tuple[int, ...]:
    """Return a number for each stage; ``name`` is the attribute's, for the message.

    Raises:
        ValueError: there are too few or too many.
    """
    if isinstance(counts, int):
        return (counts,) * stages
    if len(counts) != stages:
        raise ValueError(
            f"{name} has {len(counts)} entries; expected {stages}, one for each stage"
        )
    return tuple(counts)


def stage_sizes(
    name: str, sizes: Sequence[Sizes] | None, default: int, entries: int, axes: int
) -> tuple[tuple[int, ...], ...]:
    """Return one size for each axis, for each entry.

    Args:
        name: name of the attribute, for the message.
        sizes: a number, or one for each axis, of each entry; None for the default.
        default: size where none are given.
        entries: number of stages, or of transitions between them.
        axes: number of spatial axes.

    Raises:
        ValueError: there are too few or too many entries, or axes in one.
    """
    if sizes is None:
        sizes = (default,) * entries
    if len(sizes) != entries:
        raise ValueError(
            f"{name} has {len(sizes)} entries; expected {entries} for the stages in "
            "features"
        )
    expanded = tuple(
        (size,) * axes if isinstance(size, int) else tuple(size) for size in sizes
    )
    for size in expanded:
        if len(size) != axes:
            raise ValueError(
                f"{name} has the entry {size}; expected a number, or one for each of "
                f"the {axes} spatial axes of the input"
            )
    return expanded
