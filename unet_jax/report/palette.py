"""Chooses colours for classes that the config gives no colours."""

import colorsys

_FIRST = (
    (0, 0, 0),
    (230, 57, 70),
    (64, 156, 255),
    (255, 179, 64),
    (80, 220, 120),
    (178, 102, 255),
    (255, 238, 88),
    (0, 210, 211),
    (255, 121, 198),
    (161, 112, 70),
)
LIGHT_GREY = (211, 211, 211)
_GOLDEN = 0.6180339887498949


def class_colors(
    count: int, *, colored_background: bool = False
) -> tuple[tuple[int, int, int], ...]:
    """Choose a colour for each class.

    Args:
        colored_background: make the background light grey, not black.

    Returns: Red, green and blue of each class, 0 to 255; all colours differ.

    Example:
        >>> class_colors(2)
        ((0, 0, 0), (230, 57, 70))
    """
    chosen = list(_FIRST[:count])
    if colored_background:
        chosen[0] = LIGHT_GREY
    number = 0
    while len(chosen) < count:
        # Steps of the golden ratio keep any number of hues apart.
        lightness = (0.45, 0.65, 0.8)[number % 3]
        rgb = colorsys.hls_to_rgb(number * _GOLDEN % 1, lightness, 0.75)
        color = (round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2]))
        if color not in chosen:
            chosen.append(color)
        number += 1
    return tuple(chosen)
