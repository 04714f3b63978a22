"""Draws image, ground truth and prediction side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unet_jax.labels import IGNORE
from unet_jax.report.panels import (
    IGNORED_COLOR,
    blend,
    displayable,
    draw_panel,
    upright_slice,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Color = Sequence[int]
"""Red, green and blue, 0 to 255."""
_Rgb = tuple[float, float, float]

_ERROR_COLORS = ((255, 0, 200), (0, 255, 255), (255, 255, 0), (255, 30, 30))
_SIDE, _GAP = 3.6, 0.05
"""Inches: the longer side of a panel, and the space between two."""

_EDGES = ((("P", "A"), ("I", "S")), (("L", "R"), ("I", "S")), (("L", "R"), ("P", "A")))
"""Letters at the ends of the horizontal and the vertical direction of a slice, for each
RAS axis that slices are taken along."""


class _Row(NamedTuple):
    """Content of one row of panels; the image is ``(height, width, 3)`` in 0..1."""

    name: str
    image: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray


def overlay(
    image: np.ndarray,
    label: np.ndarray | None,
    prediction: np.ndarray,
    *,
    slice_axis: int,
    spacing: Sequence[float] | None,
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    num_slices: int = 4,
    color_background: bool = False,
    title: str = "",
) -> "Figure":
    """Draw image, ground truth and prediction of a case in the same colours.

    A picture has one row of panels. A volume has a row for each of a few slices, spread
    evenly over the part that has foreground. With a spacing they are upright and in
    true proportions: axial slices have anterior up, others superior, and letters name
    the directions. Without a spacing they are shown as stored. Class 0 has no colour,
    unless it is asked for. Wrong pixels of the prediction are outlined.

    Args:
        image: ``(*spatial, channels)``, a volume in RAS order; three channels are shown
            as red, green and blue, of any other number the first as grey.
        label: ``(*spatial)`` class indices or IGNORE; None leaves its panels out.
        prediction: ``(*spatial)`` class indices.
        slice_axis: axis that slices of a volume are taken along; 2 gives axial ones.
        spacing: mm of a voxel along each axis of a volume; None for square pixels.
        class_names: name of each class index.
        class_colors: red, green and blue of each class index, 0 to 255.
        num_slices: largest number of slices of a volume.
        color_background: lay the colour of class 0 over the image too.
        title: line above the panels.

    Returns: A figure for `write_figure`.
    """
    aspect, edges = 1.0, None
    if prediction.ndim == 2:
        rows = [_Row("", displayable(image), label, prediction)]
    else:
        oriented = spacing is not None
        rows = _slice_rows(image, label, prediction, slice_axis, num_slices, oriented)
        if spacing is not None:
            across, up = (s for axis, s in enumerate(spacing) if axis != slice_axis)
            aspect, edges = up / across, _EDGES[slice_axis]
    return _figure(
        rows,
        class_names=class_names,
        class_colors=class_colors,
        color_background=color_background,
        title=title,
        aspect=aspect,
        edges=edges,
    )


def _slice_rows(
    image: np.ndarray,
    label: np.ndarray | None,
    prediction: np.ndarray,
    axis: int,
    count: int,
    oriented: bool,
) -> list[_Row]:
    """One row for each of a few slices of a volume."""
    marked = prediction > 0 if label is None else (prediction > 0) | (label > 0)
    chosen = _spread_slices(marked, axis, count)
    # One grey window for all slices: the same tissue has the same grey in each row.
    shown = displayable(np.take(image, chosen, axis=axis))

    def upright(volume: np.ndarray, index: int) -> np.ndarray:
        return upright_slice(volume, index, axis, oriented=oriented)

    return [
        _Row(
            f"slice {index}",
            upright(shown, place),
            None if label is None else upright(label, index),
            upright(prediction, index),
        )
        for place, index in enumerate(chosen)
    ]


def _figure(
    rows: list[_Row],
    *,
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    color_background: bool,
    title: str,
    aspect: float = 1.0,
    edges: tuple[tuple[str, str], tuple[str, str]] | None = None,
) -> "Figure":
    """Lay out a row of panels for each image. All sizes are in inches."""
    from matplotlib.figure import Figure

    labelled = rows[0].label is not None
    heads = ["image", *(["ground truth"] if labelled else []), "prediction"]
    pixels_high, pixels_wide = rows[0].image.shape[:2]
    inch = _SIDE / max(pixels_high * aspect, pixels_wide)
    high, wide = pixels_high * aspect * inch, pixels_wide * inch
    colors = np.asarray(class_colors, np.float64) / 255
    error_color = _farthest_color(colors)
    first_class = 0 if color_background else 1
    handles = _legend_handles(rows, class_names, colors, error_color, first_class)
    left = 0.25 if rows[0].name else _GAP
    top = 0.25 + (0.22 if title else 0)
    width = left + len(heads) * (wide + _GAP)
    columns = max(1, min(len(handles), int(width / 1.35)))
    bottom = 0.12 + 0.2 * -(-len(handles) // columns)
    height = top + len(rows) * (high + _GAP) + bottom
    figure = Figure(figsize=(width, height), facecolor="white")
    for i, row in enumerate(rows):
        contents = [None, *([row.label] if labelled else []), row.prediction]
        for j, classes in enumerate(contents):
            corner = left + j * (wide + _GAP), bottom + _GAP
            below = corner[1] + (len(rows) - 1 - i) * (high + _GAP)
            box = (corner[0] / width, below / height, wide / width, high / height)
            axes = figure.add_axes(box)
            painted = blend(row.image, classes, colors, first_class=first_class)
            draw_panel(axes, painted, aspect)
            if i == 0:
                axes.set_title(heads[j], fontsize=9, pad=3)
        if row.label is not None:
            wrong = (row.prediction != row.label) & (row.label != IGNORE)
            _draw_outline(axes, wrong, error_color)
        first = figure.axes[i * len(heads)]
        first.set_ylabel(row.name, fontsize=8, labelpad=3)
        if edges is not None:
            _draw_edges(first, edges)
    if title:
        figure.suptitle(title, fontsize=10, y=1 - 0.06 / height, va="top")
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, fontsize=8, frameon=False
    )
    return figure


def _spread_slices(marked: np.ndarray, axis: int, count: int) -> list[int]:
    """In each equal part of the foreground's extent, the slice nearest the middle."""
    others = tuple(a for a in range(marked.ndim) if a != axis)
    found = np.flatnonzero(marked.any(axis=others))
    if not len(found):
        found = np.arange(marked.shape[axis])
    bounds = np.linspace(found[0], found[-1], count + 1)
    targets = (bounds[:-1] + bounds[1:]) / 2
    # With few slices, two targets may have the same nearest slice.
    nearest = (int(found[np.abs(found - target).argmin()]) for target in targets)
    return list(dict.fromkeys(nearest))


def _draw_outline(axes: "Axes", mask: np.ndarray, color: _Rgb) -> None:
    """Draw the pixel edges between a mask and the rest."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1).astype(np.int8)
    # Pixel (i, j) spans i - 0.5 .. i + 0.5; an edge lies before the pixel it opens.
    i, j = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    flat = np.stack(
        [np.stack([j - 0.5, i - 0.5], -1), np.stack([j + 0.5, i - 0.5], -1)]
    )
    i, j = np.nonzero(np.diff(padded, axis=1)[1:-1])
    tall = np.stack(
        [np.stack([j - 0.5, i - 0.5], -1), np.stack([j - 0.5, i + 0.5], -1)]
    )
    segments = np.concatenate([flat, tall], axis=1).swapaxes(0, 1)
    lines = LineCollection(
        list(segments), colors=color, linewidths=0.6, capstyle="projecting"
    )
    axes.add_collection(lines, autolim=False)


def _draw_edges(axes: "Axes", edges: tuple[tuple[str, str], tuple[str, str]]) -> None:
    """Write the anatomical directions at the four sides."""
    from matplotlib.patheffects import withStroke

    (left, right), (below, above) = edges
    for x, y, text in (
        (0.03, 0.5, left),
        (0.97, 0.5, right),
        (0.5, 0.03, below),
        (0.5, 0.97, above),
    ):
        axes.text(
            x,
            y,
            text,
            transform=axes.transAxes,
            color="white",
            fontsize=7,
            ha="left" if x < 0.5 else "right" if x > 0.5 else "center",
            va="bottom" if y < 0.5 else "top" if y > 0.5 else "center",
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def _farthest_color(colors: np.ndarray) -> _Rgb:
    """Choose the colour of the outline that is farthest from all class colours."""

    def clearance(candidate: Color) -> float:
        return float(np.linalg.norm(colors - _rgb(candidate), axis=1).min())

    return _rgb(max(_ERROR_COLORS, key=clearance))


def _rgb(color: Color) -> _Rgb:
    """Scale a colour to 0..1, as matplotlib expects it."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _legend_handles(
    rows: list[_Row],
    class_names: Sequence[str],
    colors: np.ndarray,
    error_color: _Rgb,
    first_class: int,
) -> list[Any]:
    """One swatch for each drawn class, for errors, and for IGNORE where it occurs."""
    from matplotlib.patches import Patch

    handles = [
        Patch(color=tuple(color), label=name)
        for name, color in zip(
            class_names[first_class:], colors[first_class:].tolist(), strict=True
        )
    ]
    labels = [row.label for row in rows if row.label is not None]
    if labels:
        handles.append(
            Patch(facecolor="none", edgecolor=error_color, label="wrong (outlined)")
        )
    if any((label == IGNORE).any() for label in labels):
        handles.append(Patch(color=_rgb(IGNORED_COLOR), label="ignored"))
    return handles
