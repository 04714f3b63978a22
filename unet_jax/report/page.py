"""Makes report.html: one file with what was run, its curves, scores and cases.

The page is made of the files of a workdir alone (docs/results.md), so it can be made
again at any time, and equal files give equal bytes. It asks for nothing: script and
pictures are in it, and its content security policy forbids requests.
"""

import base64
import csv
import html
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.runtime.atomic import atomic_path

PAGE = "report.html"

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""Colours of Okabe and Ito, which people with colour-vision deficiency tell apart."""


def write_page(
    workdir: str | os.PathLike[str],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write report.html of a workdir, finished or not.

    Args:
        title: name of the run.
        facts: names and values of what was run.
    """
    folder = pathlib.Path(workdir)
    scores = _json(folder / "test_metrics.json")
    rows = _rows(folder / "metrics.jsonl")
    drawn = _json(folder / "figures" / "cases.json")
    classes, cases = drawn.get("classes", []), drawn.get("cases", [])
    context = {
        "title": title,
        "subtitle": "Made of the files of the run; it works without a network.",
        "story": _story(title, scores, rows),
        "tables": [*_score_tables(scores), *_compared(folder)],
        "plots": [*_curves(rows), *_spread(scores)],
        "pictures": [
            {"title": name, "source": _data_uri(path)}
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
    _write(folder / PAGE, context)


def write_comparison_page(
    path: pathlib.Path, runs: Mapping[str, pathlib.Path], settings: Mapping[str, Any]
) -> None:
    """Write a page with finished runs side by side.

    Args:
        path: file to write.
        runs: workdir of each run by its name.
        settings: flat config of each run by its name.
    """
    found = {name: _json(folder / "test_metrics.json") for name, folder in runs.items()}
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
        for trace in _lines(
            _rows(folder / "metrics.jsonl"), {("val", "dice"): name}, first=index
        )
    ]
    plots = [_plot("Dice of validation", traces, "step", "Dice")] if traces else []
    context = {
        "title": "Runs side by side",
        "subtitle": ", ".join(runs),
        "story": [
            f"{len(runs)} runs are compared on the test split of each.",
            f"The highest mean Dice is {_number(found[best]['mean'].get('dice'))}, of "
            f"{best}.",
            f"{len(changed)} settings differ; scores of different data do not compare.",
        ],
        "tables": [
            {
                "title": "Scores",
                "caption": "Mean over cases, then over classes.",
                "columns": ["run", *metrics],
                "rows": [
                    [name, *(_number(one["mean"].get(metric)) for metric in metrics)]
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
        "pictures": [],
        "classes": [],
        "cases": [],
        "facts": [(name, folder.name) for name, folder in runs.items()],
    }
    _write(path, context)


def _write(path: pathlib.Path, context: dict[str, Any]) -> None:
    """Fill the template."""
    import jinja2

    folder = pathlib.Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True
    )
    data = {name: context[name] for name in ("plots", "cases", "classes")}
    made = environment.get_template("report.html.j2").render(
        **context, data=data, plotly=_plotly() if context["plots"] else ""
    )
    with atomic_path(path) as part:
        part.write_text(made, encoding="utf-8")


def _plotly() -> str:
    """Return plotly's script, which must not end the page's script element."""
    import plotly.offline

    script: str = plotly.offline.get_plotlyjs()
    return script.replace("</script", "<\\/script")


def _story(
    title: str, scores: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Tell the result in three sentences."""
    steps = max((row["step"] for row in rows), default=0)
    if not scores:
        valid = [row["dice"] for row in rows if row["split"] == "val" and "dice" in row]
        seen = f", validation Dice {_number(valid[-1])}" if valid else ""
        return [f"{title} is in training: step {steps}{seen}.", "It has no scores yet."]
    mean, interval = scores["mean"].get("dice"), scores.get("ci95")
    around = f"no interval: {scores.get('ci95_note', 'not made')}"
    if interval and interval.get("dice"):
        around = f"95 % interval {' to '.join(map(_number, interval['dice']))}"
    sentences = [
        f"On {scores['n_cases']} test cases of {scores['n_groups']} groups, which "
        f"training never saw, {title} has a mean Dice of {_number(mean)} ({around})."
    ]
    dice = {
        name: one["dice"]
        for name, one in scores["per_class"].items()
        if one.get("dice") is not None
    }
    if dice:
        low, high = min(dice, key=dice.__getitem__), max(dice, key=dice.__getitem__)
        sentences.append(
            f"The best class is {high} ({_number(dice[high])}), the worst {low} "
            f"({_number(dice[low])})."
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
        [name, *(_number(one.get(metric)) for metric in metrics)]
        for name, one in scores["per_class"].items()
    ]
    mean = ["mean", *(_number(scores["mean"].get(metric)) for metric in metrics)]
    ends = [
        "95 % interval",
        *(
            " to ".join(map(_number, interval[metric])) if interval.get(metric) else "-"
            for metric in metrics
        ),
    ]
    yield {
        "title": "Scores",
        "caption": "Mean over the test cases. A heading sorts.",
        "columns": ["class", *metrics],
        "rows": [*rows, mean, *([ends] if interval else [])],
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
                else _number(row.get(key))
                for key in columns
            ]
            for row in scores["per_case"][:2000]
        ],
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
            [name, *map(_number, (np.mean(one), np.median(one), np.min(one)))]
            for name, one in sorted(values.items(), key=lambda pair: -np.mean(pair[1]))
        ],
    }


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make the curves of loss and Dice."""
    losses = {("train", "loss"): "training loss"}
    if traces := _lines(rows, losses):
        yield _plot("Loss", traces, "step", "loss")
    names = {
        (split, key): f"{word} {key.partition('/')[2] or 'mean'}"
        for row in rows
        for key in row
        for split, word in (("train", "training"), ("val", "validation"))
        if row["split"] == split and (key == "dice" or key.startswith("dice/"))
    }
    if traces := _lines(rows, names):
        yield _plot("Dice", traces, "step", "Dice")


def _lines(
    rows: Sequence[Mapping[str, Any]],
    names: Mapping[tuple[str, str], str],
    *,
    first: int = 0,
) -> list[dict[str, Any]]:
    """Make a line for each split and key of metrics.jsonl."""
    traces = []
    for index, ((split, key), name) in enumerate(names.items()):
        points = [
            (row["step"], row[key])
            for row in rows
            if row["split"] == split and row.get(key) is not None
        ]
        if points:
            steps, values = zip(*points, strict=True)
            color = _COLORS[(first + index) % len(_COLORS)]
            dash = "dot" if split == "train" and key.startswith("dice") else "solid"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": html.escape(name),
                    "x": steps,
                    "y": values,
                    "line": {"color": color, "dash": dash},
                }
            )
    return traces


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
            "marker": {"color": _COLORS[index % len(_COLORS)]},
        }
        for index, (name, one) in enumerate(values.items())
    ]
    if traces:
        yield _plot("Dice of the test cases", traces, "", "Dice")


def _plot(
    title: str, traces: Sequence[Mapping[str, Any]], x: str, y: str
) -> dict[str, Any]:
    """Describe a figure of plotly."""
    grid = {"gridcolor": "rgba(128,128,128,0.35)", "zeroline": False}
    return {
        "title": title,
        "traces": list(traces),
        "layout": {
            "title": {"text": title},
            "xaxis": {"title": {"text": x}, **grid},
            "yaxis": {"title": {"text": y}, **grid},
            "margin": {"l": 55, "r": 15, "t": 45, "b": 45},
            "legend": {"orientation": "h", "y": -0.3},
            "hovermode": "closest",
        },
    }


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
                    "image": _data_uri(figures / one["image"]),
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
        f"{name} {_number(dice)}" for name, dice in case["per_class"].items()
    )
    return {
        "title": f"{case['id']}: {roles}, Dice {_number(case['dice'])}",
        "scores": scores,
        "planes": planes,
    }


def _data_uri(path: pathlib.Path) -> str:
    """Return a PNG as text that a page shows without a request."""
    return _uri_of(path.read_bytes())


def _uri_of(png: bytes) -> str:
    """Return the bytes of a PNG as a URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _indices_uri(path: pathlib.Path) -> str:
    """Return the class indices of an indexed PNG as levels of grey."""
    from PIL import Image

    with Image.open(path) as image:
        indices = np.asarray(image)
    buffer = io.BytesIO()
    Image.fromarray(indices.astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return _uri_of(buffer.getvalue())


def _number(value: Any) -> str:
    """Write a score with four digits; a dash where there is none."""
    return "-" if value is None else f"{float(value):.4g}"


def _json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl that are whole."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
