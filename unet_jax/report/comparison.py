"""Methods beside each other, as a table and as pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_jax.labels import IGNORE
from unet_jax.report.overlay import Color, blend, displayable, draw_panel, upright_slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RIGHT, _WRONG, _UNSCORED = (0.93, 0.93, 0.93), (0.85, 0.1, 0.2), (0.6, 0.6, 0.6)
_WIDE, _HIGH = 1.7, 1.7
"""Inches of a panel's room."""


def comparison_markdown(results: Mapping[str, Any]) -> str:
    """Lay the methods out as a Markdown table, the best mean Dice first in each block.

    Args:
        results: the content of comparison.json.

    Returns:
        A table a block with a row a method: mean Dice and IoU with their intervals, the
        Dice of each class, milliseconds an image; then notes and what failed.
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
    """What the numbers are over."""
    if not scored:
        return []
    first = scored[0]
    cases, groups = first["n_cases"], first["n_groups"]
    return [
        f"Test cases: {cases}, groups: {groups}. Columns of classes are Dice. "
        f"Interval: {first['ci95_note']}. An image is a case; its time is the median "
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
    """Draw image, prediction and error map of each method, its scores beside them.

    Args:
        image: ``(*spatial, channels)``; of a volume the slice with most foreground.
        label: ``(*spatial)`` class indices or IGNORE.
        results: the content of comparison.json.
        predictions: ``(*spatial)`` of each method; None for one that failed.
        slice_axis: the axis that slices of a volume are taken along.
        spacing: millimetres a pixel on each axis; None for square pixels.
        class_colors: red, green and blue of each class index, 0 to 255.

    Returns:
        A figure for `write_figure`: grey in an error map is right, red is wrong.
    """
    from matplotlib.figure import Figure

    rows = [
        (row, prediction)
        for row, prediction in zip(results["methods"], predictions, strict=True)
        if prediction is not None
    ]
    aspect = 1.0
    if label.ndim == 3:
        index = _fullest_slice(label, slice_axis)
        image = upright_slice(image, index, slice_axis)
        rows = [(row, upright_slice(p, index, slice_axis)) for row, p in rows]
        label = upright_slice(label, index, slice_axis)
        if spacing is not None:
            across, up = (s for axis, s in enumerate(spacing) if axis != slice_axis)
            aspect = up / across
    picture = displayable(image)
    colors = np.asarray(class_colors, np.float64) / 255
    height = _HIGH * (len(rows) + 1) + 0.3
    figure = Figure(figsize=(5 * _WIDE, height), facecolor="white")
    grid = figure.add_gridspec(
        len(rows) + 1, 4, wspace=0.03, hspace=0.06, left=0.01, right=0.99,
        bottom=0.005, top=1 - 0.25 / height, width_ratios=(1, 1, 1, 1.6),
    )  # fmt: skip
    truth: list[tuple[Any, np.ndarray]] = [(None, label)]
    for i, (row, classes) in enumerate([*truth, *rows]):
        error = _error_map(classes, label)
        for j, shown in enumerate((picture, blend(picture, classes, colors), error)):
            axes = figure.add_subplot(grid[i, j])
            draw_panel(axes, shown, aspect)
            if i == 0:
                axes.set_title(("image", "labels", "error")[j], fontsize=9, pad=3)
        words = figure.add_subplot(grid[i, 3])
        words.set_axis_off()
        words.text(0.04, 0.5, _words(row), va="center", fontsize=9)
    return figure


def _fullest_slice(label: np.ndarray, axis: int) -> int:
    """The slice with most pixels of classes above 0."""
    others = tuple(other for other in range(label.ndim) if other != axis)
    return int((label > 0).sum(axis=others).argmax())


def _error_map(classes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Grey where right, red where wrong."""
    colors = np.where((classes != label)[..., None], _WRONG, _RIGHT)
    return np.where((label == IGNORE)[..., None], _UNSCORED, colors)


def _words(row: Mapping[str, Any] | None) -> str:
    """What stands beside the pictures of a method."""
    if row is None:
        return "ground truth"
    lines = [
        row["method"],
        f"Dice {_score_text(row, 'dice')}",
        f"IoU {_score_text(row, 'iou')}",
        f"{row['ms_per_image']:.0f} ms an image",
    ]
    return "\n".join(lines)
