"""Brings images to the training grid: crops, scales intensities and resamples.

``fit`` learns a frozen ``Preprocessing`` from the training split, which is saved with
the run. Its ``apply`` also returns an ``Inverse`` that brings class scores back to the
grid of the image.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from unet_jax.data.case import Case, CaseFacts
from unet_jax.data.grids import Inverse, shrunk_or_grown, slices
from unet_jax.data.intensity import (
    ChannelStatistics,
    ForegroundSample,
    ScaledView,
    empty_part,
    imaged_statistics,
    nonzero_box,
    nonzero_statistics,
    white_value,
)
from unet_jax.data.schemes import (
    RESAMPLINGS,
    check_intensity,
    coarse_axis,
    learns_percentiles,
    resample_cubic,
    scaled_by_channel,
)
from unet_jax.errors import InputError
from unet_jax.method import Reference, Spacing


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Holds the preprocessing learnt from the training split, for every later image.

    Each channel is scaled by itself, always by one straight line, so that the order of
    intensities stays:

    - "zscore": mean 0 and standard deviation 1 over the channel's non-zero pixels in
      the case. Zero pixels are scaled by the same line, so they stay the darkest of an
      MR image, unless ``zero_outside`` is set.
    - "percentile": clipped to and scaled by ``statistics``.
    - "full_range": [0, 255] of uint8, [0, 65535] of uint16 and [0, 1] of floats become
      [-1, 1]; other dtypes and ranges are refused, because they do not define white.
    - a tuple has a scheme for each channel: one of these or of nnU-Net's, see
      `schemes.channel_line`.

    Attributes:
        network_dims: number of spatial axes that the network sees, 2 or 3.
        slice_axis: RAS axis across the slices that a 2-D network sees of a volume;
            nothing is resampled along it.
        spacing: millimetres per pixel to resample to, for each axis of the training
            cases; None leaves every image as it is, and so does an image without a
            spacing.
        size: (height, width) to resize pictures and slices to; None leaves them.
        crop_nonzero: whether to crop to the box of pixels that are not zero in some
            channel.
        statistics: statistics of each channel if intensity is "percentile", else empty.
        zero_outside: whether "zscore" leaves the empty part of an image
            (`intensity.empty_part`) at zero, so that it does not move with the
            intensities of what is imaged.
        resampling: "linear", blurred before an axis shrinks; or "nnunet", cubic splines
            that leave planes apart that are far from each other (`schemes`).
        adjacent_slices: number of slices on each side whose channels a 2-D network of
            volumes sees too (`adjacent_slices`).
    """

    network_dims: int
    slice_axis: int
    spacing: Spacing
    size: tuple[int, int] | None
    crop_nonzero: bool
    intensity: str | tuple[str, ...]
    channels: int
    statistics: tuple[ChannelStatistics, ...] = ()
    zero_outside: bool = False
    resampling: str = "linear"
    adjacent_slices: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        known = {
            "network_dims": (2, 3),
            "slice_axis": (0, 1, 2),
            "resampling": RESAMPLINGS,
        }
        for name, choices in known.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"Unknown {name} {value!r}; expected one of {choices}")
        check_intensity(self.intensity, channels=self.channels)
        if self.size is not None and self.network_dims == 3:
            raise ValueError(f"size {self.size} is for a 2-D network; expected None")
        for name, value in (("spacing", self.spacing), ("size", self.size)):
            if value is not None and not all(part > 0 for part in value):
                raise ValueError(f"{name} {value} must be positive")

    @property
    def input_channels(self) -> int:
        """Number of channels that the network sees."""
        return self.channels * (2 * self.adjacent_slices + 1)

    @property
    def resamples(self) -> bool:
        """Whether images are brought to another spacing or size."""
        return self.spacing is not None or self.size is not None

    @property
    def grid_spacing(self) -> Spacing:
        """Millimetres per pixel that the network sees; None where cases differ."""
        if self.spacing is None:
            return None
        spacing = [float(step) for step in self.spacing]
        if len(spacing) > self.network_dims:
            del spacing[self.slice_axis]
        return tuple(spacing)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; ``from_dict`` gives an equal object."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Restore what ``to_dict`` returned; InputError for other keys."""
        names = {field.name for field in dataclasses.fields(cls)}
        # Earlier versions had no such rules.
        later = {"zero_outside": False, "resampling": "linear", "adjacent_slices": 0}
        values = {**later, **values}
        if set(values) != names:
            raise InputError(
                f"preprocessing: keys {sorted(set(values) ^ names)} are missing or "
                f"unknown; expected {sorted(names)}; restore the run's config.json"
            )
        parts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        rows = parts["statistics"]
        parts["statistics"] = tuple(ChannelStatistics(*row) for row in rows)
        return cls(**parts)

    def without_scaling(self) -> "Preprocessing":
        """Return the way to the same grid that crops and scales nothing."""
        as_it_is = (ChannelStatistics.line(0.0, 1.0),) * self.channels
        return dataclasses.replace(
            self,
            crop_nonzero=False,
            intensity="percentile",
            statistics=as_it_is,
            zero_outside=False,
        )

    def apply(
        self,
        image: np.ndarray,
        spacing: Spacing,
        *,
        name: str = "image",
        reference: Reference = None,
    ) -> tuple[np.ndarray, Inverse]:
        """Bring an image to the training grid.

        Args:
            image: ``(*spatial, channels)`` in its stored dtype; volumes in RAS order.
            spacing: millimetres per pixel on each spatial axis, or None.
            reference: statistics of the whole scan, see ``Case``; "zscore" uses them
                instead of the image's own.

        Returns:
            ``(*grid, channels)`` float32, and the way back.

        Raises:
            InputError: another number of channels than in training, a picture for a
                3-D network, or values that the intensity scheme does not define.
        """
        view, inverse = self.view(image, spacing, name=name, reference=reference)
        return np.asarray(view), inverse

    def view(
        self,
        image: np.ndarray,
        spacing: Spacing,
        *,
        name: str = "image",
        reference: Reference = None,
    ) -> tuple["np.ndarray | ScaledView", Inverse]:
        """Bring an image to the training grid, copying it only if it is resampled.

        Arguments and errors are those of `apply`.

        Returns:
            An array as `apply` returns it, or a view that scales a region when the
            region is read; and the way back.
        """
        self._check(image, name)
        box = tuple((0, size) for size in image.shape[:-1])
        if self.crop_nonzero:
            box = nonzero_box(image)
        cropped = image[slices(box)]
        grid = self._grid(cropped.shape[:-1], spacing)
        coarse = None
        if self.resampling == "nnunet":
            target = self._target(spacing, cropped.ndim - 1)
            coarse = coarse_axis(spacing, target)
            inverse = Inverse(image.shape[:-1], box, grid, coarse_axis(target, spacing))
        else:
            inverse = Inverse(image.shape[:-1], box, grid)
        view = self._scaled(image, box, name, reference)
        if grid == cropped.shape[:-1]:
            return view, inverse
        array = np.empty((*grid, self.channels), np.float32)
        for channel in range(self.channels):
            scaled = view.channel(channel)
            array[..., channel] = (
                resample_cubic(scaled, grid, coarse=coarse)
                if self.resampling == "nnunet"
                else shrunk_or_grown(scaled, grid)
            )
        return array, inverse

    def _scaled(
        self,
        image: np.ndarray,
        box: tuple[tuple[int, int], ...],
        name: str,
        reference: Reference,
    ) -> ScaledView:
        """Return the view that scales the cropped image."""
        cropped = image[slices(box)]
        if not isinstance(self.intensity, str):
            return scaled_by_channel(
                cropped, self.intensity, self.statistics, name, reference
            )
        lines = self._lines(cropped, name, reference)
        outside = None
        if self.zero_outside and self.intensity == "zscore":
            outside = empty_part(image)[slices(box)]
        return ScaledView(cropped, tuple(lines), outside)

    def _target(self, spacing: Spacing, axes: int) -> Spacing:
        """Return the spacing on each axis of an image after it is resampled."""
        if self.spacing is None or spacing is None:
            return spacing
        targets, axis = list(self.spacing), self.slice_axis
        if self.network_dims == 2 and len(targets) > 2:
            targets[axis : axis + 1] = [] if axes == 2 else [spacing[axis]]
        return tuple(targets)

    def _check(self, image: np.ndarray, name: str) -> None:
        """Refuse an image that the network cannot process."""
        least = self.network_dims + (self.adjacent_slices > 0)
        if image.ndim - 1 < least or image.ndim not in (3, 4):
            raise InputError(
                f"{name}: {image.ndim - 1} spatial axes; expected 3, because the "
                "network was trained on volumes; give a NIfTI or a TIFF stack"
            )
        if image.shape[-1] != self.channels:
            raise InputError(
                f"{name}: {image.shape[-1]} channels; expected {self.channels} as in "
                "training; convert it (RGB to grey, or grey to RGB) or choose another "
                "model"
            )

    def _grid(self, shape: tuple[int, ...], spacing: Spacing) -> tuple[int, ...]:
        """Return the shape to resample to; the extent in millimetres stays."""
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
        self, image: np.ndarray, name: str, reference: Reference
    ) -> list[ChannelStatistics]:
        """Return clip limits, offset and divisor of each channel."""
        if self.intensity == "percentile":
            return list(self.statistics)
        if self.intensity == "full_range":
            half = white_value(image, name=name) / 2
            return [ChannelStatistics.line(half, half)] * self.channels
        pairs = reference
        if pairs is None:
            measure = imaged_statistics if self.zero_outside else nonzero_statistics
            pairs = tuple(measure(image[..., index]) for index in range(self.channels))
        return [ChannelStatistics.line(*pair) for pair in pairs]


def fit(
    cases: Iterable[Case | CaseFacts],
    *,
    network_dims: int,
    slice_axis: int,
    spacing: tuple[float, ...] | Literal["median"] | None,
    size: tuple[int, int] | None,
    crop_nonzero: bool,
    intensity: str | tuple[str, ...],
    zero_outside: bool = False,
    resampling: str = "linear",
    adjacent_slices: int = 0,
) -> Preprocessing:
    """Learn the preprocessing from the training split, in one pass.

    Args:
        cases: training cases, volumes in RAS order, none of which is kept; facts are
            enough for every intensity but "percentile".
        spacing: millimetres per pixel, "median" for the median of the cases, or None
            for no resampling.
        size: (height, width) for pictures; the spacing is then not used.
        intensity: one of ``INTENSITIES``. "percentile" takes the 0.5 and 99.5
            percentiles of the labelled foreground (classes above 0; the non-zero pixels
            of a case without a label), then mean and standard deviation of the values
            clipped to these. At most a million pixels are kept, drawn from all cases
            with equal chance, and the same ones every time.

    Raises:
        InputError: no cases, two cases that do not fit together (both are named), or
            "percentile" without a labelled foreground.
    """
    first: CaseFacts | None = None
    spacings = []
    sample = ForegroundSample()
    for case in cases:
        facts = case if isinstance(case, CaseFacts) else CaseFacts.of(case)
        first = first or facts
        _check_alike(first, facts)
        if facts.spacing is not None:
            spacings.append(facts.spacing)
        if learns_percentiles(intensity):
            assert isinstance(case, Case), "percentiles need the pixels of each case"
            sample.add(case)
    if first is None:
        raise InputError("training split: 0 cases; expected one or more; fix the split")
    target = _target_spacing(spacing, spacings, axes=first.axes)
    return Preprocessing(
        network_dims=network_dims,
        slice_axis=slice_axis,
        spacing=None if size is not None else target,
        size=size,
        crop_nonzero=crop_nonzero,
        intensity=intensity,
        channels=first.channels,
        statistics=sample.statistics() if learns_percentiles(intensity) else (),
        zero_outside=zero_outside,
        resampling=resampling,
        adjacent_slices=adjacent_slices,
    )


def _target_spacing(
    spacing: tuple[float, ...] | Literal["median"] | None,
    spacings: list[tuple[float, ...]],
    *,
    axes: int,
) -> Spacing:
    """Return the spacing to resample to, given the spacings of the cases."""
    if spacing == "median":
        middle = np.median(np.array(spacings), axis=0).tolist() if spacings else None
        return None if middle is None else tuple(middle)
    if spacing is not None and len(spacing) != axes:
        raise InputError(
            f"data.spacing {spacing}: {len(spacing)} values; expected {axes}, one per "
            "axis of the training cases; fix it, or set 'median' or None"
        )
    return spacing


def _check_alike(first: CaseFacts, case: CaseFacts) -> None:
    """Refuse two training cases that do not fit into one network."""
    for what, one, two in (
        ("channels", first.channels, case.channels),
        ("spatial axes", first.axes, case.axes),
        ("a known spacing", first.spacing is not None, case.spacing is not None),
    ):
        if one != two:
            raise InputError(
                f"training split: {what}: {one} in case {first.id}, {two} in case "
                f"{case.id}; expected the same; convert or leave out one of them"
            )
