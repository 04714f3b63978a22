"""Draws the worst, the median and the best test cases, and lists them for a page."""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source
from unet_jax.data.files.formats import stem_of
from unet_jax.data.files.read import read_label
from unet_jax.evaluation.ranking import RankedCase, chosen_cases, ranked_cases
from unet_jax.hosts import agree
from unet_jax.report.case_layers import write_layers
from unet_jax.report.figure import problem_of_drawing, write_figure
from unet_jax.report.overlay import overlay
from unet_jax.runtime.atomic import atomic_path

CASES = "cases.json"
"""File in ``figures/`` that says which case is which."""

_LAYERS = "cases"


def draw_cases(
    folder: pathlib.Path,
    results: Mapping[str, Any],
    source: Source,
    predictions: Mapping[int, pathlib.Path],
    config: ConfigDict,
) -> None:
    """Draw as many test cases as ``log.overlays`` says, and write figures/cases.json.

    Every process draws the cases that it has predicted; the first one writes the list.

    Args:
        folder: folder of ``figures/``.
        results: scores of all cases.
        source: cases of the split, which are read again.
        predictions: file of the label map of each case of this process, by its index.
        config: config of the run.
    """
    figures = folder / "figures"
    agree.on_first(lambda: _remove_former(figures))
    ranked = ranked_cases(results)
    mine = []
    for one in chosen_cases(ranked, config.log.overlays):
        if (file := predictions.get(one.place)) is None:
            continue
        entry = _entry(one)
        problem = problem_of_drawing(
            _draw, entry, source[one.place], file, config, figures, len(ranked)
        )
        if problem:
            print(f"case {one.id}: its overlay is not drawn ({problem})")
        mine.append(entry)
    parts = agree.gather(json.dumps(mine).encode())
    if not agree.is_first() or not config.log.overlays:
        return
    entries = [entry for part in parts for entry in json.loads(part)]
    entries.sort(key=lambda entry: int(entry["rank"]))
    listed = {
        "metric": "dice",
        "n_ranked": len(ranked),
        "classes": [
            {"name": name, "color": list(color)}
            for name, color in zip(
                config.data.class_names, config.data.class_colors, strict=True
            )
        ],
        "cases": entries,
    }
    with atomic_path(figures / CASES) as temporary:
        temporary.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    for entry in reversed(entries):
        if entry["roles"] and len(ranked) > 1:
            print(f"{' and '.join(entry['roles'])} case: {_named(entry)}")


def _entry(one: RankedCase) -> dict[str, Any]:
    """Describe a case in cases.json."""
    return {
        "id": one.id,
        "roles": list(one.roles),
        "rank": one.rank,
        "dice": one.dice,
        "per_class": one.per_class,
        "figure": None,
        "planes": [],
    }


def _named(entry: Mapping[str, Any]) -> str:
    """Name a case with its score."""
    return f"{entry['id']}, Dice {entry['dice']:.4f}"


def _remove_former(figures: pathlib.Path) -> None:
    """Remove the pictures that an earlier list names; they have other scores."""
    shutil.rmtree(figures / _LAYERS, ignore_errors=True)
    try:
        listed = json.loads((figures / CASES).read_text(encoding="utf-8"))
        names = [entry["figure"] for entry in listed["cases"] if entry["figure"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        (figures / pathlib.Path(name).name).unlink(missing_ok=True)
    (figures / CASES).unlink()


def _draw(
    entry: dict[str, Any],
    case: Case,
    file: pathlib.Path,
    config: ConfigDict,
    figures: pathlib.Path,
    count: int,
) -> None:
    """Write the figure and the layers of a case; name the layers in its entry."""
    assert case.label is not None, "test cases have labels"
    labels = read_label(file).image[..., 0]
    role = " and ".join(entry["roles"]) or f"rank {entry['rank']}"
    look = {
        "slice_axis": config.data.slice_axis,
        "spacing": case.spacing,
        "class_colors": tuple(config.data.class_colors),
    }
    figure = overlay(
        case.image,
        case.label,
        labels,
        class_names=tuple(config.data.class_names),
        color_background=config.data.include_background,
        title=f"{_named(entry)}" + (f" ({role} of {count})" if count > 1 else ""),
        **look,
    )
    write_figure(figures / f"{stem_of(file)}.png", figure)
    entry["figure"] = f"{stem_of(file)}.png"
    name = f"{_LAYERS}/{stem_of(file)}"
    planes = write_layers(
        figures / name,
        image=case.image,
        label=case.label,
        prediction=labels,
        **look,
    )
    for plane in planes:
        for row in plane["slices"]:
            row |= {
                what: f"{name}/{row[what]}" for what in ("image", "label", "prediction")
            }
    entry["planes"] = planes
