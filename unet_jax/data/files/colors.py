"""Converts masks whose colours stand for classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from unet_jax.errors import InputError, setting

_LISTED = 24


def match_palette(
    colors: np.ndarray, palette: Sequence[Sequence[int]], *, tolerance: float, name: str
) -> np.ndarray:
    """Find the palette entry of every pixel.

    Args:
        colors: ``(*spatial, 3)`` integers.

    Returns:
        ``(*spatial, 1)`` uint16 indices into the palette.

    Raises:
        InputError: a colour matches no entry, or two.
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
        others = [at for at in np.argsort(-counts, kind="stable") if unknown[at]][1:]
        listed = [_rgb(found[at]) for at in others[:_LISTED]]
        more = ["..."] if len(others) > _LISTED else []
        also = f" (also {', '.join(listed + more)})" if others else ""
        raise InputError(
            f"{name}: {int(counts[unknown].sum())} pixels have a colour that is not in "
            f"data.palette, most of them {_rgb(found[worst])}; the nearest entry is "
            f"{_rgb(entries[nearest])}, {away[worst, nearest]} away{also}; add "
            f"{'them' if others else 'it'} to data.palette, or raise "
            "data.palette_tolerance"
        )
    # An exact match counts, however near other entries are.
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


class ColorsError(InputError):
    """A mask has colours, and no palette says which classes they are."""

    def __init__(self, name: str, counts: Mapping[tuple[int, int, int], int]) -> None:
        """Propose a palette, unless the colours are as many as in a photograph."""
        self.name = name
        self.counts = dict(counts)
        if len(counts) > _LISTED:
            super().__init__(
                f"{name}: an RGB picture of {len(counts)} colours; expected the class "
                "of every pixel; name the mask, not the image, or save it as a palette "
                "PNG"
            )
            return
        order = sorted(counts, key=lambda color: -counts[color])
        super().__init__(
            f"{name}: a colour mask; expected a colour for each class; list them, the "
            f"background's first, such as {setting('data.palette', tuple(order))}"
        )

    @property
    def has_proposal(self) -> bool:
        """Whether the colours are few enough for a palette."""
        return len(self.counts) <= _LISTED


def count_colors(colors: np.ndarray, *, name: str) -> dict[tuple[int, int, int], int]:
    """Count the pixels of each colour.

    Args:
        colors: ``(*spatial, 3)`` integers.

    Raises:
        InputError: more than 8 bits per channel.
    """
    found, _, counts = _distinct(colors, name)
    return {
        (int(color[0]), int(color[1]), int(color[2])): int(count)
        for color, count in zip(found, counts, strict=True)
    }


def _distinct(
    colors: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the colours that occur, the index of each pixel's colour, and counts."""
    if colors.dtype.kind not in "ui" or colors.max() > 255 or colors.min() < 0:
        raise InputError(
            f"{name}: colours are {colors.dtype} up to {colors.max()}; expected 8 bits "
            "per channel; save the mask as 8-bit RGB"
        )
    packed = colors.reshape(-1, 3).astype(np.int64) @ np.array([65536, 256, 1])
    values, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    found = np.stack([values >> 16, (values >> 8) & 255, values & 255], axis=-1)
    return found, places.reshape(-1), counts


def _rgb(color: np.ndarray) -> str:
    """Write a colour as a tuple."""
    return f"({int(color[0])}, {int(color[1])}, {int(color[2])})"
