"""Draws the loss, Dice and learning rate of a run over its steps."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_jax.report.overlay import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Series = dict[tuple[str, str], list[tuple[int, float]]]
"""(split, name) -> points of step and value."""

_SPLITS = {"val": "validation", "train": "training"}
_MEAN_COLOR = "black"


def write_curves(
    metrics_path: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str],
    class_colors: Sequence[Sequence[int]],
) -> None:
    """Draw the log of a run, with one panel each for loss, Dice and learning rate.

    A panel is drawn if the file has its values: ``loss``, ``dice`` with
    ``dice/<class>`` (thin lines in the colour of the class), ``learning_rate``.

    Args:
        metrics_path: metrics.jsonl with objects ``{"step", "split", name: number}``.
        path: PNG file to write, whole or not at all.
        class_names: name of each class index.
        class_colors: red, green and blue of each class index, 0 to 255.
    """
    from matplotlib.figure import Figure

    series = _read_series(Path(metrics_path))
    panels = [
        (name, title)
        for name, title in (
            ("loss", "loss"),
            ("dice", "Dice"),
            ("learning_rate", "learning rate"),
        )
        if any(key == name for _, key in series)
    ]
    width = 4.6 * max(len(panels), 1)
    height = 3.8 + 0.1 * len(class_names)  # the legend has two columns
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    for column, (name, title) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), column)
        if name == "dice":
            colors = dict(zip(class_names, class_colors, strict=True))
            _draw_classes(axes, series, colors)
        _draw_splits(axes, series, name)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if name != "learning_rate":
            # The legend is below the axes, because curves may be anywhere inside.
            axes.legend(
                fontsize=8,
                frameon=False,
                ncols=2,
                loc="upper center",
                bbox_to_anchor=(0.5, -0.16),
            )
    write_figure(path, figure)


def _read_series(path: Path) -> _Series:
    """Read the points of every split and name; skip nulls and a partial last line."""
    series: _Series = {}
    for line in path.read_bytes().splitlines():
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # the run is still writing this line
        step, split = entry.pop("step"), entry.pop("split")
        for name, value in entry.items():
            if value is not None:
                series.setdefault((split, name), []).append((step, value))
    return series


def _draw_splits(axes: "Axes", series: _Series, name: str) -> None:
    """One line for each split, with its own line style."""
    for split, dashes in _dashes(series, name).items():
        steps, values = zip(*series[split, name], strict=True)
        axes.plot(
            steps,
            values,
            dashes,
            color=_MEAN_COLOR,
            linewidth=1.6,
            label=_SPLITS[split],
            **_marker(steps),
        )


def _draw_classes(
    axes: "Axes", series: _Series, colors: dict[str, Sequence[int]]
) -> None:
    """One thin line for each class and split; the legend names each class once."""
    for name, color in colors.items():
        key = f"dice/{name}"
        label: str | None = name
        for split, dashes in _dashes(series, key).items():
            steps, values = zip(*series[split, key], strict=True)
            axes.plot(
                steps,
                values,
                dashes,
                color=[part / 255 for part in color],
                linewidth=0.9,
                label=label,
                **_marker(steps),
            )
            label = None


def _dashes(series: _Series, name: str) -> dict[str, str]:
    """Line style of each split with the name; training is dashed beside validation."""
    found = [split for split in _SPLITS if (split, name) in series]
    return {
        split: "--" if split == "train" and len(found) > 1 else "-" for split in found
    }


def _marker(steps: Sequence[int]) -> dict[str, Any]:
    """A dot for a single point, which gives no line."""
    return {"marker": "o", "markersize": 4} if len(steps) == 1 else {}
