"""Finds the pixels of an image that its file declares as missing (GDAL nodata)."""

import math

import numpy as np
import tifffile

_GDAL_NODATA = 42113


def nodata_of(page: tifffile.TiffPage) -> float | None:
    """Return the value that a TIFF declares as missing; None if it declares none."""
    text = page.tags.valueof(_GDAL_NODATA)
    try:
        return None if text is None else float(str(text).strip(" \0"))
    except ValueError:
        return None


def missing_pixels(image: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Find the missing pixels of an image.

    Args:
        image: ``(*spatial, channels)``. One missing float is enough for a pixel;
            integers have to be missing in all channels, because 0 and 255 of a single
            channel are colours.
        nodata: value that stands for missing ones.

    Returns:
        ``(*spatial)`` bool, or None if no pixel is missing.
    """
    if nodata is None:
        return None
    if image.dtype.kind == "f":
        if math.isnan(nodata):
            equal = np.isnan(image)
        else:
            # The tag is text, often with fewer digits than the pixels.
            limit = float(np.finfo(image.dtype).max)
            low, high = sorted((nodata * (1 - 1e-6), nodata * (1 + 1e-6)))
            equal = (image >= max(low, -limit)) & (image <= min(high, limit))
        missing = equal.any(axis=-1)
    elif nodata == int(nodata) if math.isfinite(nodata) else False:
        missing = (image == int(nodata)).all(axis=-1)
    else:
        return None
    return missing if missing.any() else None


def is_class(nodata: float) -> bool:
    """Tell whether a nodata value of a mask may be the value of a class."""
    return abs(nodata) <= 2**53 and nodata == int(nodata)


def filled(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Replace missing pixels by the mean of the others, which is no edge or extreme.

    Args:
        image: ``(*spatial, channels)``.
        missing: ``(*spatial)`` bool.

    Returns:
        A copy in the dtype of the image; 0 where every pixel is missing.
    """
    result = np.array(image)
    for channel in range(image.shape[-1]):
        seen = image[..., channel][~missing]
        mean = float(seen.mean(dtype=np.float64)) if seen.size else 0.0
        result[missing, channel] = mean if image.dtype.kind == "f" else round(mean)
    return result
