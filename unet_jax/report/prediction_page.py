"""Makes report.html of predicted images: overlays and the sizes of classes."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.report.template import PAGE, data_uri, fill

MOST_BYTES = 6 * 2**20
"""Bytes of the overlays in a page; the other images are only in its table."""


def write_prediction_page(
    folder: pathlib.Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    overlays: Sequence[pathlib.Path],
    unlike: Sequence[str],
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write report.html beside predicted label maps.

    Args:
        folder: folder of the label maps.
        rows: rows of classes.csv.
        overlays: pictures of images with outlines of their labels; the first are shown.
        unlike: names of images that are unlike those of training.
        facts: names and values of what was run.
    """
    shown, size = [], 0
    for path in overlays:
        size += path.stat().st_size
        if size > MOST_BYTES:
            break
        shown.append({"title": path.name, "source": data_uri(path)})
    names = {row["file"] for row in rows}
    story = [f"Number of images that were segmented: {len(names)}."]
    if unlike:
        story.append(
            f"Do not trust {len(unlike)} of them before you have looked: they are "
            f"unlike the images of training ({', '.join(unlike)})."
        )
    if len(shown) < len(overlays):
        story.append(f"The first {len(shown)} are drawn; overlays/ has all of them.")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = {
        "title": "Classes of each image",
        "caption": "The numbers of classes.csv. A heading sorts.",
        "columns": columns,
        "rows": [[_cell(row.get(key)) for key in columns] for row in rows[:2000]],
    }
    context = {
        "title": "Predicted images",
        "subtitle": "Made with the label maps; it works without a network.",
        "story": story,
        "tables": [table],
        "pictures": shown,
        "facts": facts,
    }
    fill(folder / PAGE, context)


def _cell(value: Any) -> str:
    """Write a cell; a dash where there is no value."""
    if value is None or value == "":
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
