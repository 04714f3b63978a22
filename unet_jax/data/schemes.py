"""Scales channels by schemes that may differ, and resamples, as nnU-Net does.

Source: nnU-Net 2.8.1, its normalization schemes and ``default_resampling``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from unet_jax.data.intensity import (
    INTENSITIES,
    ChannelStatistics,
    ScaledView,
    nonzero_statistics,
    statistics_where,
    white_value,
)
from unet_jax.errors import InputError
from unet_jax.method import Reference

CHANNEL_SCHEMES = (
    *("zscore", "percentile", "full_range"),
    *("zscore_whole", "zscore_filled", "unit_range", "rgb", "none"),
)
"""Schemes that a channel may have where ``data.intensity`` has one for each."""

RESAMPLINGS = ("linear", "nnunet")
"""Ways to resample; `Preprocessing` explains them."""

_ANISOTROPIC = 3.0  # ratio of spacings beyond which planes are resampled by themselves


def check_intensity(intensity: Any, *, channels: int | None = None) -> None:
    """Refuse schemes that are not known, or too few for the channels.

    Args:
        intensity: value of ``data.intensity``: a name, or one for each channel.
        channels: number of channels; None if it is not known yet.

    Raises:
        InputError: the value is none of these.
    """
    if isinstance(intensity, str) and intensity in INTENSITIES:
        return
    if not isinstance(intensity, list | tuple) or not all(
        isinstance(one, str) and one in CHANNEL_SCHEMES for one in intensity
    ):
        raise InputError(
            f"data.intensity: found {intensity!r}, expected one of "
            f"{', '.join(map(repr, INTENSITIES))}, or a tuple with one of "
            f"{', '.join(CHANNEL_SCHEMES)} for each channel"
        )
    if channels is not None and len(intensity) != channels:
        raise InputError(
            f"data.intensity: {tuple(intensity)} has {len(intensity)} schemes; "
            f"expected {channels}, one for each channel"
        )


def learns_percentiles(intensity: str | tuple[str, ...]) -> bool:
    """Tell whether a scheme needs the pixels of the training cases."""
    schemes = (intensity,) if isinstance(intensity, str) else intensity
    return "percentile" in schemes


def scaled_by_channel(
    image: np.ndarray,
    schemes: Sequence[str],
    statistics: Sequence[ChannelStatistics],
    name: str,
    reference: Reference,
) -> ScaledView:
    """Scale each channel of a case by its own scheme.

    Args:
        image: ``(*spatial, channels)`` numbers, without an empty border.
        schemes: a scheme for each channel.
        statistics: statistics of each channel for "percentile".
        name: name of the image in messages.
        reference: see ``Case``, for "zscore".
    """
    filled = filled_part(image)

    def line(index: int, scheme: str) -> ChannelStatistics:
        channel = image[..., index]
        match scheme:
            case "percentile":
                return statistics[index]
            case "full_range":
                half = white_value(channel, name=name) / 2
                return ChannelStatistics.line(half, half)
            case "zscore" if reference is not None:
                return ChannelStatistics.line(*reference[index])
        return channel_line(scheme, channel, filled)

    lines = tuple(line(index, scheme) for index, scheme in enumerate(schemes))
    masked = tuple(scheme == "zscore_filled" for scheme in schemes)
    return ScaledView(image, lines, ~filled if any(masked) else None, masked)


def channel_line(
    scheme: str, channel: np.ndarray, filled: np.ndarray
) -> ChannelStatistics:
    """Return the line of a scheme that looks at the channel of one case.

    Args:
        scheme: "zscore" (mean 0 and std 1 over the pixels that are not 0),
            "zscore_whole" (over all), "zscore_filled" (over the filled ones),
            "unit_range" (0 to 1), "rgb" (0 to 255 becomes 0 to 1) or "none".
        channel: ``(*spatial)`` numbers.
        filled: ``(*spatial)`` booleans from `filled_part`.
    """
    match scheme:
        case "zscore":
            return ChannelStatistics.line(*nonzero_statistics(channel))
        case "zscore_whole":
            return _standard(channel, np.ones_like(filled))
        case "zscore_filled":
            return _standard(channel, filled)
        case "unit_range":
            low, high = float(channel.min()), float(channel.max())
            return ChannelStatistics.line(low, max(high - low, 1e-8))
        case "rgb":
            return ChannelStatistics.line(0.0, 255.0)
        case "none":
            return ChannelStatistics.line(0.0, 1.0)
    raise ValueError(f"Unknown scheme {scheme!r}; expected one of {CHANNEL_SCHEMES}")


def _standard(channel: np.ndarray, chosen: np.ndarray) -> ChannelStatistics:
    """Return the line to mean 0 and standard deviation 1 of the chosen pixels."""
    return ChannelStatistics.line(*statistics_where(channel, chosen))


def filled_part(image: np.ndarray) -> np.ndarray:
    """Return the pixels that are not zero in some channel, and the holes in them.

    Args:
        image: ``(*spatial, channels)`` numbers.

    Returns:
        ``(*spatial)`` booleans.
    """
    filled: np.ndarray = ndimage.binary_fill_holes((image != 0).any(axis=-1))
    return filled


def coarse_axis(
    spacing: Sequence[float] | None, other: Sequence[float] | None
) -> int | None:
    """Return the axis along which planes are far apart, and are not mixed.

    Args:
        spacing: millimetres on each axis of the grid to resample from.
        other: those of the grid to resample to, which decide if the first do not.

    Returns:
        The axis, if its spacing is more than three times the smallest and no other is
        as coarse; else None.

    >>> coarse_axis((1.0, 5.0, 1.25), (1.0, 4.0, 1.25))
    1
    """
    for steps in (spacing, other):
        if steps is not None and max(steps) > _ANISOTROPIC * min(steps):
            coarsest = [axis for axis, step in enumerate(steps) if step == max(steps)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def nearest_planes(old: int, new: int) -> np.ndarray:
    """Return the nearest of ``old`` planes for each of ``new`` ones, from 0."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    return np.clip(np.floor(places + 0.5), 0, old - 1).astype(int)


def resample_cubic(
    values: np.ndarray, shape: tuple[int, ...], *, coarse: int | None
) -> np.ndarray:
    """Resample an image by cubic splines; along a coarse axis by the nearest plane.

    Args:
        values: ``(*spatial)`` numbers.
        coarse: axis from `coarse_axis`, or None.

    Returns:
        ``(*shape)`` float32; nothing is outside of the range of the values.
    """
    if values.shape == tuple(shape):
        return values.astype(np.float32, copy=False)
    if coarse is None:
        return _spline(values, shape)
    planes = np.moveaxis(values, coarse, 0)
    rest = tuple(size for axis, size in enumerate(shape) if axis != coarse)
    made = np.stack([_spline(plane, rest) for plane in planes])
    chosen = made[nearest_planes(len(planes), shape[coarse])]
    return np.ascontiguousarray(np.moveaxis(chosen, 0, coarse))


def _spline(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate by cubic splines, cut to the range of the values."""
    values = values.astype(np.float64)
    if values.shape == shape:
        return values.astype(np.float32)
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    made = ndimage.zoom(values, factors, order=3, mode="nearest", grid_mode=True)
    return np.clip(made, values.min(), values.max()).astype(np.float32)
