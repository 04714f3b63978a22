"""Makes a page with finished runs side by side."""

import pathlib
from collections.abc import Mapping
from typing import Any

from unet_jax.report.template import digits, fill, lines, plot, read_object, read_rows


def write_comparison_page(
    path: pathlib.Path, runs: Mapping[str, pathlib.Path], settings: Mapping[str, Any]
) -> None:
    """Write a page with finished runs side by side.

    Args:
        path: file to write.
        runs: workdir of each run by its name.
        settings: flat config of each run by its name.
    """
    found = {
        name: read_object(folder / "test_metrics.json") for name, folder in runs.items()
    }
    best = max(found, key=lambda name: found[name].get("mean", {}).get("dice") or 0.0)
    keys = sorted({key for one in settings.values() for key in one})
    changed = [
        key
        for key in keys
        if len({repr(one.get(key)) for one in settings.values()}) > 1
    ]
    metrics = sorted({metric for one in found.values() for metric in one["mean"]})
    traces = [
        trace
        for index, (name, folder) in enumerate(runs.items())
        for trace in lines(
            read_rows(folder / "metrics.jsonl"), {("val", "dice"): name}, first=index
        )
    ]
    plots = [plot("Dice of validation", traces, "step", "Dice")] if traces else []
    context = {
        "title": "Runs side by side",
        "subtitle": ", ".join(runs),
        "story": [
            f"{len(runs)} runs are compared on the test split of each.",
            f"The highest mean Dice is {digits(found[best]['mean'].get('dice'))}, of "
            f"{best}.",
            f"{len(changed)} settings differ; scores of different data do not compare.",
        ],
        "tables": [
            {
                "title": "Scores",
                "caption": "Mean over cases, then over classes.",
                "columns": ["run", *metrics],
                "rows": [
                    [name, *(digits(one["mean"].get(metric)) for metric in metrics)]
                    for name, one in found.items()
                ],
            },
            {
                "title": "Settings that differ",
                "caption": "The other settings of the configs are equal.",
                "columns": ["setting", *runs],
                "rows": [
                    [key, *(str(settings[name].get(key)) for name in runs)]
                    for key in changed
                ],
            },
        ],
        "plots": plots,
        "facts": [(name, folder.name) for name, folder in runs.items()],
    }
    fill(path, context)
