"""Lays out the results of a method as a table in plain text."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.evaluation.metric_table import LOSS_PREFIX, METRICS, metric_named

WIDTH = 100
"""Characters of the longest line; a wider table is cut into several."""


def results_table(results: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Lay out results by class and on average, with notes that explain them.

    Args:
        results: results of ``evaluate``, also after a round trip through JSON.
        class_names: names in class order; classes that were not scored have no row.

    Returns: Lines of aligned plain text: a header, a row for each scored class, the
        mean, and notes on the dataset-level values and the interval. Metrics with one
        value for a case are in the row of the means only.
    """
    titles = metric_titles(results)
    names = [name for name in class_names if name in results["per_class"]]
    columns = [["class", *names, "mean"]]
    for metric, title in titles.items():
        values = [results["per_class"][name].get(metric, "") for name in names]
        cells = [
            score_cell(metric, value) for value in (*values, results["mean"][metric])
        ]
        columns.append([title, *cells])
    absent = [str(results["per_class"][name]["n_absent"]) for name in names]
    columns.append(["absent", *absent, ""])
    rows = [results["per_class"][name].get("n_unlabelled") for name in names]
    if rows != [None] * len(rows):
        columns.append(["unlabelled", *map(str, rows), ""])
    return "\n".join([laid_out(columns), "", *_notes(results, titles)])


def laid_out(columns: list[list[str]], *, footer: int = 1) -> str:
    """Lay out columns as aligned plain text, in several tables if they are wide.

    Args:
        columns: cells of each column, a header first; the first column names the rows.
        footer: number of rows at the end with a rule before them.
    """
    return "\n\n".join(_block(block, footer) for block in _cut(columns))


def _cut(columns: list[list[str]]) -> list[list[list[str]]]:
    """Split columns into tables that are narrow enough; each names the classes."""
    first, *others = columns
    blocks: list[list[list[str]]] = []
    room = 0
    for column in others:
        width = 2 + max(map(len, column))
        if not blocks or width > room:
            blocks.append([first])
            room = WIDTH - max(map(len, first))
        blocks[-1].append(column)
        room -= width
    return blocks


def _block(columns: list[list[str]], footer: int) -> str:
    """One table: a header, a rule, the rows, a rule, the footer."""
    widths = [max(map(len, column)) for column in columns]
    lines = [_line(row, widths) for row in zip(*columns, strict=True)]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:-footer], rule, *lines[-footer:]]
    return "\n".join(line.rstrip() for line in lines)


def metric_titles(results: Mapping[str, Any]) -> dict[str, str]:
    """Title of each metric that has a column, with its unit or tolerance."""
    found = [name for name in results["mean"] if not name.endswith("_micro")]
    order = list(METRICS)

    def place(name: str) -> tuple[int, str]:
        plain = name.removesuffix("_px")
        return (order.index(plain) if plain in order else len(order), name)

    titles = {}
    for name in sorted(found, key=place):
        if results["mean"][name] is None and _needs_probabilities(name):
            continue  # the method has none; a note says so
        if name == "ece_uncalibrated" and "ece" in results["mean"]:
            continue  # a note has it
        unit = "px" if name.endswith("_px") else "mm"
        title = _title(name)
        if _length(name) == "distance":
            title = f"{title} {unit}"
        if _length(name) == "tolerance":
            title = f"{title} {results['tolerance'][unit]:g} {unit}"
        titles[name] = title
    return titles


def _title(name: str) -> str:
    """Title without a unit; a loss has its name."""
    if name.startswith(LOSS_PREFIX):
        return name
    return metric_named(name.removesuffix("_px")).title


def _length(name: str) -> str:
    """Whether a metric is a distance, or depends on one."""
    known = METRICS.get(name.removesuffix("_px"))
    return "" if known is None else known.length


def _needs_probabilities(name: str) -> bool:
    """Whether a method without probabilities has no such value."""
    known = METRICS.get(name)
    return name.startswith(LOSS_PREFIX) or (
        known is not None and known.needs_probabilities
    )


def score_cell(name: str, value: float | str | None) -> str:
    """Write a value: distances with two digits, other metrics with four."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.{2 if _length(name) == 'distance' else 4}f}"


def _line(row: Sequence[str], widths: list[int]) -> str:
    """Align the first cell to the left, numbers to the right."""
    first, *others = (
        f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others])


def _notes(results: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Notes: what the means are over, the dataset-level values, and the interval."""
    mean = results["mean"]
    micro = [score_cell(one, mean[f"{one}_micro"]) for one in ("dice", "iou")]
    notes = [
        f"{counted(results['n_cases'], 'case')} in "
        f"{counted(results['n_groups'], 'group')}; absent: cases without the class in "
        "label and prediction.",
        f"Over all pixels at once (micro): Dice {micro[0]}, IoU {micro[1]}.",
    ]
    notes += duplicate_notes(results)
    raw = mean.get("ece_uncalibrated")
    if raw is not None and "ece" in mean:
        notes.append(f"ECE before temperature scaling: {raw:.4f}.")
    lacking = [
        _title(name)
        for name in sorted(mean)
        if _needs_probabilities(name) and mean[name] is None
    ]
    if lacking:
        notes.append(f"Without probabilities there is no {', '.join(lacking)}.")
    return wrapped([*notes, *interval_notes(results, titles)])


def duplicate_notes(results: Mapping[str, Any]) -> list[str]:
    """Warn of images that are also in another split, if there are any."""
    if not (duplicates := results.get("duplicates")):
        return []
    return [
        f"WARNING: the images of {counted(duplicates, 'case')} are also in training or "
        "validation (data.allow_duplicates)."
    ]


def interval_notes(results: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Write the intervals of the means, or why there are none."""
    ci95 = results["ci95"]
    if ci95 is None:
        return [f"No 95 % interval: {results['ci95_note']}."]
    spans = [
        f"{title} {score_cell(metric, ci95[metric][0])} to "
        f"{score_cell(metric, ci95[metric][1])}"
        for metric, title in titles.items()
        if ci95[metric] != [None, None]
    ]
    return [
        f"95 % interval of the mean: {', '.join(spans) or 'none'}.",
        f"({results['ci95_note']})",
    ]


def wrapped(notes: Sequence[str]) -> list[str]:
    """Break notes into lines."""
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]


def counted(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
