"""Turns an image into what a method sees: one channel, all, or a colour space."""

import numpy as np
from skimage import color

from unet_jax.classical.samples import Reference
from unet_jax.method import Spacing


def channel_of(image: np.ndarray, channel: int | str) -> np.ndarray:
    """Reduce ``(*spatial, channels)`` to float32: one channel, or the "mean" of all."""
    if channel == "mean":
        return image.mean(axis=-1, dtype=np.float64).astype(np.float32)
    return image[..., int(channel)].astype(np.float32)


def stored_channel(image: np.ndarray, channel: int | str) -> np.ndarray:
    """Reduce an image to ``(*spatial)``, in its stored dtype unless it is the mean."""
    if channel == "mean":
        return channel_of(image, channel)
    return image[..., int(channel)]


def scaled(image: np.ndarray, reference: Reference, scale: str) -> np.ndarray:
    """Bring intensities to a scale on which images can be compared.

    Args:
        image: ``(*spatial, channels)``.
        reference: mean and standard deviation of each channel over the whole scan, if
            the image is a part of one; None to take those of its own non-zero pixels.
        scale: "stored" leaves the values, "image" subtracts the mean and divides by the
            standard deviation, which images of different scanners need.

    Returns:
        ``(*spatial, channels)`` float32.
    """
    values = image.astype(np.float32)
    if scale == "stored":
        return values
    moments = _moments(values) if reference is None else np.asarray(reference)
    mean, std = np.asarray(moments, np.float32).T
    return (values - mean) / np.where(std > 0, std, 1)


def _moments(values: np.ndarray) -> np.ndarray:
    """Return mean and std ``(channels, 2)`` over the pixels that are not zero."""
    inside = values[(values != 0).any(axis=-1)].astype(np.float64)
    if not len(inside):
        return np.tile((0.0, 1.0), (values.shape[-1], 1))
    return np.stack([inside.mean(axis=0), inside.std(axis=0)], axis=-1)


def to_color_space(image: np.ndarray, space: str) -> np.ndarray:
    """Turn red, green and blue into another colour space.

    Hue is an angle: it is given as two coordinates, so that reds on both sides of
    zero are neighbours.

    Args:
        image: ``(*spatial, channels)``; values stay unless there are three channels
            and another space than "rgb".
        space: "rgb", "lab" (CIELAB, where equal distances look equal to people) or
            "hsv" (saturation times cosine and sine of the hue, and value).

    Returns:
        ``(*spatial, channels)`` float32.
    """
    values = image.astype(np.float32)
    if space == "rgb" or image.shape[-1] != 3:
        return values
    unit = np.clip(values / _white(image), 0, 1)
    if space == "lab":
        return color.rgb2lab(unit).astype(np.float32)
    hue, saturation, value = np.moveaxis(color.rgb2hsv(unit), -1, 0)
    angle = 2 * np.pi * hue
    return np.stack(
        [saturation * np.cos(angle), saturation * np.sin(angle), value], axis=-1
    ).astype(np.float32)


def _white(image: np.ndarray) -> float:
    """The value of full light: that of the integer type, else of the image."""
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    return max(1.0, float(image.max()))


def sigmas(sigma: float, spacing: Spacing, axes: int) -> tuple[float, ...]:
    """Convert a width in pixels of the finest axis to pixels of each axis."""
    if spacing is None:
        return (sigma,) * axes
    finest = min(spacing)
    return tuple(sigma * finest / step for step in spacing)
