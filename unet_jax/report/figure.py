"""Writes figures as files, whatever characters their texts have."""

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.unknown_bytes import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


def write_figure(path: str | os.PathLike[str], figure: "Figure") -> None:
    """Write a figure as PNG, whole or not at all.

    Names of files and classes are drawn as they are: ``$`` starts no formula, and a
    byte that is no character is drawn as ``\\xfc``.

    Args:
        path: file to write; its name ends in ``.png``.
        figure: figure of this package's report.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text():  # labels of ticks are empty until they are drawn
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasAgg(figure).print_figure(
            temporary, format="png", dpi=_DPI, facecolor="white"
        )


def problem_of_drawing(draw: Callable[..., None], *arguments: Any) -> str:
    """Draw, and return why that failed.

    Scores and label maps are worth more than a picture of them, so no error of drawing
    may end the work.

    Args:
        draw: function that draws and writes a figure.
        arguments: its arguments.

    Returns:
        Name and text of the exception, on one line; "" for none.
    """
    try:
        draw(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""
