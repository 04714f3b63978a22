"""Draws the histogram of intensities with the thresholds of methods."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unet_jax.report.overlay import Color

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 128
_DASHES = ("-", "--", ":", "-.")


def histogram_figure(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    thresholds: Mapping[str, Sequence[float]],
    *,
    class_names: Sequence[str],
    class_colors: Sequence[Color],
) -> "Figure":
    """Draw the histogram of training intensities by class, with thresholds.

    Args:
        images: one channel ``(*spatial)`` of each training case.
        labels: ``(*spatial)`` class indices or IGNORE of each training case.
        thresholds: thresholds of each method, by its name.
        class_names: name of each class index.
        class_colors: red, green and blue of each class index, 0 to 255.

    Returns: A figure for `write_figure`.
    """
    from matplotlib.figure import Figure

    values = np.concatenate([image.ravel() for image in images])
    classes = np.concatenate([label.ravel() for label in labels])
    edges = _edges(values)
    figure = Figure(figsize=(8, 4), facecolor="white")
    axes = figure.add_subplot()
    bars = []
    for index, name in enumerate(class_names):
        own = values[classes == index]
        counts, _ = np.histogram(own, edges)
        color = _readable(class_colors[index])
        axes.stairs(counts, edges, color=color, label=name, fill=True, alpha=0.45)
        axes.stairs(counts, edges, color=color, linewidth=1)
        bars.append(counts)
    for index, (name, cuts) in enumerate(thresholds.items()):
        for order, cut in enumerate(cuts):
            axes.axvline(
                cut,
                color="black",
                linewidth=1.2,
                linestyle=_DASHES[index % len(_DASHES)],
                label=f"{name}: {_listed(cuts)}" if order == 0 else None,
            )
    # A background of one value would make all other bars too small to see.
    top = 1.15 * _typical_top(np.concatenate(bars))
    cut = any((counts > top).any() for counts in bars)
    axes.set_ylim(0, top)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("intensity of the training images")
    axes.set_ylabel("pixels (higher bars are cut off)" if cut else "pixels")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.set_layout_engine("tight")
    return figure


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of the bins; each bin holds equally many integer values."""
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.integer):
        step = max(1, int(np.ceil((high - low + 1) / _BINS)))
        return np.arange(low - 0.5, high + step + 0.5, step)
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _typical_top(counts: np.ndarray) -> float:
    """Height of the highest bar, without a few that are far higher than the others."""
    ordered = np.sort(counts)[::-1]
    for high, next_high in itertools.pairwise(ordered[:4]):
        if not high > 3 * next_high > 0:
            return float(max(high, 1))
    return float(max(ordered[min(3, len(ordered) - 1)], 1))


def _readable(color: Color) -> tuple[float, float, float]:
    """A class colour, darker where it is too light on white."""
    red, green, blue = (value / 255 for value in color)
    factor = min(1.0, 0.75 / max(red + green + blue, 1e-6) * 3 / 1.2)
    return red * factor, green * factor, blue * factor


def _listed(cuts: Sequence[float]) -> str:
    """Write thresholds as a short list."""
    return ", ".join(f"{cut:.4g}" for cut in cuts)
