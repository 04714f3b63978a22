"""Scales intensities: statistics of channels, and one straight line per channel."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from unet_jax.data.case import Case
from unet_jax.errors import InputError

INTENSITIES = ("zscore", "percentile", "full_range")
"""Names of the schemes; `Preprocessing` explains them."""

_PERCENTILES = (0.5, 99.5)
_BRIGHT = (2, 98)  # percentiles between which a threshold of the background lies
_SAMPLE = 1_000_000
_EMPTY_SIZE = 5  # pixels on an axis of the square that an empty pixel lies in


class ChannelStatistics(NamedTuple):
    """Clip limits, offset and divisor of one channel."""

    lower: float
    upper: float
    mean: float
    std: float

    @classmethod
    def line(cls, mean: float, std: float) -> "ChannelStatistics":
        """Shift and divide without clipping."""
        return cls(-math.inf, math.inf, mean, std)


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledView:
    """Scales ``(*axes, channels)`` region by region, when a region is read.

    A scaled copy of a large volume would take four more bytes per voxel.
    """

    image: np.ndarray
    lines: tuple[ChannelStatistics, ...]
    outside: np.ndarray | None = None
    """``(*axes)`` booleans of the pixels that are 0; None for no pixel."""
    masked: tuple[bool, ...] | None = None
    """Whether ``outside`` holds for each channel; None for all."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        return self.image.shape

    @property
    def ndim(self) -> int:
        """Number of axes, including the channel axis."""
        return self.image.ndim

    def transpose(self, order: Sequence[int]) -> "ScaledView":
        """Reorder the axes; the channels stay last."""
        outside = self.outside
        if outside is not None:
            outside = outside.transpose(order[:-1])
        return ScaledView(self.image.transpose(order), self.lines, outside, self.masked)

    def channel(self, index: int) -> np.ndarray:
        """Scale one channel, float32 without the channel axis."""
        one = slice(index, index + 1)
        masked = None if self.masked is None else self.masked[one]
        view = ScaledView(self.image[..., one], self.lines[one], self.outside, masked)
        return view[...][..., 0]

    def __getitem__(self, region: Any) -> np.ndarray:
        """Scale a region, float32, with all channels."""
        stored = self.image[region]
        scaled = np.empty(stored.shape, np.float32)
        for channel, line in enumerate(self.lines):
            scale(stored[..., channel], line, out=scaled[..., channel])
        if self.outside is not None and self.masked is None:
            scaled[self.outside[region]] = 0
        elif self.outside is not None:
            scaled *= ~(self.outside[region][..., None] & np.array(self.masked))
        return scaled

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Scale the whole image."""
        return self[...].astype(dtype or np.float32, copy=False)


def scale(channel: np.ndarray, line: ChannelStatistics, *, out: np.ndarray) -> None:
    """Clip, shift and divide one channel, plane by plane.

    Args:
        channel: ``(*spatial)`` numbers. A plane at a time is converted to float64,
            which takes eight bytes per pixel.
        out: ``(*spatial)`` float32, overwritten.
    """
    for source, target in zip(channel, out, strict=True):
        # In float64: a 16-bit copy of an 8-bit image must give the same array.
        values = source.astype(np.float64)
        np.clip(values, line.lower, line.upper, out=values)
        values -= line.mean
        values /= line.std
        target[...] = values


def nonzero_box(image: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) of the non-zero pixels; the whole axis if all are zero."""
    mask = (image != 0).any(axis=-1)
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not len(found):
            return tuple((0, size) for size in mask.shape)
        box.append((int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def empty_part(image: np.ndarray) -> np.ndarray:
    """Return the pixels in which nothing was imaged: zero, and zero around them.

    A pixel is one if it lies in a square of five pixels on each axis, within the image,
    that is zero in every channel. So zeros inside of a head, and zeros among the noise
    of air, are intensities as others are.

    Args:
        image: ``(*spatial, channels)`` numbers.

    Returns:
        ``(*spatial)`` booleans.
    """
    used = (image != 0).any(axis=-1)
    # Twice the same filter: an opening of the zeros by the square.
    near = ndimage.maximum_filter(used, size=_EMPTY_SIZE, mode="constant", cval=False)
    kept: np.ndarray = ndimage.minimum_filter(
        near, size=_EMPTY_SIZE, mode="constant", cval=True
    )
    return ~kept


def imaged_statistics(channel: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels that show something.

    They are brighter than the background, whose noise is not zero in many scans: above
    a tenth of the way from percentile 2 to 98 of the non-zero pixels.

    Args:
        channel: ``(*spatial)`` numbers. A sample of at most a million of them gives the
            percentiles.

    Returns:
        Mean and std as of `nonzero_statistics`.

    Source: the head of FSL's BET (Smith 2002, doi:10.1002/hbm.10062).
    """
    pixels = channel.reshape(-1)
    pixels = pixels[:: max(1, pixels.size // _SAMPLE)]
    pixels = pixels[pixels != 0]
    if not pixels.size:
        return 0.0, 1.0
    low, high = np.percentile(pixels.astype(np.float64), _BRIGHT)
    least = low + (high - low) / 10
    return _statistics_of(channel, lambda plane: (plane != 0) & (plane >= least))


def nonzero_statistics(channel: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the non-zero pixels.

    Args:
        channel: ``(*spatial)`` numbers; converted to float64 a plane at a time.

    Returns:
        Mean and std; 0 and 1 if all pixels are zero, and a std of 1 if the true one is
        only rounding.
    """
    return _statistics_of(channel, lambda plane: plane != 0)


def statistics_where(channel: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of some pixels, in float64.

    Args:
        channel: ``(*spatial)`` numbers.
        chosen: ``(*spatial)`` booleans.

    Returns:
        Mean and std; 0 and 1 if there are no pixels, as of `nonzero_statistics`.
    """
    masks = iter([*chosen, *chosen])  # the planes are gone through twice
    return _statistics_of(channel, lambda plane: next(masks))


def _statistics_of(
    channel: np.ndarray, chosen: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """Return mean and standard deviation of the chosen pixels of each plane."""
    planes = (plane[chosen(plane)].astype(np.float64) for plane in channel)
    sums = [(plane.size, float(plane.sum())) for plane in planes]
    count = sum(size for size, _ in sums)
    if not count:
        return 0.0, 1.0
    mean = math.fsum(total for _, total in sums) / count
    planes = (plane[chosen(plane)].astype(np.float64) for plane in channel)
    squares = math.fsum(float(np.square(plane - mean).sum()) for plane in planes)
    return mean, _above_rounding(math.sqrt(squares / count), mean)


def _above_rounding(std: float, mean: float) -> float:
    """Return a std that can be divided by."""
    return std if std > 1e-9 * abs(mean) else 1.0


def white_value(image: np.ndarray, *, name: str) -> float:
    """Return the value that stands for white, if dtype and range tell.

    Args:
        image: uint8, uint16, or floats from 0 to 1.

    Returns:
        255, 65535 or 1.

    Raises:
        InputError: another dtype or range.
    """
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if image.dtype.kind == "f":
        lowest, highest = float(image.min()), float(image.max())
        if lowest >= 0 and highest <= 1:
            return 1.0
        found = f"floats from {lowest:.6g} to {highest:.6g}"
    else:
        found = f"{image.dtype} values"
    raise InputError(
        f"{name}: {found}; expected uint8, uint16 or floats from 0 to 1, as intensity "
        "is 'full_range'; convert it, or train with intensity 'zscore'"
    )


class ForegroundSample:
    """Samples foreground intensities of all cases, each pixel with the same chance.

    Each pixel draws a random number, and the pixels with the smallest numbers stay.
    This takes one pass and bounded memory, and gives the same pixels every time.
    """

    def __init__(self, limit: int = _SAMPLE) -> None:
        """Start without pixels."""
        self.limit = limit
        self.random = np.random.default_rng(0)
        self.draws = np.empty(0)
        self.values: np.ndarray | None = None

    def add(self, case: Case) -> None:
        """Add the foreground of a case: without a label, every non-zero pixel."""
        foreground = (case.image != 0).any(-1) if case.label is None else case.label > 0
        values = case.image[foreground]
        draws = self.random.random(len(values))
        if self.values is not None:
            draws = np.concatenate([self.draws, draws])
            values = np.concatenate([self.values, values])
        if len(draws) > self.limit:
            kept = np.argpartition(draws, self.limit)[: self.limit]
            draws, values = draws[kept], values[kept]
        self.draws, self.values = draws, values

    def statistics(self) -> tuple[ChannelStatistics, ...]:
        """Return percentiles, mean and standard deviation of each channel.

        Returns:
            The 0.5 and 99.5 percentiles, then mean and std of the values clipped to
            them, for each channel.

        Raises:
            InputError: no case has foreground.
        """
        if self.values is None or not len(self.values):
            raise InputError(
                "training split: no labelled foreground; intensity 'percentile' needs "
                "pixels of a class above 0; fix the labels or choose 'zscore'"
            )
        return tuple(_clipped_statistics(channel) for channel in self.values.T)


def _clipped_statistics(values: np.ndarray) -> ChannelStatistics:
    """Return the percentiles, and mean and std of the values clipped to them."""
    values = values.astype(np.float64)
    lower, upper = np.percentile(values, _PERCENTILES)
    values = np.clip(values, lower, upper)
    mean = float(values.mean())
    std = _above_rounding(float(values.std()), mean)
    return ChannelStatistics(float(lower), float(upper), mean, std)
