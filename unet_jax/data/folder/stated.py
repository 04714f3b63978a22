"""Collects what the files of one case state about the meaning of their numbers."""

from collections.abc import Mapping, Sequence

from unet_jax.data.files.stored import Color, StoredImage
from unet_jax.data.folder.options import ReadOptions


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
