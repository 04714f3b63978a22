"""Prepares images for a network, for run.py beside this file.

All is done as unet_jax does it with these settings. numpy suffices, but for cubic
splines and filled holes, which scipy has.
"""

import importlib
import sys

import numpy as np


def needed(module, package):
    """Import a package that only some bundles need."""
    try:
        return importlib.import_module(module)
    except ImportError:
        sys.exit(f"run.py: found no {package}; install it: pip install {package}")


def line(scheme, index, image, filled, prep):
    """Return clip limits, offset and divisor of a channel."""
    channel = image[..., index]
    if scheme == "percentile":
        low, high, mean, std = prep["statistics"][index]
        return (
            -np.inf if low is None else low,
            np.inf if high is None else high,
            mean,
            std,
        )
    if scheme in ("rgb", "none"):
        return -np.inf, np.inf, 0.0, 255.0 if scheme == "rgb" else 1.0
    if scheme == "unit_range":
        low = float(channel.min())
        return -np.inf, np.inf, low, max(float(channel.max()) - low, 1e-8)
    if scheme == "full_range":
        white = {"uint8": 255.0, "uint16": 65535.0}.get(image.dtype.name, 1.0)
        part = channel if isinstance(prep["intensity"], list) else image
        if white == 1 and (image.dtype.kind != "f" or part.min() < 0 or part.max() > 1):
            sys.exit(
                f"run.py: {image.dtype} values; expected uint8, uint16 or floats "
                "from 0 to 1; convert them"
            )
        return -np.inf, np.inf, white / 2, white / 2
    chosen = {"zscore_whole": np.ones_like(filled), "zscore_filled": filled}.get(
        scheme, channel != 0
    )
    if scheme == "zscore" and prep["zero_outside"] and prep["intensity"] == "zscore":
        pixels = channel.reshape(-1)
        pixels = pixels[:: max(1, pixels.size // 1_000_000)]
        if (pixels != 0).any():
            low, high = np.percentile(pixels[pixels != 0].astype(np.float64), (2, 98))
            chosen = chosen & (channel >= low + (high - low) / 10)
        else:
            chosen = np.zeros_like(chosen)
    values = channel[chosen].astype(np.float64)
    mean, std = (float(values.mean()), float(values.std())) if values.size else (0, 1)
    return -np.inf, np.inf, mean, std if std > 1e-9 * abs(mean) else 1.0


def near(mask, outside):
    """Return where a pixel of the square of five around each is set."""
    for axis in range(mask.ndim):
        size, pads = mask.shape[axis], [(0, 0)] * mask.ndim
        pads[axis] = (2, 2)
        padded = np.pad(mask, pads, constant_values=outside)
        parts = [padded.take(range(at, at + size), axis) for at in range(5)]
        mask = np.logical_or.reduce(parts)
    return mask


def prepare(image, spacing, prep):
    """Crop, scale and resample: pixels, box, and the axis of planes far apart."""
    box = [(0, size) for size in image.shape[:-1]]
    used = (image != 0).any(axis=-1)
    if prep["crop_nonzero"] and used.any():
        places = [
            np.flatnonzero(used.any(tuple(np.delete(range(used.ndim), axis))))
            for axis in range(used.ndim)
        ]
        box = [(int(found[0]), int(found[-1]) + 1) for found in places]
    part = tuple(slice(*ends) for ends in box)
    cut, many = image[part], isinstance(prep["intensity"], list)
    schemes = prep["intensity"] if many else [prep["intensity"]] * prep["channels"]
    filled = used[part]
    if "zscore_filled" in schemes:
        filled = needed("scipy.ndimage", "scipy").binary_fill_holes(filled)
    scaled = np.empty(cut.shape, np.float32)
    for index, scheme in enumerate(schemes):
        low, high, mean, std = line(scheme, index, cut, filled, prep)
        values = np.clip(cut[..., index].astype(np.float64), low, high)
        scaled[..., index] = (values - mean) / std
        if scheme == "zscore_filled":
            scaled[..., index] *= filled
    if prep["zero_outside"] and prep["intensity"] == "zscore":
        scaled[near(~near(used, False), False)[part]] = 0
    target, axes = wanted(cut.shape[:-1], spacing, prep)
    grid, coarse = list(cut.shape[:-1]), (None, None)
    if prep["size"]:
        for axis, size in zip(axes, prep["size"], strict=False):
            grid[axis] = size
    elif target != spacing:
        for axis in axes:
            grid[axis] = max(1, round(grid[axis] * spacing[axis] / target[axis]))
    if prep["resampling"] == "nnunet":
        coarse = coarse_axis(spacing, target), coarse_axis(target, spacing)
    if tuple(grid) != cut.shape[:-1]:
        change = cubic if prep["resampling"] == "nnunet" else linear
        channels = [change(one, grid, coarse[0]) for one in np.moveaxis(scaled, -1, 0)]
        scaled = np.stack(channels, axis=-1)
    return scaled, box, coarse[1]


def wanted(shape, spacing, prep):
    """Return the spacing to resample to, and the axes that are resampled."""
    axes, across = list(range(len(shape))), prep["slice_axis"]
    if prep["network_dims"] == 2 and len(shape) == 3:
        axes.remove(across)
    if prep["spacing"] is None or spacing is None:
        return spacing, axes
    target = list(prep["spacing"])
    if prep["network_dims"] == 2 and len(target) == 3:
        target[across : across + 1] = [spacing[across]] if len(shape) == 3 else []
    return tuple(target), axes


def coarse_axis(spacing, other):
    """Return the axis whose planes lie more than three pixels apart, or None."""
    for steps in (spacing, other):
        if steps is not None and max(steps) > 3 * min(steps):
            most = [axis for axis, step in enumerate(steps) if step == max(steps)]
            return most[0] if len(most) == 1 else None
    return None


def resized(values, axis, new, nearest=False):
    """Interpolate along one axis, linearly or from the nearest pixel."""
    old = values.shape[axis]
    if old == new:
        return values
    places = (np.arange(new) + 0.5) * old / new - 0.5
    if nearest:
        return values.take(
            np.clip(np.floor(places + 0.5), 0, old - 1).astype(int), axis
        )
    places = np.clip(places, 0, old - 1)
    below = places.astype(int)
    low, high = (values.take(np.minimum(below + n, old - 1), axis) for n in (0, 1))
    weight = (places - below).astype(np.float32)
    return low + weight.reshape(-1, *(1,) * (values.ndim - axis - 1)) * (high - low)


def linear(values, grid, coarse):
    """Interpolate an image linearly, blurred first where an axis shrinks."""
    for axis, new in enumerate(grid):
        sigma = max(0.0, (values.shape[axis] / new - 1) / 2)
        if sigma:
            radius, size = int(4 * sigma + 0.5), values.shape[axis]
            weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
            pads = [
                (radius, radius) if n == axis else (0, 0) for n in range(values.ndim)
            ]
            padded = np.pad(values, pads, "edge")
            parts = (
                w * padded.take(range(at, at + size), axis)
                for at, w in enumerate(weights / weights.sum())
            )
            values = sum(parts).astype(np.float32)
    for axis, new in enumerate(grid):
        values = resized(values, axis, new)
    return values


def cubic(values, grid, coarse):
    """Interpolate by cubic splines; along a coarse axis take the nearest plane."""

    def spline(part, shape):
        if part.shape == tuple(shape):
            return part
        factors = [new / old for new, old in zip(shape, part.shape, strict=False)]
        zoom, part = needed("scipy.ndimage", "scipy").zoom, part.astype(np.float64)
        made = zoom(part, factors, order=3, mode="nearest", grid_mode=True)
        return np.clip(made, part.min(), part.max()).astype(np.float32)

    if coarse is None:
        return spline(values, grid)
    rest = np.delete(grid, coarse).tolist()
    made = np.stack([spline(plane, rest) for plane in np.moveaxis(values, coarse, 0)])
    return np.moveaxis(resized(made, 0, grid[coarse], True), 0, coarse)
