"""Reads and writes TIFF: axes, colours and spacing come from the file's metadata."""

import logging
import threading
import xml.etree.ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile

from unet_jax.data.files.stored import Color, StoredImage, upright
from unet_jax.errors import InputError

_STOCK_DPI = (72.0, 96.0, 150.0, 300.0, 600.0)
"""Resolutions that programs write by default, without a measurement."""

_MILLIMETRES = {
    **{"m": 1000.0, "cm": 10.0, "mm": 1.0, "millimeter": 1.0, "nm": 1e-6, "inch": 25.4},
    **dict.fromkeys(
        ("um", "\u00b5m", "\u03bcm", "\\u00b5m", "micron", "microns"), 1e-3
    ),
}


class _DamageLog(logging.Handler):
    """Collects the errors that this thread's reading causes."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep errors, and warnings about corruption."""
        text = record.getMessage()
        serious = record.levelno >= logging.ERROR or "corrupt" in text
        if serious and record.thread == self.thread:
            self.messages.append(text)


def read_tiff(
    path: Path, axes: str | None = None, indices: bool = False
) -> StoredImage:
    """Decode a TIFF; a file that lost pages is refused.

    Args:
        axes: name of each axis, out of T, Z, C, Y, X and S, in capitals or not; None
            takes the names from the file.
        indices: whether to return the indices of a palette instead of its colours.

    Raises:
        InputError: the file has several images, or axes of no picture or volume.
        ValueError: the file is damaged.
    """
    # If a stack is cut short, tifffile only logs and returns the pages that are left.
    damage, logger = _DamageLog(), logging.getLogger("tifffile")
    logger.addHandler(damage)
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.series) != 1:
                shapes = ", ".join(str(series.shape) for series in tiff.series)
                raise InputError(
                    f"{path}: holds {len(tiff.series)} images of shapes {shapes}; "
                    "expected one; save each as a file"
                )
            page, image = tiff.series[0].keyframe, tiff.series[0].asarray()
            named = axes.upper() if axes else tiff.series[0].axes
            if len(named) != image.ndim:
                raise InputError(
                    f"{path}: data.tiff_axes is {axes!r}, but the file has "
                    f"{image.ndim} axes of sizes {image.shape} "
                    f"({tiff.series[0].axes}); name each"
                )
            image = _spatial_then_channels(image, named, path)
            if not (indices and image.shape[-1] == 1):
                image = _tiff_colors(image, page, path)
            spacing = _ome_spacing(tiff.ome_metadata)
            if spacing is None:
                spacing = _tiff_spacing(page, tiff.imagej_metadata or {})
            orientation = page.tags.valueof("Orientation", 1)
    finally:
        logger.removeHandler(damage)
    if damage.messages:
        raise ValueError(damage.messages[0])
    image = upright(image, orientation)
    known: tuple[float, ...] | None = None
    if spacing is not None:
        z, y, x = spacing
        plane = (x, y) if orientation >= 5 else (y, x)
        known = (z, *plane)[-(image.ndim - 1) :]
    if known is not None and 0.0 in known:
        known = None
    return StoredImage(path, image, None, known, "tiff")


def _spatial_then_channels(image: np.ndarray, axes: str, path: Path) -> np.ndarray:
    """Move the channel axis of a TIFF to the end; the spatial axes keep their order."""
    for axis in reversed(range(len(axes))):
        if image.shape[axis] == 1 and axes[axis] not in "YX":
            image, axes = image.squeeze(axis), axes[:axis] + axes[axis + 1 :]
    if "Z" not in axes:
        # A plain stack of pages: tifffile calls its axis I, or Q if it is unknown.
        axes = axes.replace("I", "Z").replace("Q", "Z")
    channel = axes.find("S") if "S" in axes else axes.find("C")
    if channel < 0:
        image = image[..., None]
    else:
        image = np.moveaxis(image, channel, -1)
        axes = axes[:channel] + axes[channel + 1 :]
    if axes not in ("YX", "ZYX"):
        raise InputError(
            f"{path}: axes {axes} of shape {image.shape[:-1]}; expected YX or ZYX "
            "with at most one channel axis; save one time point or channel per file"
        )
    return image


def _tiff_colors(image: np.ndarray, page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """Drop alpha and expand a palette; grey values stay as stored."""
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    if photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        # The table holds 16 bits per colour, of which the high byte counts.
        table = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        return table[image[..., 0]]
    if photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
        raise InputError(
            f"{path}: colours are {photometric.name}; expected grey, RGB or a palette; "
            "save it as RGB"
        )
    extra = page.extrasamples if page.samplesperpixel == image.shape[-1] else ()
    first = image.shape[-1] - len(extra)
    alpha = [first + index for index, kind in enumerate(extra) if int(kind) in (1, 2)]
    return np.delete(image, alpha, axis=-1) if alpha else image


def _ome_spacing(metadata: str | None) -> tuple[float, float, float] | None:
    """Return the PhysicalSizes of an OME-TIFF in mm on Z, Y, X (Z is 0 if unknown)."""
    if metadata is None:
        return None
    try:
        root = xml.etree.ElementTree.fromstring(metadata)
        pixels = next(one for one in root.iter() if one.tag.endswith("}Pixels"))
        sizes = []
        for axis in "ZYX":
            size = float(pixels.get(f"PhysicalSize{axis}", 0.0))
            # Micrometres are the default of the schema.
            unit = pixels.get(f"PhysicalSize{axis}Unit", "um").lower()
            sizes.append(size * _MILLIMETRES.get(unit, 0.0))
    except (xml.etree.ElementTree.ParseError, StopIteration, ValueError):
        return None
    z, y, x = sizes
    return (z, y, x) if y > 0 and x > 0 else None


def _tiff_spacing(
    page: tifffile.TiffPage, imagej: Mapping[str, object]
) -> tuple[float, float, float] | None:
    """Return millimetres per pixel on Z, Y, X (Z is 0 if unknown), or None."""
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1)))
    unit = str(imagej.get("unit", unit)).lower()
    x, y = (page.tags.valueof(f"{axis}Resolution", (0, 1)) for axis in "XY")
    if unit not in _MILLIMETRES or not all((*x, *y)):
        return None
    scale = _MILLIMETRES[unit]
    across, down = scale * x[1] / x[0], scale * y[1] / y[0]
    if not imagej and any(abs(25.4 / across - dpi) < 0.5 for dpi in _STOCK_DPI):
        return None
    depth = imagej.get("spacing", 0.0)
    return scale * abs(float(str(depth))), down, across


def write_tiff(
    path: Path, labels: np.ndarray, stored: StoredImage, palette: Sequence[Color]
) -> None:
    """Write ``(Y, X)`` or ``(Z, Y, X)`` with its axes and, if known, its spacing."""
    axes, spacing = "ZYX"[-labels.ndim :], stored.spacing
    if spacing is None:
        # Without minisblack three or four slices would be read as colours.
        tifffile.imwrite(
            path, labels, photometric="minisblack", metadata={"axes": axes}
        )
        return
    metadata: dict[str, object] = {"axes": axes, "unit": "mm"}
    if labels.ndim == 3:
        metadata["spacing"] = spacing[0]
    # Only ImageJ's dialect has a place for the distance of slices.
    tifffile.imwrite(
        path,
        labels,
        imagej=True,
        photometric="minisblack",
        resolution=(1 / spacing[-1], 1 / spacing[-2]),
        metadata=metadata,
    )
