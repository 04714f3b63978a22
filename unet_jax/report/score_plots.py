"""Makes the figures of the scores of a test split: spread of Dice, confusion matrix."""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from unet_jax.report.template import COLORS, plot

_WRITTEN = 10
"""Largest number of classes whose cells of the confusion matrix have room for text."""


def score_plots(scores: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the figures that the content of test_metrics.json has numbers for."""
    yield from _spread(scores)
    if scores.get("confusion"):
        yield _confusion(scores["confusion"])


def _spread(scores: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the distribution of Dice over the cases of each class."""
    values: dict[str, list[tuple[float, str]]] = {}
    for row in scores.get("per_case", ()):
        if row.get("dice") is not None:
            values.setdefault(row["class"], []).append((row["dice"], row["id"]))
    traces = [
        {
            "type": "box",
            "name": html.escape(name),
            "y": [dice for dice, _ in one],
            "text": [html.escape(case) for _, case in one],
            "boxpoints": "all",
            "showlegend": False,
            "marker": {"color": COLORS[index % len(COLORS)]},
        }
        for index, (name, one) in enumerate(values.items())
    ]
    if traces:
        yield plot("Dice of the test cases", traces, "", "Dice")


def _confusion(confusion: Mapping[str, Any]) -> dict[str, Any]:
    """Make the confusion matrix; each row has the fractions of a labelled class."""
    names = [html.escape(name) for name in confusion["classes"]]
    counts = confusion["pixels"]
    fractions = [
        [count / sum(row) if any(row) else None for count in row] for row in counts
    ]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": fractions,
        "customdata": counts,
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"tickformat": ".0%", "thickness": 12},
        "hovertemplate": "label %{y}<br>prediction %{x}<br>%{customdata} pixels, "
        "%{z:.3%} of the label<extra></extra>",
    }
    if len(names) <= _WRITTEN:
        trace["text"] = [
            ["" if one is None else f"{100 * one:.3g} %" for one in row]
            for row in fractions
        ]
        trace["texttemplate"] = "%{text}"
    made = plot("Confusion of the classes (pixels)", [trace], "prediction", "label")
    made["layout"]["xaxis"] |= {"type": "category", "automargin": True}
    made["layout"]["yaxis"] |= {
        "type": "category",
        "automargin": True,
        "autorange": "reversed",
    }
    return made
