"""From a stored image to the training grid, and labels back: exact, saved, invertible.

What is learnt from the training split is a frozen ``Preprocessing``, saved with the
run. Its ``apply`` crops, scales intensities and resamples, in that order, and gives an
``Inverse`` that brings labels or class scores back to the grid that came in.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import nibabel
import numpy as np
from scipy import ndimage

from unet_jax.data.case import Case
from unet_jax.errors import InputError

INTENSITIES = ("zscore", "percentile", "full_range")
_PERCENTILES = (0.5, 99.5)
_SAMPLE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Orientation:
    """How a stored volume lies: made by ``to_canonical``.

    Attributes:
        axes: for each stored axis, the RAS axis that it is nearest to.
        flips: for each stored axis, 1 if it runs the same way, else -1.
    """

    axes: tuple[int, int, int]
    flips: tuple[int, int, int]


def to_canonical(
    image: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, tuple[float, ...], Orientation]:
    """Turn a volume to right, anterior, superior by swapping and flipping axes.

    An oblique volume is not resampled: each axis takes the nearest direction.

    Args:
        image: ``(x, y, z, channels)`` or ``(x, y, z)`` in stored order.
        affine: ``(4, 4)`` from voxel index to millimetres.

    Returns:
        A view of the same voxels in RAS order, the millimetres a voxel on each RAS
        axis, and what ``from_canonical`` needs.
    """
    codes = nibabel.orientations.io_orientation(affine)
    axes, flips = codes.astype(int).T.tolist()
    sizes = np.sqrt(np.sum(np.asarray(affine, np.float64)[:3, :3] ** 2, axis=0))
    spacing = tuple(float(sizes[axes.index(axis)]) for axis in range(3))
    # A view: a copy of a large volume would stay beside it.
    turned = nibabel.orientations.apply_orientation(image, codes)
    return turned, spacing, Orientation(tuple(axes), tuple(flips))


def from_canonical(labels: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Turn a volume in RAS order back to how its image is stored.

    Args:
        labels: ``(x, y, z)``, more axes may follow.
        orientation: from ``to_canonical`` of the image.

    Returns:
        The same voxels in stored order.
    """
    stored = np.transpose(labels, (*orientation.axes, *range(3, labels.ndim)))
    for axis, flip in enumerate(orientation.flips):
        if flip < 0:
            stored = np.flip(stored, axis)
    return np.ascontiguousarray(stored)


@dataclasses.dataclass(frozen=True)
class Inverse:
    """The way back from the training grid, made by ``Preprocessing.apply``.

    Attributes:
        shape: spatial shape of the image that came in.
        box: what the crop kept, (start, stop) on each axis.
        grid: spatial shape of the array that went out.
    """

    shape: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    grid: tuple[int, ...]

    def labels(self, values: np.ndarray) -> np.ndarray:
        """Bring labels, or the best class of scores, to the grid that came in.

        Scores are interpolated linearly one class at a time, labels by the nearest
        pixel; what was cropped away becomes class 0. Beside its argument it holds
        little more than two volumes of float32.

        Args:
            values: ``(*grid)`` integer labels, or ``(*grid, classes)`` scores, of
                which the largest wins (the first of equal ones).

        Returns:
            ``(*shape)`` class indices; uint8 or uint16 from scores, else the labels'
            own dtype.
        """
        values = np.asarray(values)
        inside = tuple(stop - start for start, stop in self.box)
        if values.shape == self.grid and values.dtype.kind in "ui":
            kept = _nearest(values, inside)
        elif values.shape[:-1] == self.grid:
            classes = values.shape[-1]
            planes = self.planes(iter([(0, values)]), axis=0, num_classes=classes)
            dtype = np.uint8 if classes <= 256 else np.uint16
            return np.stack([plane.argmax(axis=-1).astype(dtype) for plane in planes])
        else:
            raise ValueError(
                f"{values.dtype} of shape {values.shape} on a grid of {self.grid}; "
                "expected integer labels on it, or scores with a class axis more"
            )
        if inside == self.shape:
            return kept
        whole = np.zeros(self.shape, kept.dtype)
        whole[_slices(self.box)] = kept
        return whole

    def planes(
        self,
        bands: Iterator[tuple[int, np.ndarray]],
        *,
        axis: int,
        num_classes: int,
    ) -> Iterator[np.ndarray]:
        """Bring scores back plane by plane, holding no more than two of them.

        Args:
            bands: first plane and scores ``(planes, *rest, classes)`` of bands in
                order, planes of the training grid along ``axis``; ``rest`` are its
                other axes.
            axis: that planes are taken along.
            num_classes: of the scores.

        Yields:
            Scores ``(*rest, classes)`` of each plane of the grid that came in,
            interpolated linearly, in order; class 0 has 1 where it was cropped away.
            A plane is valid until the next is asked for.
        """
        rest = tuple(n for other, n in enumerate(self.shape) if other != axis)
        boxes = [part for other, part in enumerate(self.box) if other != axis]
        inside = tuple(stop - start for start, stop in boxes)
        empty = np.zeros((*rest, num_classes), np.float32)
        empty[..., 0] = 1
        start, stop = self.box[axis]
        yield from (empty for _ in range(start))
        for plane in _between(bands, self.grid[axis], stop - start, inside):
            if inside == rest:
                yield plane
                continue
            whole = empty.copy()
            whole[_slices(tuple(boxes))] = plane
            yield whole
        yield from (empty for _ in range(self.shape[axis] - stop))


def _between(
    bands: Iterator[tuple[int, np.ndarray]],
    size: int,
    wanted: int,
    plane_shape: tuple[int, ...],
) -> Iterator[np.ndarray]:
    """Interpolate from ``size`` planes to ``wanted`` ones, each of ``plane_shape``."""
    resized = (
        _resized_plane(plane, plane_shape, copy=size != wanted)
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
        while lower < int(place) or (above is below and place > lower):
            if above is not below:
                below, lower = above, lower + 1
            following = next(resized, None)
            above = below if following is None else following
            if following is None:
                break
        share = place - lower
        yield below if share <= 0 else (1 - share) * below + share * above


def _resized_plane(
    plane: np.ndarray, shape: tuple[int, ...], *, copy: bool
) -> np.ndarray:
    """Interpolate the scores of one plane, one class at a time."""
    if plane.shape[:-1] == shape:
        return plane.astype(np.float32, copy=copy)
    resized = np.empty((*shape, plane.shape[-1]), np.float32)
    for index in range(plane.shape[-1]):
        resized[..., index] = _linear(plane[..., index].astype(np.float32), shape)
    return resized


def apply_label(label: np.ndarray, inverse: Inverse) -> np.ndarray:
    """Move a label map to the training grid of its image.

    Args:
        label: ``(*spatial)`` integers.
        inverse: what ``Preprocessing.apply`` gave for the image.

    Returns:
        ``(*grid)`` in the same dtype, every pixel that of the nearest one.
    """
    if label.shape != inverse.shape:
        raise ValueError(f"Label of {label.shape} for an image of {inverse.shape}")
    return _nearest(label[_slices(inverse.box)], inverse.grid)


class ChannelStatistics(NamedTuple):
    """Intensities of one channel over the training foreground."""

    lower: float
    upper: float
    mean: float
    deviation: float


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
        self._check(image, name)
        box = tuple((0, size) for size in image.shape[:-1])
        if self.crop_nonzero:
            box = _nonzero_box(image)
        cropped = image[_slices(box)]
        grid = self._grid(cropped.shape[:-1], spacing)
        lines = self._lines(cropped, name, reference)
        array = np.empty((*grid, self.channels), np.float32)
        for channel, line in enumerate(lines):
            if grid == cropped.shape[:-1]:
                _scale(cropped[..., channel], line, out=array[..., channel])
                continue
            values = np.empty(cropped.shape[:-1], np.float32)
            _scale(cropped[..., channel], line, out=values)
            array[..., channel] = _shrunk_or_grown(values, grid)
        return array, Inverse(image.shape[:-1], box, grid)

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
        slices = self.network_dims == 2 and len(shape) == 3
        axes = [
            axis
            for axis in range(len(shape))
            if not (slices and axis == self.slice_axis)
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
        return [_nonzero_line(image[..., index]) for index in range(self.channels)]


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
            percentiles of the labelled foreground (classes above 0), then its mean
            and deviation when clipped to these; at most a million pixels are kept,
            drawn from all cases alike and the same ones every time.

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
        raise InputError(
            "training split: 0 cases; expected one or more; mend the split"
        )
    if spacing == "median":
        middle = np.median(np.array(spacings), axis=0).tolist() if spacings else None
        spacing = None if middle is None else tuple(middle)
    if spacing is not None and len(spacing) != first.axes:
        raise InputError(
            f"spacing {spacing}: {len(spacing)} values; expected {first.axes}, one for "
            "each axis of the training cases; mend it, or set 'median' or None"
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
        """Draw from one case; one without a label gives nothing."""
        if case.label is None:
            return
        values = case.image[case.label > 0]
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
                "pixels of a class above 0; mend the labels or choose 'zscore'"
            )
        return tuple(_clipped_statistics(channel) for channel in self.values.T)


def _clipped_statistics(values: np.ndarray) -> ChannelStatistics:
    """Return the percentiles, and mean and deviation of what is clipped to them."""
    values = values.astype(np.float64)
    lower, upper = np.percentile(values, _PERCENTILES)
    values = np.clip(values, lower, upper)
    line = _line(values)
    return ChannelStatistics(float(lower), float(upper), line.mean, line.deviation)


def _scale(channel: np.ndarray, line: ChannelStatistics, *, out: np.ndarray) -> None:
    """Clip, shift and divide, a plane at a time: float64 takes eight bytes a pixel."""
    for source, target in zip(channel, out, strict=True):
        # In float64: a 16-bit copy of an 8-bit image must give the same array.
        values = source.astype(np.float64)
        np.clip(values, line.lower, line.upper, out=values)
        values -= line.mean
        values /= line.deviation
        target[...] = values


def _nonzero_line(channel: np.ndarray) -> ChannelStatistics:
    """Return mean and deviation of the non-zero pixels, and no clip."""
    planes = (plane[plane != 0].astype(np.float64) for plane in channel)
    sums = [(plane.size, float(plane.sum())) for plane in planes]
    count = sum(size for size, _ in sums)
    if not count:
        return ChannelStatistics(-math.inf, math.inf, 0.0, 1.0)
    mean = math.fsum(total for _, total in sums) / count
    planes = (plane[plane != 0].astype(np.float64) for plane in channel)
    squares = math.fsum(float(np.square(plane - mean).sum()) for plane in planes)
    deviation = math.sqrt(squares / count)
    if deviation <= 1e-9 * abs(mean):
        deviation = 1.0
    return ChannelStatistics(-math.inf, math.inf, mean, deviation)


def _line(values: np.ndarray) -> ChannelStatistics:
    """Return mean and deviation; 1 stands for a deviation that is rounding alone."""
    mean = float(values.mean()) if values.size else 0.0
    deviation = float(values.std()) if values.size else 0.0
    if deviation <= 1e-9 * abs(mean):
        deviation = 1.0
    return ChannelStatistics(-math.inf, math.inf, mean, deviation)


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


def _slices(box: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Return the index of a box."""
    return tuple(slice(start, stop) for start, stop in box)


# Grids: both span the same extent, so pixel centres lie at (i + 1/2) * old / new - 1/2.


def _linear(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate (*spatial) float32 linearly; the border repeats."""
    if values.shape == shape:
        return values
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    return ndimage.zoom(
        values, factors, order=1, mode="nearest", grid_mode=True, output=np.float32
    )


def _shrunk_or_grown(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate an image; axes that shrink are blurred first, against aliasing."""
    ratios = [old / new for new, old in zip(shape, values.shape, strict=True)]
    sigmas = [max(0.0, (ratio - 1) / 2) for ratio in ratios]
    if any(sigmas):
        values = ndimage.gaussian_filter(values, sigmas, mode="nearest")
    return _linear(values, shape)


def _nearest(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give every new pixel the label of the old one that its centre lies in."""
    if labels.shape == shape:
        return labels
    indices = [
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(shape, labels.shape, strict=True)
    ]
    return labels[np.ix_(*indices)]
