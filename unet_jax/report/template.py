"""Fills the template of the pages, and makes their figures, numbers and pictures."""

import base64
import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.runtime.atomic import atomic_path

PAGE = "report.html"

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""Colours of Okabe and Ito, which people with colour-vision deficiency tell apart."""


def fill(path: pathlib.Path, context: dict[str, Any]) -> None:
    """Write a page: the template, filled with a title, tables, figures and cases.

    What ``context`` does not name is left out of the page.
    """
    import jinja2

    names = ("story", "tables", "plots", "pictures", "classes", "cases", "facts")
    context = dict.fromkeys(names, ()) | context

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


def lines(
    rows: Sequence[Mapping[str, Any]],
    names: Mapping[tuple[str, str], str],
    *,
    first: int = 0,
) -> list[dict[str, Any]]:
    """Make a line for each split and key of metrics.jsonl; a key has one colour."""
    traces = []
    keys = list(dict.fromkeys(key for _, key in names))
    for (split, key), name in names.items():
        points = [
            (row["step"], row[key])
            for row in rows
            if row["split"] == split and row.get(key) is not None
        ]
        if points:
            steps, values = zip(*points, strict=True)
            color = COLORS[(first + keys.index(key)) % len(COLORS)]
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


def plot(
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
            # Each name in the legend needs a line of its own on a narrow screen.
            "height": 330 + 14 * len(traces),
            "margin": {"l": 55, "r": 15, "t": 45, "b": 45},
            "legend": {"orientation": "h", "y": -0.3},
            "hovermode": "closest",
        },
    }


def data_uri(path: pathlib.Path) -> str:
    """Return a PNG as text that a page shows without a request."""
    return uri_of(path.read_bytes())


def uri_of(png: bytes) -> str:
    """Return the bytes of a PNG as a URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def digits(value: Any) -> str:
    """Write a score with four digits; a dash where there is none."""
    return "-" if value is None else f"{float(value):.4g}"


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl that are whole."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
