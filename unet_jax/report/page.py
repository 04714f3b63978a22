"""Makes report.html: one file with what was run, its curves, scores and cases.

The page is made of the files of a workdir alone (docs/results.md), so it can be made
again at any time, and equal files give equal bytes. It asks for nothing: script and
pictures are in it, and its content security policy forbids requests.
"""

import csv
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.report.score_plots import score_plots
from unet_jax.report.template import (
    PAGE,
    data_uri,
    digits,
    fill,
    lines,
    plot,
    read_object,
    read_rows,
    uri_of,
)


def write_page(
    workdir: str | os.PathLike[str],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write report.html of a workdir, finished or not, or of a cross-validation.

    Args:
        title: name of the run.
        facts: names and values of what was run.
    """
    folder = pathlib.Path(workdir)
    folds = read_object(folder / "crossvalidation.json")
    scores = folds.get("pooled") or read_object(folder / "test_metrics.json")
    rows = read_rows(folder / "metrics.jsonl")
    drawn = read_object(folder / "figures" / "cases.json")
    classes, cases = drawn.get("classes", []), drawn.get("cases", [])
    context = {
        "title": title,
        "subtitle": "Made of the files of the run; it works without a network.",
        "story": _story(title, scores, rows, crossvalidated=bool(folds)),
        "tables": [*_folds(folds), *_score_tables(scores), *_compared(folder)],
        "plots": [*_curves(rows), *score_plots(scores)],
        "pictures": [
            {"title": name, "source": data_uri(path)}
            for name, path in (
                ("Reliability", folder / "figures" / "reliability.png"),
                ("Comparison of methods", folder / "figures" / "comparison.png"),
            )
            if path.is_file()
        ],
        "classes": classes,
        "cases": [
            made
            for one in cases
            if (made := _case(one, folder / "figures", drawn.get("n_ranked")))
        ],
        "facts": facts,
    }
    fill(folder / PAGE, context)


def _story(
    title: str,
    scores: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    crossvalidated: bool,
) -> list[str]:
    """Tell the result in three sentences."""
    steps = max((row["step"] for row in rows), default=0)
    if not scores:
        valid = [row["dice"] for row in rows if row["split"] == "val" and "dice" in row]
        seen = f", validation Dice {digits(valid[-1])}" if valid else ""
        return [f"{title} is in training: step {steps}{seen}.", "It has no scores yet."]
    mean, interval = scores["mean"].get("dice"), scores.get("ci95")
    around = f"no interval: {scores.get('ci95_note', 'not made')}"
    if interval and interval.get("dice"):
        around = f"95 % interval {' to '.join(map(digits, interval['dice']))}"
    split = "of the test split"
    if crossvalidated:
        split = "each by the fold that did not train on it"
    sentences = [
        f"The mean Dice of {title} is {digits(mean)} ({around}). It was scored on "
        f"{_counted(scores['n_cases'], 'case')} of "
        f"{_counted(scores['n_groups'], 'group')}, {split}."
    ]
    dice = {
        name: one["dice"]
        for name, one in scores["per_class"].items()
        if one.get("dice") is not None
    }
    if dice:
        low, high = min(dice, key=dice.__getitem__), max(dice, key=dice.__getitem__)
        sentences.append(
            f"The best class is {high} ({digits(dice[high])}), the worst {low} "
            f"({digits(dice[low])})."
        )
    if scores.get("checkpoint_step"):
        sentences.append(f"The network is that of step {scores['checkpoint_step']}.")
    return sentences


def _score_tables(scores: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the tables of the classes and of the cases."""
    if not scores:
        return
    metrics = [name for name in scores["mean"] if not name.endswith("_micro")]
    interval = scores.get("ci95") or {}
    rows = [
        [name, *(digits(one.get(metric)) for metric in metrics)]
        for name, one in scores["per_class"].items()
    ]
    mean = ["mean", *(digits(scores["mean"].get(metric)) for metric in metrics)]
    ends = [
        "95 % interval",
        *(
            " to ".join(map(digits, interval[metric])) if interval.get(metric) else "-"
            for metric in metrics
        ),
    ]
    yield {
        "title": "Scores",
        "caption": "Mean over the test cases. A heading sorts.",
        "columns": ["class", *metrics],
        "rows": rows,
        "foot": [mean, *([ends] if interval else [])],
    }
    columns = list(dict.fromkeys(key for row in scores["per_case"] for key in row))
    yield {
        "title": "Cases and classes",
        "caption": "The numbers of per_case.csv.",
        "columns": columns,
        "rows": [
            [
                str(row[key])
                if key in ("id", "group", "class")
                else digits(row.get(key))
                for key in columns
            ]
            for row in scores["per_case"][:2000]
        ],
    }


def _folds(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the table of the folds of a cross-validation."""
    if not found:
        return
    metrics = [name for name in found["mean"] if not name.endswith("_micro")]
    rows = [(f"fold {one['fold']}", one["mean"]) for one in found["folds"]]
    foot = [("mean of folds", found["mean"]), ("standard deviation", found["std"])]
    yield {
        "title": "Folds",
        "caption": "Each case is scored by the network that did not train on it.",
        "columns": ["fold", *metrics],
        **{
            part: [
                [name, *(digits(one.get(metric)) for metric in metrics)]
                for name, one in some
            ]
            for part, some in (("rows", rows), ("foot", foot))
        },
    }


def _compared(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Make the table of the methods of a comparison."""
    path = folder / "comparison_per_case.csv"
    if not path.is_file():
        return
    values: dict[str, list[float]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("dice"):
                values.setdefault(row["method"], []).append(float(row["dice"]))
    yield {
        "title": "Methods",
        "caption": "Dice over all cases and classes; comparison.md has all metrics.",
        "columns": ["method", "mean Dice", "median", "lowest"],
        "rows": [
            [name, *map(digits, (np.mean(one), np.median(one), np.min(one)))]
            for name, one in sorted(values.items(), key=lambda pair: -np.mean(pair[1]))
        ],
    }


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make the curves of loss and Dice."""
    losses = {("train", "loss"): "training loss"}
    if traces := lines(rows, losses):
        yield plot("Loss", traces, "step", "loss")
    names = {
        (split, key): f"{word} {key.partition('/')[2] or 'mean'}"
        for row in rows
        for key in row
        for split, word in (("train", "training"), ("val", "validation"))
        if row["split"] == split and (key == "dice" or key.startswith("dice/"))
    }
    if traces := lines(rows, names):
        yield plot("Dice", traces, "step", "Dice")


def _case(
    case: Mapping[str, Any], figures: pathlib.Path, ranked: int | None
) -> dict[str, Any] | None:
    """Describe a drawn case with its pictures; None where it has none."""
    planes = [
        {
            "name": plane["plane"],
            "shown": plane["shown"],
            "slices": [
                {
                    "image": data_uri(figures / one["image"]),
                    "label": _indices_uri(figures / one["label"]),
                    "prediction": _indices_uri(figures / one["prediction"]),
                }
                for one in plane["slices"]
            ],
        }
        for plane in case["planes"]
        if plane["slices"]
    ]
    if not planes:
        return None
    roles = ", ".join(case["roles"]) or f"rank {case['rank']} of {ranked}"
    scores = ", ".join(
        f"{name} {digits(dice)}" for name, dice in case["per_class"].items()
    )
    return {
        "title": f"{case['id']}: {roles}, Dice {digits(case['dice'])}",
        "scores": scores,
        "planes": planes,
    }


def _indices_uri(path: pathlib.Path) -> str:
    """Return the class indices of an indexed PNG as levels of grey."""
    from PIL import Image

    with Image.open(path) as image:
        indices = np.asarray(image)
    buffer = io.BytesIO()
    Image.fromarray(indices.astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return uri_of(buffer.getvalue())


def _counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
