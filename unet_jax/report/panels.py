"""Draws one panel of a figure: a slice of an image with classes laid over it."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OPACITY = 0.55
"""Opacity of the colour of a class over the image."""
IGNORED_COLOR = (150, 150, 150)


def displayable(image: np.ndarray) -> np.ndarray:
    """Scale an image to RGB values that can be shown; outliers are clipped.

    Args:
        image: ``(..., channels)``; three channels are red, green and blue, of any other
            number the first is shown as grey.

    Returns: ``(..., 3)`` in 0..1.
    """
    if image.shape[-1] != 3:
        image = image[..., :1]
    if image.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        low, high = np.percentile(image, (0.5, 99.5))
    if high == low:
        low, high = image.min(), max(image.max(), image.min() + 1)
    scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    return np.broadcast_to(scaled, (*image.shape[:-1], 3))


def upright_slice(
    volume: np.ndarray, index: int, axis: int, *, oriented: bool
) -> np.ndarray:
    """Take a slice with its first remaining axis to the right and its second axis up.

    Args:
        volume: ``(x, y, z)``, more axes may follow.
        index: index of the slice.
        axis: axis that the slice is taken along.
        oriented: the axes are those of a body. Otherwise, as for a stack of pictures,
            the slice is shown as stored, with rows downwards.

    Returns: ``(height, width)``, followed by the further axes.
    """
    plane = np.take(volume, index, axis=axis)
    return np.rot90(plane) if oriented else plane


def blend(
    image: np.ndarray,
    classes: np.ndarray | None,
    colors: np.ndarray,
    *,
    first_class: int = 1,
) -> np.ndarray:
    """Lay the colours of classes over an image.

    Args:
        image: ``(height, width, 3)`` in 0..1.
        classes: ``(height, width)`` class indices or IGNORE; None for the image alone.
        colors: ``(classes, 3)`` in 0..1.
        first_class: first class that is coloured: 1, or 0 for the background too.

    Returns: ``(height, width, 3)``.
    """
    if classes is None:
        return image
    palette = np.concatenate([colors, [np.array(IGNORED_COLOR) / 255]])
    # IGNORE is -1 and so picks the last colour.
    painted = (1 - OPACITY) * image + OPACITY * palette[classes]
    if not first_class:
        return painted
    return np.where((classes != 0)[..., None], painted, image)


def draw_panel(axes: "Axes", picture: np.ndarray, aspect: float) -> None:
    """Show a picture without ticks or frame.

    Args:
        axes: axes to draw in.
        picture: ``(height, width, 3)`` in 0..1.
        aspect: height of a pixel divided by its width.
    """
    axes.imshow(picture, interpolation="nearest", aspect=aspect)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
