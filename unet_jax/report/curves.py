"""Draws the loss, Dice and learning rate of a run over its steps."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_jax.report.figure import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Series = dict[tuple[str, str], list[tuple[int, float]]]
"""(split, name) -> points of step and value."""

_SPLITS = {"val": "validation", "train": "training"}


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
    titles = {"loss": "loss", "dice": "Dice", "learning_rate": "learning rate"}
    known = {name for _, name in series}
    panels = [(name, title) for name, title in titles.items() if name in known]
    width = 4.6 * max(len(panels), 1)
    height = 3.8 + 0.1 * len(class_names)  # the legend has two columns
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    for column, (name, title) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), column)
        if name == "dice":
            colors = dict(zip(class_names, class_colors, strict=True))
            _draw_classes(axes, series, colors)
        _draw(axes, series, name, labels=_SPLITS, color="black", width=1.6)
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


def _draw(
    axes: "Axes",
    series: _Series,
    name: str,
    *,
    labels: Mapping[str, str],
    color: Any,
    width: float,
) -> None:
    """Draw one line for each split, with its own line style."""
    for split, dashes in _dashes(series, name).items():
        steps, values = zip(*series[split, name], strict=True)
        axes.plot(
            steps,
            values,
            dashes,
            color=color,
            linewidth=width,
            label=labels.get(split),
            marker="o" if len(steps) == 1 else None,  # a single point gives no line
            markersize=4,
        )


def _draw_classes(
    axes: "Axes", series: _Series, colors: dict[str, Sequence[int]]
) -> None:
    """Draw thin lines for each class; the legend names each class once."""
    for name, color in colors.items():
        key = f"dice/{name}"
        labels = {split: name for split in list(_dashes(series, key))[:1]}
        rgb = [part / 255 for part in color]
        _draw(axes, series, key, labels=labels, color=rgb, width=0.9)


def _dashes(series: _Series, name: str) -> dict[str, str]:
    """Line style of each split with the name; training is dashed beside validation."""
    found = [split for split in _SPLITS if (split, name) in series]
    return {
        split: "--" if split == "train" and len(found) > 1 else "-" for split in found
    }
