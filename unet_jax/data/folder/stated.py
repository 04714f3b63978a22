"""Collects what the files of one case state about the meaning of their numbers."""

from collections.abc import Mapping, Sequence

import nibabel

from unet_jax.data.files.stored import Color, StoredImage
from unet_jax.data.folder.options import ReadOptions
from unet_jax.errors import named_files

_PALETTES = ("P", "PA", "PALETTE")
"""Photometrics of files that have a palette."""


def turned(image: StoredImage, mask: StoredImage, options: ReadOptions) -> str:
    """Tell what the sizes say about a mask that is not turned as its image is.

    Returns:
        "upright" if the mask fits the upright image only, "unclear" if it fits both
        readings, and "" if both files are turned alike or the config decides.
    """
    one, two = (file.orientation for file in (image, mask))
    if options.orientation or one == two:
        return ""
    *_, height, width = image.image.shape[:-1]
    decided = (one in range(5, 9)) != (two in range(5, 9)) and height != width
    return "upright" if decided else "unclear"


def stated_colors(
    masks: Sequence[StoredImage], values: Mapping[int, int], kind: str
) -> tuple[tuple[int, Color, str], ...]:
    """List value, colour and file of the values of masks, as far as files state them.

    Of the masks of single classes only the background is compared.
    """
    wanted = {0} if kind == "parts" else set(values)
    return tuple(
        (value, color, str(mask.path))
        for mask in masks
        for value, color in mask.colors.items()
        if value in wanted and (len(masks) == 1 or (mask.image == value).any())
    )


def statements(
    images: Sequence[StoredImage],
    masks: Sequence[StoredImage],
    *,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
) -> dict[str, str]:
    """Describe the files of a case, for a person.

    Args:
        images: files of the image; none if they could not be read.
        masks: files of the label.
        shape: shape of the case, ``(*spatial, channels)``.
        spacing: millimetres per pixel of the case; None if unknown.

    Returns:
        Size and number of channels, dtype, spacing and its origin, photometric,
        palette, slope and orientation.
    """
    if not images:
        return {}
    first = images[0]
    files = f" ({len(images)} files)" if len(images) > 1 else ""
    return {
        "size": f"{_by(shape[:-1])}, channels {shape[-1]}{files}",
        "dtype": str(first.image.dtype),
        "spacing": _spacing(first, spacing),
        "photometric": first.tags.get("photometric", "-"),
        "palette": _palette([*images, *masks]),
        "slope": " ".join(
            f"{one.tags['scl_slope']} + {one.tags['scl_inter']}"
            for one in (first, *masks[:1])
            if one.step
        )
        or "-",
        "orientation": _orientation(first),
    }


def _by(sizes: Sequence[float]) -> str:
    """Write sizes as a person does."""
    return " x ".join(f"{size:.6g}" for size in sizes)


def _spacing(image: StoredImage, spacing: tuple[float, ...] | None) -> str:
    """Write a spacing and where it is from."""
    if spacing is None:
        return image.tags.get("spacing", "unknown")
    if image.affine is not None:
        return f"{_by(spacing)} mm (affine)"
    known = image.tags.get("spacing", "file")
    source = "data.known_spacing" if image.spacing is None else known
    return f"{_by(spacing)} mm ({source})"


def _palette(files: Sequence[StoredImage]) -> str:
    """Name the files that have a palette, and what is read of it."""
    found = [one for one in files if one.tags.get("photometric") in _PALETTES]
    read = {"indices" if one.colors else "colours" for one in found}
    names = named_files([one.path.name for one in found])
    return f"{' and '.join(sorted(read))} of {names}" if found else "-"


def _orientation(image: StoredImage) -> str:
    """Write the directions of the axes of a volume, or the turn of a picture."""
    if image.affine is not None:
        return "".join(one or "?" for one in nibabel.aff2axcodes(image.affine))
    return "upright" if image.orientation == 1 else f"{image.orientation} of EXIF"
