"""Reads and writes TIFF: axes, colours and spacing come from the file's metadata."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from unet_jax.data.files.nodata import missing_pixels, nodata_of
from unet_jax.data.files.stored import Color, StoredImage, transparent_pixels
from unet_jax.data.files.tiff_metadata import (
    check_photometric,
    check_planes,
    color_table,
    colors_of,
    gdal_scaled,
    is_lossy,
    is_transparency_mask,
    spacing_beside,
    spacing_of,
    white_is_zero,
)
from unet_jax.errors import InputError, named_files


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


def _is_told(record: logging.LogRecord) -> bool:
    """Pass what tifffile logs, but not what is read or refused here."""
    text = record.getMessage()
    return "GDAL_NODATA" not in text and "OME series" not in text


logging.getLogger("tifffile").addFilter(_is_told)


def read_tiff(
    path: Path, axes: str | None = None, indices: bool = False
) -> StoredImage:
    """Decode a TIFF as stored, not yet upright; one that lost planes is refused.

    Args:
        axes: name of each axis, out of T, Z, C, Y, X and S, in capitals or not; None
            takes the names from the file.
        indices: whether the file is a mask: the indices of a palette are returned
            instead of its colours.

    Raises:
        InputError: the file has several images, axes of no picture or volume, missing
            planes, or colours that cannot be read.
        ValueError: the file is damaged.
    """
    # If a stack is cut short, tifffile only logs and returns the pages that are left.
    damage, logger = _DamageLog(), logging.getLogger("tifffile")
    logger.addHandler(damage)
    try:
        with tifffile.TiffFile(path) as tiff:
            stored = _decoded(tiff, path, axes, indices)
    finally:
        logger.removeHandler(damage)
    if damage.messages:
        raise ValueError(damage.messages[0])
    return stored


def _decoded(
    tiff: tifffile.TiffFile, path: Path, axes: str | None, indices: bool
) -> StoredImage:
    """Decode the only image of an open TIFF."""
    masks = [series for series in tiff.series if is_transparency_mask(series.keyframe)]
    images = [series for series in tiff.series if series not in masks]
    if len(images) != 1:
        shapes = named_files([str(series.shape) for series in images])
        raise InputError(
            f"{path}: holds {len(images)} images of shapes {shapes}; "
            "expected one; save each as a file"
        )
    series = images[0]
    check_planes(tiff, series, path)
    page, image = series.keyframe, series.asarray()
    if image.shape != series.shape:
        raise InputError(
            f"{path}: its metadata state the shape {series.shape}, but its planes give "
            f"{image.shape}; expected every plane; export it again"
        )
    named = axes.upper() if axes else series.axes
    if len(named) != image.ndim:
        raise InputError(
            f"{path}: data.tiff_axes is {axes!r}, but the file has {image.ndim} axes "
            f"of sizes {image.shape} ({series.axes}); name each"
        )
    check_photometric(page, path)
    image = _spatial_then_channels(image, named, path)
    image, transparent = _without_alpha(image, page)
    nodata = nodata_of(page)
    missing = missing_pixels(image, nodata)
    for mask in masks:
        hidden = transparent_pixels(mask.asarray())
        if hidden is not None and hidden.shape == image.shape[:-1]:
            missing = hidden if missing is None else missing | hidden
    table = color_table(page)
    if table is not None and not indices:
        image = table[image[..., 0]]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        image = white_is_zero(image, page, path, is_mask=indices)
    if table is None and not indices:
        image = gdal_scaled(image, page)
    spacing, source = spacing_beside(path) or spacing_of(tiff, page)
    known = None if spacing is None else spacing[-(image.ndim - 1) :]
    tags = {"photometric": tifffile.PHOTOMETRIC(page.photometric).name}
    return StoredImage(
        path,
        image,
        None,
        known if known is not None and 0.0 not in known else None,
        "tiff",
        orientation=int(page.tags.valueof("Orientation", 1)),
        transparent=transparent,
        missing=missing,
        nodata=nodata,
        colors={} if table is None else colors_of(table),
        lossy=is_lossy(page),
        tags=tags | ({"spacing": source} if source else {}),
    )


def _spatial_then_channels(image: np.ndarray, axes: str, path: Path) -> np.ndarray:
    """Move the channel axis of a TIFF to the end; the spatial axes keep their order."""
    unknown = [axis for axis, name in enumerate(axes) if name in "IQ"]
    if image.ndim == 4 and len(unknown) > 1:
        # Of four axes without names the shortest is most likely that of channels.
        names = ["Z", "Y", "X"]
        names.insert(int(np.argmin(image.shape)), "C")
        raise InputError(
            f"{path}: four axes of sizes {image.shape}, of which the file names "
            f"{4 - len(unknown)}; expected to know the axis of channels; set "
            f"--config.data.tiff_axes={''.join(names)}, or the order that is true"
        )
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


def _without_alpha(
    image: np.ndarray, page: tifffile.TiffPage
) -> tuple[np.ndarray, np.ndarray | None]:
    """Drop alpha; return its transparent pixels too."""
    extra = page.extrasamples if page.samplesperpixel == image.shape[-1] else ()
    first = image.shape[-1] - len(extra)
    alpha = [first + index for index, kind in enumerate(extra) if int(kind) in (1, 2)]
    if not alpha:
        return image, None
    transparent = transparent_pixels(image[..., alpha[0]])
    return np.delete(image, alpha, axis=-1), transparent


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
