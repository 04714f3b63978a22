"""Results as a table that a terminal and a mail can show."""

from collections.abc import Mapping, Sequence
from typing import Any

_TITLES = {"dice": "Dice", "iou": "IoU"}


def results_table(results: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Lay out results by class and on average, with what is needed to read them.

    Args:
        results: what ``evaluate`` gives, also after a round trip through JSON.
        class_names: names in class order; those that were not scored have no row.

    Returns:
        Lines of aligned plain text: a header, a row a scored class, the mean, and
        notes on the dataset-level values and the interval.
    """
    mean = results["mean"]
    columns = _columns(results)
    rows = [["class", *columns.values(), "absent"]]
    for name in class_names:
        if name in results["per_class"]:
            values = results["per_class"][name]
            cells = [_cell(metric, values.get(metric)) for metric in columns]
            rows.append([name, *cells, str(values["n_absent"])])
    means = [_cell(metric, mean.get(metric)) for metric in columns]
    rows.append(["mean", *means, ""])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    return "\n".join(line.rstrip() for line in [*lines, "", *_notes(results)])


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    """Title of each metric that has a column, with its unit or tolerance."""
    titles = dict(_TITLES)
    for suffix, unit in (("", "mm"), ("_px", "px")):
        if f"hd95{suffix}" in results["mean"]:
            titles[f"hd95{suffix}"] = f"HD95 {unit}"
            titles[f"nsd{suffix}"] = f"NSD {results['tolerance'][unit]:g} {unit}"
    return titles


def _cell(metric: str, value: float | None) -> str:
    """A value with the digits that its metric deserves."""
    if value is None:
        return "-"
    return f"{value:.2f}" if metric.startswith("hd95") else f"{value:.4f}"


def _line(row: list[str], widths: list[int]) -> str:
    """First cell to the left, numbers to the right."""
    first, *others = (
        f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others])


def _notes(results: Mapping[str, Any]) -> list[str]:
    """What the means are over, the dataset-level values, and the interval."""
    mean, ci95 = results["mean"], results["ci95"]
    notes = [
        f"{_plural(results['n_cases'], 'case')} in "
        f"{_plural(results['n_groups'], 'group')}; absent: cases without the class in "
        "label and prediction.",
        f"Over all pixels at once (micro): Dice {_cell('dice', mean['dice_micro'])}, "
        f"IoU {_cell('iou', mean['iou_micro'])}.",
    ]
    if ci95 is None:
        return [*notes, f"No 95 % interval: {results['ci95_note']}."]
    spans = [
        f"{title} {_cell(metric, ci95[metric][0])} to {_cell(metric, ci95[metric][1])}"
        for metric, title in _columns(results).items()
    ]
    return [
        *notes,
        f"95 % interval of the mean: {', '.join(spans)}.",
        f"({results['ci95_note']})",
    ]


def _plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
