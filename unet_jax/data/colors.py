"""Masks that tell classes by colour."""

from collections.abc import Sequence

import numpy as np

from unet_jax.errors import InputError

_LISTED = 24


def match_palette(
    colors: np.ndarray,
    palette: Sequence[Sequence[int]],
    *,
    tolerance: float,
    name: str,
) -> np.ndarray:
    """Find the palette's entry of every pixel.

    Args:
        colors: ``(*spatial, 3)`` integers.
        palette: red, green and blue of each entry.
        tolerance: largest difference of a channel at which a colour is an entry.
        name: the file, for messages.

    Returns:
        ``(*spatial, 1)`` uint16 indices into the palette.

    Raises:
        InputError: a colour is no entry, or two.
    """
    found, places, counts = _distinct(colors, name)
    entries = np.array(palette, np.int64).reshape(-1, 3)
    # (colours, entries): the largest difference of a channel
    away = np.abs(found[:, None] - entries[None]).max(axis=-1)
    fits = away <= tolerance
    unknown = ~fits.any(axis=1)
    if unknown.any():
        worst = int(np.argmax(np.where(unknown, counts, -1)))
        nearest = int(away[worst].argmin())
        raise InputError(
            f"{name}: {int(counts[unknown].sum())} pixels have a colour that is not in "
            f"data.palette, most of them {_rgb(found[worst])}; the nearest entry is "
            f"{_rgb(entries[nearest])}, {away[worst, nearest]} away; add it to "
            "data.palette, or raise data.palette_tolerance"
        )
    # An exact match is no question, however near other entries are.
    exact = away == 0
    unsure = (fits.sum(axis=1) > 1) & ~exact.any(axis=1)
    if unsure.any():
        one = int(np.argmax(unsure))
        two = [_rgb(entry) for entry in entries[fits[one]][:2]]
        raise InputError(
            f"{name}: the colour {_rgb(found[one])} is within data.palette_tolerance="
            f"{tolerance:g} of {two[0]} and of {two[1]}; lower the tolerance"
        )
    index = np.where(exact.any(axis=1), exact.argmax(axis=1), fits.argmax(axis=1))
    return index.astype(np.uint16)[places].reshape(*colors.shape[:-1], 1)


def colors_text(colors: np.ndarray, *, name: str) -> str:
    """Say that a colour mask needs a palette, and propose one.

    Args:
        colors: ``(*spatial, 3)`` integers.
        name: the file.

    Returns:
        One line.
    """
    found, _, counts = _distinct(colors, name)
    if len(found) > _LISTED:
        return (
            f"{name}: an RGB picture of {len(found)} colours; expected the class of "
            "every pixel; name the mask, not the image, or save it as a palette PNG"
        )
    order = np.argsort(-counts, kind="stable")
    listed = ", ".join(_rgb(found[place]) for place in order)
    return (
        f"{name}: a colour mask; name the colour of each class, the background's "
        f"first, such as data.palette=({listed}{',' if len(found) == 1 else ''})"
    )


def _distinct(
    colors: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the colours that occur, the place of each pixel's in them, and counts."""
    if colors.dtype.kind not in "ui" or colors.max() > 255 or colors.min() < 0:
        raise InputError(
            f"{name}: colours are {colors.dtype} up to {colors.max()}; expected 8 bits "
            "a channel; save the mask as 8-bit RGB"
        )
    packed = colors.reshape(-1, 3).astype(np.int64) @ np.array([65536, 256, 1])
    values, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    found = np.stack([values >> 16, (values >> 8) & 255, values & 255], axis=-1)
    return found, places.reshape(-1), counts


def _rgb(color: np.ndarray) -> str:
    """Write a colour as a tuple."""
    return f"({int(color[0])}, {int(color[1])}, {int(color[2])})"
