"""Shows several methods side by side, as a Markdown table and as a figure."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_jax.labels import IGNORE
from unet_jax.report.overlay import Color
from unet_jax.report.panels import blend, displayable, draw_panel, upright_slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RIGHT, _WRONG, _UNSCORED = (0.93, 0.93, 0.93), (0.85, 0.1, 0.2), (0.6, 0.6, 0.6)
_METRICS = ("dice", "iou")
_SIDE, _GAP, _LETTER, _HEAD, _LINE = 1.7, 0.06, 0.085, 0.3, 0.15
"""Inches: longer side of a panel, gap between panels, average width of a wide letter,
height of the titles, height of a line of text."""
_COLUMNS = {"Dice": 1.2, "IoU": 1.2, "ms an image": 1.0}
"""Columns of numbers and their widths in inches."""


def comparison_markdown(results: Mapping[str, Any]) -> str:
    """Write the methods as Markdown tables, with the best mean Dice first.

    Args:
        results: the content of comparison.json.

    Returns: A table for each block with a row for each method: mean Dice and IoU with
        their intervals, Dice of each class, milliseconds for an image. Notes and the
        methods that failed follow.
    """
    methods = results["methods"]
    scored = [row for row in methods if "failed" not in row]
    lines = []
    for block in dict.fromkeys(row["block"] for row in scored):
        rows = [row for row in scored if row["block"] == block]
        rows.sort(key=lambda row: -(row["mean"]["dice"] or 0.0))
        classes = list(rows[0]["per_class"])
        header = ["method", "Dice", "IoU", *classes, "ms an image"]
        lines += [f"### {block.capitalize()}", "", _table_row(header)]
        lines.append(_table_row(["---", *["---:"] * (len(header) - 1)]))
        lines += [_table_row(_cells(row, classes)) for row in rows]
        lines.append("")
    lines += _notes(scored)
    lines += [
        f"{row['method']} failed: {row['failed']}" for row in methods if "failed" in row
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cells(row: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """The cells of one method."""
    return [
        row["method"],
        _score_text(row, "dice"),
        _score_text(row, "iou"),
        *(_number(row["per_class"][name]["dice"]) for name in classes),
        f"{row['ms_per_image']:.0f}",
    ]


def _score_text(row: Mapping[str, Any], metric: str) -> str:
    """A mean with its interval, where there is one."""
    text = _number(row["mean"][metric])
    span = row["ci95"] and row["ci95"].get(metric)
    return f"{text} ({_number(span[0])} to {_number(span[1])})" if span else text


def _number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def _notes(scored: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on the cases, the interval and the times."""
    if not scored:
        return []
    first = scored[0]
    cases, groups = first["n_cases"], first["n_groups"]
    return [
        f"Test cases: {cases}, groups: {groups}. Columns of classes are Dice. "
        f"Interval: {first['ci95_note']}. An image is a case; the time is the median "
        "over the cases, after a first call on a small piece.",
        "",
    ]


def comparison_figure(
    image: np.ndarray,
    label: np.ndarray,
    results: Mapping[str, Any],
    predictions: Sequence[np.ndarray | None],
    *,
    slice_axis: int,
    spacing: Sequence[float] | None,
    class_colors: Sequence[Color],
) -> "Figure":
    """Draw image, prediction and error map of each method beside its scores.

    Of a volume, the slice with most foreground is drawn.

    Args:
        image: ``(*spatial, channels)``.
        label: ``(*spatial)`` class indices or IGNORE.
        results: the content of comparison.json.
        predictions: labels ``(*spatial)`` of each method; None for one that failed.
        slice_axis: axis that slices of a volume are taken along.
        spacing: mm of a pixel along each axis; None for square pixels.
        class_colors: red, green and blue of each class index, 0 to 255.

    Returns: A figure for `write_figure`. In an error map grey is right and red is
        wrong.
    """
    rows = [
        (row, prediction)
        for row, prediction in zip(results["methods"], predictions, strict=True)
        if prediction is not None
    ]
    aspect = 1.0
    if label.ndim == 3:
        index = _fullest_slice(label, slice_axis)
        shown = functools.partial(
            upright_slice, index=index, axis=slice_axis, oriented=spacing is not None
        )
        image, label = shown(image), shown(label)
        rows = [(row, shown(prediction)) for row, prediction in rows]
        if spacing is not None:
            across, up = (s for axis, s in enumerate(spacing) if axis != slice_axis)
            aspect = up / across
    return _draw(displayable(image), label, rows, aspect, class_colors)


def _draw(
    picture: np.ndarray,
    label: np.ndarray,
    rows: Sequence[tuple[Mapping[str, Any], np.ndarray]],
    aspect: float,
    class_colors: Sequence[Color],
) -> "Figure":
    """Lay out the rows. All sizes are in inches."""
    from matplotlib.figure import Figure

    colors = np.asarray(class_colors, np.float64) / 255
    pixels_high, pixels_wide = label.shape
    inch = _SIDE / max(pixels_high * aspect, pixels_wide)
    high, wide = pixels_high * aspect * inch, pixels_wide * inch
    high_row = max(high, 4 * _LINE)
    names = ["ground truth", *(row["method"] for row, _ in rows)]
    left_most = 0.2 + _LETTER * max(map(len, names))
    width = left_most + 3 * (wide + _GAP) + sum(_COLUMNS.values())
    height = _HEAD + (len(rows) + 1) * (high_row + _GAP)
    figure = Figure(figsize=(width, height), facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, y / height, text, va="center", fontsize=9, **style)

    lefts = [left_most + column * (wide + _GAP) for column in range(3)]
    for left, title in zip(lefts, ("image", "prediction", "error map"), strict=True):
        write(left + wide / 2, height - _HEAD / 2, title, ha="center")
    ends = left_most + 3 * (wide + _GAP) + np.cumsum(list(_COLUMNS.values()))
    for end, title in zip(ends, _COLUMNS, strict=True):
        write(end - 0.1, height - _HEAD / 2, title, ha="right")
    truth: list[tuple[Any, np.ndarray]] = [(None, label)]
    for index, (name, (row, classes)) in enumerate(
        zip(names, [*truth, *rows], strict=True)
    ):
        bottom = height - _HEAD - (index + 1) * (high_row + _GAP) + _GAP
        error = _error_map(classes, label)
        panels = (picture, blend(picture, classes, colors), error)
        for left, shown in zip(lefts, panels, strict=True):
            below = bottom + (high_row - high) / 2
            box = (left / width, below / height, wide / width, high / height)
            draw_panel(figure.add_axes(box), shown, aspect)
        middle = bottom + high_row / 2
        write(0.1, middle, name)
        for end, text in zip(ends, _row_words(row), strict=True):
            write(end - 0.1, middle, text, ha="right")
    return figure


def _fullest_slice(label: np.ndarray, axis: int) -> int:
    """The slice with most pixels of classes above 0."""
    others = tuple(other for other in range(label.ndim) if other != axis)
    return int((label > 0).sum(axis=others).argmax())


def _error_map(classes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Grey where the prediction is right, red where it is wrong."""
    colors = np.where((classes != label)[..., None], _WRONG, _RIGHT)
    return np.where((label == IGNORE)[..., None], _UNSCORED, colors)


def _row_words(row: Mapping[str, Any] | None) -> list[str]:
    """Scores of a method as text; an interval has its own line."""
    if row is None:
        return [""] * len(_COLUMNS)
    scores = [_score_text(row, metric).replace(" (", "\n(") for metric in _METRICS]
    return [*scores, f"{row['ms_per_image']:.0f}"]
