"""From a stored image to the training grid, and labels back: exact, saved, invertible.

What is learnt from the training split is a frozen ``Preprocessing``, saved with the
run. Its ``apply`` crops, scales intensities and resamples, in that order, and gives an
``Inverse`` that brings labels or class scores back to the grid that came in.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from unet_jax.data.case import Case
from unet_jax.data.grids import Inverse, shrunk_or_grown, slices
from unet_jax.errors import InputError

INTENSITIES = ("zscore", "percentile", "full_range")
_PERCENTILES = (0.5, 99.5)
_SAMPLE = 1_000_000


class ChannelStatistics(NamedTuple):
    """Intensities of one channel over the training foreground."""

    lower: float
    upper: float
    mean: float
    deviation: float


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledView:
    """An image whose intensities are scaled where they are looked at.

    A large volume would take its size again, four bytes a voxel, as a scaled copy.

    Attributes:
        image: ``(*axes, channels)`` as stored.
        lines: clip, offset and divisor of each channel.
    """

    image: np.ndarray
    lines: tuple[ChannelStatistics, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        return self.image.shape

    @property
    def ndim(self) -> int:
        """Number of axes, that of the channels included."""
        return self.image.ndim

    def transpose(self, order: Sequence[int]) -> "ScaledView":
        """Put the axes in another order; the channels stay last."""
        return ScaledView(self.image.transpose(order), self.lines)

    def __getitem__(self, region: Any) -> np.ndarray:
        """Scale a region of the axes, float32, with all channels."""
        stored = self.image[region]
        scaled = np.empty(stored.shape, np.float32)
        for channel, line in enumerate(self.lines):
            _scale(stored[..., channel], line, out=scaled[..., channel])
        return scaled

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Scale all of it."""
        return self[...].astype(dtype or np.float32, copy=False)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What was learnt from the training split; the same for every image afterwards.

    Intensities, each channel by itself and always as one straight line, so that their
    order stays:

    - "zscore": mean 0 and deviation 1 over the channel's non-zero pixels in the case.
      Zero pixels go through the same line and so stay the darkest of an MR image.
      (Setting them to 0, as nnU-Net does, makes speckle of noise in air, where values
      0 and 1 lie side by side.)
    - "percentile": clipped to and scaled by ``statistics``.
    - "full_range": [0, 255] of uint8, [0, 65535] of uint16 and [0, 1] of floats to
      [-1, 1]; other dtypes and ranges are refused, as nobody can tell what white is.

    Attributes:
        network_dims: spatial axes that the network sees, 2 or 3.
        slice_axis: RAS axis across the slices that a 2-D network sees of a volume;
            no resampling along it.
        spacing: millimetres a pixel to resample to, for each axis of the training
            cases; None leaves every image as it is. An image without a spacing is
            left too.
        size: (height, width) to resize pictures and slices to; None leaves them.
        crop_nonzero: crop to the box of pixels that are not zero in some channel.
        intensity: one of ``INTENSITIES``.
        channels: of every image.
        statistics: for each channel if intensity is "percentile", else empty.
    """

    network_dims: int
    slice_axis: int
    spacing: tuple[float, ...] | None
    size: tuple[int, int] | None
    crop_nonzero: bool
    intensity: str
    channels: int
    statistics: tuple[ChannelStatistics, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no image could be brought to."""
        if self.network_dims not in (2, 3):
            raise ValueError(
                f"Unknown network_dims {self.network_dims!r}; expected one of (2, 3)"
            )
        if self.slice_axis not in (0, 1, 2):
            raise ValueError(
                f"Unknown slice_axis {self.slice_axis!r}; expected one of (0, 1, 2)"
            )
        if self.intensity not in INTENSITIES:
            raise ValueError(
                f"Unknown intensity {self.intensity!r}; expected one of {INTENSITIES}"
            )
        if self.size is not None and self.network_dims == 3:
            raise ValueError(f"size {self.size} is for a 2-D network; expected None")
        for name, value in (("spacing", self.spacing), ("size", self.size)):
            if value is not None and not all(part > 0 for part in value):
                raise ValueError(f"{name} {value} must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; ``from_dict`` gives an equal object."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Restore what ``to_dict`` gave.

        Raises:
            InputError: keys are missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            raise InputError(
                f"preprocessing: keys {sorted(set(values) ^ names)} are missing or "
                f"unknown; expected {sorted(names)}; restore the run's config.json"
            )
        parts = dict(values)
        for name in ("spacing", "size"):
            parts[name] = None if parts[name] is None else tuple(parts[name])
        rows = parts["statistics"]
        parts["statistics"] = tuple(ChannelStatistics(*row) for row in rows)
        return cls(**parts)

    def apply(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: tuple[tuple[float, float], ...] | None = None,
    ) -> tuple[np.ndarray, Inverse]:
        """Bring an image to the training grid.

        Args:
            image: ``(*spatial, channels)`` in its stored dtype; volumes in RAS order.
            spacing: millimetres a pixel on each spatial axis, or None.
            name: the file or case, for messages.
            reference: see ``Case``; "zscore" takes it for the image's own statistics.

        Returns:
            ``(*grid, channels)`` float32, and the way back.

        Raises:
            InputError: another number of channels than in training, a picture for a
                3-D network, or values that the intensity scheme has no meaning for.
        """
        view, inverse = self.view(image, spacing, name=name, reference=reference)
        return np.asarray(view), inverse

    def view(
        self,
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        name: str = "image",
        reference: tuple[tuple[float, float], ...] | None = None,
    ) -> tuple["np.ndarray | ScaledView", Inverse]:
        """Bring an image to the training grid, a region at a time where that can be.

        Args and Raises: as `apply`.

        Returns:
            What `apply` returns; an image that needs no resampling is not copied, but
            scaled where it is looked at.
        """
        self._check(image, name)
        box = tuple((0, size) for size in image.shape[:-1])
        if self.crop_nonzero:
            box = _nonzero_box(image)
        cropped = image[slices(box)]
        grid = self._grid(cropped.shape[:-1], spacing)
        inverse = Inverse(image.shape[:-1], box, grid)
        lines = self._lines(cropped, name, reference)
        if grid == cropped.shape[:-1]:
            return ScaledView(cropped, tuple(lines)), inverse
        array = np.empty((*grid, self.channels), np.float32)
        for channel, line in enumerate(lines):
            values = np.empty(cropped.shape[:-1], np.float32)
            _scale(cropped[..., channel], line, out=values)
            array[..., channel] = shrunk_or_grown(values, grid)
        return array, inverse

    def _check(self, image: np.ndarray, name: str) -> None:
        """Refuse an image that the network cannot take."""
        if image.ndim - 1 < self.network_dims or image.ndim not in (3, 4):
            raise InputError(
                f"{name}: {image.ndim - 1} spatial axes; expected a volume of 3, which "
                "the 3-D network was trained on; give a NIfTI or a TIFF stack"
            )
        if image.shape[-1] != self.channels:
            raise InputError(
                f"{name}: {image.shape[-1]} channels; expected {self.channels} as in "
                "training; convert it (RGB to grey, or grey to RGB) or choose another "
                "model"
            )

    def _grid(
        self, shape: tuple[int, ...], spacing: tuple[float, ...] | None
    ) -> tuple[int, ...]:
        """Return the shape to resample to; the extent stays the same."""
        grid = list(shape)
        stacked = self.network_dims == 2 and len(shape) == 3
        axes = [
            axis
            for axis in range(len(shape))
            if not (stacked and axis == self.slice_axis)
        ]
        if self.size is not None:
            for axis, size in zip(axes, self.size, strict=True):
                grid[axis] = size
        elif self.spacing is not None and spacing is not None:
            targets = list(self.spacing)
            if len(targets) > len(axes):
                # A picture, or a slice, lies in the plane of the training slices.
                del targets[self.slice_axis]
            for axis, target in zip(axes, targets, strict=True):
                grid[axis] = max(1, round(shape[axis] * spacing[axis] / target))
        return tuple(grid)

    def _lines(
        self,
        image: np.ndarray,
        name: str,
        reference: tuple[tuple[float, float], ...] | None,
    ) -> list[ChannelStatistics]:
        """Return for each channel the clip, and the offset and divisor after it."""
        if self.intensity == "percentile":
            return list(self.statistics)
        if self.intensity == "full_range":
            half = _white(image, name) / 2
            line = ChannelStatistics(-math.inf, math.inf, half, half)
            return [line] * self.channels
        if reference is not None:
            return [ChannelStatistics(-math.inf, math.inf, *pair) for pair in reference]
        pairs = [nonzero_statistics(image[..., i]) for i in range(self.channels)]
        return [ChannelStatistics(-math.inf, math.inf, *pair) for pair in pairs]


def fit(
    cases: Iterable[Case],
    *,
    network_dims: int,
    slice_axis: int,
    spacing: tuple[float, ...] | Literal["median"] | None,
    size: tuple[int, int] | None,
    crop_nonzero: bool,
    intensity: str,
) -> Preprocessing:
    """Learn the preprocessing from the training split, in one pass.

    Args:
        cases: the training cases, volumes in RAS order; each is dropped after its use.
        network_dims: spatial axes that the network sees, 2 or 3.
        slice_axis: RAS axis across the slices of a volume for a 2-D network.
        spacing: millimetres a pixel, "median" for that of the cases, or None for no
            resampling.
        size: (height, width) for pictures; then the spacing counts for nothing.
        crop_nonzero: crop to what is not zero.
        intensity: one of ``INTENSITIES``. "percentile" takes the 0.5 and 99.5
            percentiles of the labelled foreground (classes above 0; of a case without
            a label, of what is not 0), then its mean and deviation when clipped to
            these; at most a million pixels are kept, drawn from all cases alike and the
            same ones every time.

    Returns:
        What every image goes through from now on.

    Raises:
        InputError: no cases, cases that do not go together (both are named), or
            percentiles asked for without a labelled foreground.
    """
    first: _Traits | None = None
    spacings = []
    sample = _Sample()
    for case in cases:
        traits = _traits(case)
        first = first or traits
        _check_alike(first, traits)
        if case.spacing is not None:
            spacings.append(case.spacing)
        if intensity == "percentile":
            sample.add(case)
    if first is None:
        raise InputError("training split: 0 cases; expected one or more; fix the split")
    if spacing == "median":
        middle = np.median(np.array(spacings), axis=0).tolist() if spacings else None
        spacing = None if middle is None else tuple(middle)
    if spacing is not None and len(spacing) != first.axes:
        raise InputError(
            f"spacing {spacing}: {len(spacing)} values; expected {first.axes}, one for "
            "each axis of the training cases; fix it, or set 'median' or None"
        )
    return Preprocessing(
        network_dims=network_dims,
        slice_axis=slice_axis,
        spacing=None if size is not None else spacing,
        size=size,
        crop_nonzero=crop_nonzero,
        intensity=intensity,
        channels=first.channels,
        statistics=sample.statistics() if intensity == "percentile" else (),
    )


class _Traits(NamedTuple):
    """What all training cases share."""

    id: str
    channels: int
    axes: int
    has_spacing: bool


def _traits(case: Case) -> _Traits:
    """Return what one case has, without its pixels."""
    *spatial, channels = case.image.shape
    return _Traits(case.id, channels, len(spatial), case.spacing is not None)


def _check_alike(first: _Traits, case: _Traits) -> None:
    """Refuse two training cases that one network cannot take."""
    for what, one, two in (
        ("channels", first.channels, case.channels),
        ("spatial axes", first.axes, case.axes),
        ("a known spacing", first.has_spacing, case.has_spacing),
    ):
        if one != two:
            raise InputError(
                f"training split: {what}: {one} in case {first.id}, {two} in case "
                f"{case.id}; expected the same; convert or leave out one of them"
            )


class _Sample:
    """Foreground intensities of all cases, every pixel with the same chance.

    Each pixel draws a number, and those with the smallest numbers stay: bounded
    memory, one pass, and the same pixels every time.
    """

    def __init__(self, limit: int = _SAMPLE) -> None:
        self.limit = limit
        self.random = np.random.default_rng(0)
        self.draws = np.empty(0)
        self.values: np.ndarray | None = None

    def add(self, case: Case) -> None:
        """Draw from one case; all that is not air where there is no label."""
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
        """Return percentiles, mean and deviation of every channel."""
        if self.values is None or not len(self.values):
            raise InputError(
                "training split: no labelled foreground; intensity 'percentile' needs "
                "pixels of a class above 0; fix the labels or choose 'zscore'"
            )
        return tuple(_clipped_statistics(channel) for channel in self.values.T)


def _clipped_statistics(values: np.ndarray) -> ChannelStatistics:
    """Return the percentiles, and mean and deviation of what is clipped to them."""
    values = values.astype(np.float64)
    lower, upper = np.percentile(values, _PERCENTILES)
    values = np.clip(values, lower, upper)
    mean = float(values.mean())
    deviation = _above_rounding(float(values.std()), mean)
    return ChannelStatistics(float(lower), float(upper), mean, deviation)


def _scale(channel: np.ndarray, line: ChannelStatistics, *, out: np.ndarray) -> None:
    """Clip, shift and divide, a plane at a time: float64 takes eight bytes a pixel."""
    for source, target in zip(channel, out, strict=True):
        # In float64: a 16-bit copy of an 8-bit image must give the same array.
        values = source.astype(np.float64)
        np.clip(values, line.lower, line.upper, out=values)
        values -= line.mean
        values /= line.deviation
        target[...] = values


def nonzero_statistics(channel: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of the pixels that are not zero.

    Args:
        channel: ``(*spatial)`` numbers; converted to float64 a plane at a time.

    Returns:
        Both; 0 and 1 if all are zero, and 1 for a deviation that is rounding alone.
    """
    planes = (plane[plane != 0].astype(np.float64) for plane in channel)
    sums = [(plane.size, float(plane.sum())) for plane in planes]
    count = sum(size for size, _ in sums)
    if not count:
        return 0.0, 1.0
    mean = math.fsum(total for _, total in sums) / count
    planes = (plane[plane != 0].astype(np.float64) for plane in channel)
    squares = math.fsum(float(np.square(plane - mean).sum()) for plane in planes)
    return mean, _above_rounding(math.sqrt(squares / count), mean)


def _above_rounding(deviation: float, mean: float) -> float:
    """Return a deviation to divide by."""
    return deviation if deviation > 1e-9 * abs(mean) else 1.0


def _white(image: np.ndarray, name: str) -> float:
    """Return the value that stands for white, where the dtype or range tells."""
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


def _nonzero_box(image: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) of what is not zero in some channel; all if all is zero."""
    mask = (image != 0).any(axis=-1)
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not len(found):
            return tuple((0, size) for size in mask.shape)
        box.append((int(found[0]), int(found[-1]) + 1))
    return tuple(box)
