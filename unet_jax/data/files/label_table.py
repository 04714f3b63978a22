"""Tabulates what label maps contain: pixels, areas and volumes of each class."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.unknown_bytes import UNKNOWN_BYTES


def label_statistics(
    labels: np.ndarray,
    spacing: tuple[float, ...] | None,
    *,
    file: str,
    class_names: Sequence[str],
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, object]]:
    """Count the pixels of every class, and measure them if the spacing is known.

    Args:
        spacing: millimetres per pixel on each spatial axis, or None.
        file: text of the column "file".
        regions: classes of each region by name, for a row each instead of the classes
            above 0; None for classes.

    Returns:
        A row for each class: file, class, pixels, area_mm2 (two axes) or volume_ml
        (three axes); "" for a value that is unknown.
    """
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    if len(counts) > len(class_names):
        raise ValueError(
            f"Label {len(counts) - 1} is outside the {len(class_names)} classes"
        )
    named = dict(zip(class_names, counts.tolist(), strict=True))
    if regions is not None:
        inside = {name: int(counts[list(one)].sum()) for name, one in regions.items()}
        named = {class_names[0]: int(counts[0])} | inside
    rows: list[dict[str, object]] = []
    for name, count in named.items():
        size = "" if spacing is None else rounded(count * float(np.prod(spacing)))
        volume = size if isinstance(size, str) else rounded(size / 1000)
        rows.append(
            {
                "file": file,
                "class": name,
                "pixels": count,
                "area_mm2": size if labels.ndim == 2 else "",
                "volume_ml": volume if labels.ndim == 3 else "",
            }
        )
    return rows


def mean_by_class(
    labels: np.ndarray,
    values: np.ndarray,
    num_classes: int,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[object]:
    """Average a map over the pixels of each class; "" for a class without pixels.

    Args:
        labels: ``(*spatial)`` class indices.
        values: ``(*spatial)`` numbers; NaN is left out.
        regions: those of `label_statistics`.

    Returns:
        A number, or "", for each row of `label_statistics`.
    """
    seen = np.isfinite(values)
    flat = labels[seen]
    counts = np.bincount(flat, minlength=num_classes)
    sums = np.bincount(flat, values[seen], minlength=num_classes)
    if regions is not None:
        groups = [[0], *map(list, regions.values())]
        counts, sums = (
            np.array([one[group].sum() for group in groups]) for one in (counts, sums)
        )
    return [
        rounded(total / count) if count else ""
        for total, count in zip(sums.tolist(), counts.tolist(), strict=True)
    ]


def write_csv(
    path: str | Path,
    rows: Sequence[Mapping[str, object]],
    *,
    columns: Sequence[str] = (),
) -> None:
    """Write rows as a table, complete or not at all.

    A value that is None, or that a row has not, leaves its cell empty.

    Args:
        columns: first columns; others follow in the order in which rows name them.
    """
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    with (
        atomic_path(path) as temporary,
        open(
            temporary, "w", newline="", encoding="utf-8", errors=UNKNOWN_BYTES
        ) as stream,
    ):
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def rounded(value: float) -> float:
    """Round to nine digits, so that a table shows 0.3 and not 0.30000000000000004.

    >>> rounded(0.1 + 0.2)
    0.3
    """
    return float(f"{value:.9g}")
