"""Draws the reliability curve: accuracy over confidence."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_figure(reliability: Mapping[str, Any], *, title: str) -> "Figure":
    """Draw accuracy over confidence, and the fraction of pixels in each bin.

    Args:
        reliability: ``{"ece", "bins"}`` from the results of ``evaluate``.
        title: line above the figure.

    Returns: A figure. The upper panel has a point for each bin with pixels, and the
        diagonal of a calibrated method. The lower panel has the fraction of pixels in
        each bin.
    """
    from matplotlib.figure import Figure

    bins = [entry for entry in reliability["bins"] if entry["pixels"]]
    total = sum(entry["pixels"] for entry in bins)
    ece = reliability["ece"]
    figure = Figure(figsize=(4.6, 5.4), layout="constrained", facecolor="white")
    above, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)}
    )
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    above.plot(
        [entry["confidence"] for entry in bins],
        [entry["accuracy"] for entry in bins],
        color="#1f6fb2",
        marker="o",
        markersize=4,
        linewidth=1.4,
        clip_on=False,
        label="no ECE" if ece is None else f"ECE {ece:.4f}",
    )
    above.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    above.legend(fontsize=8, frameon=False, loc="upper left")
    below.bar(
        [entry["low"] for entry in bins],
        [entry["pixels"] / total for entry in bins],
        width=[entry["high"] - entry["low"] for entry in bins],
        align="edge",
        color="#1f6fb2",
        edgecolor="white",
        linewidth=0.5,
    )
    # Nearly all pixels have a high confidence: a linear axis would show one bar.
    below.set(xlabel="confidence", ylabel="fraction of pixels", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
