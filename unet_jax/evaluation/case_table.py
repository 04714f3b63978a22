"""Writes the scores of a method: all as JSON, those of each case and class as CSV."""

import pathlib
from collections.abc import Mapping
from typing import Any

from unet_jax.data.files.label_table import write_csv
from unet_jax.evaluation.scorer import write_results

SCORES, CASE_TABLE = "test_metrics.json", "per_case.csv"


def case_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Join the scores of each case and class with those of the whole case.

    Args:
        results: results of ``evaluate``, also after a round trip through JSON.

    Returns: A row for each case and class, in their order: id, group, class, every
        metric, sizes of label and prediction. A metric with one value for a case has
        it in all rows of the case. None stands for NaN.

    >>> row = {"id": "a", "group": "p", "class": "cell", "dice": 0.5}
    >>> whole = {"id": "a", "group": "p", "ece": 0.1}
    >>> case_rows({"per_case": [row], "case_level": [whole]})
    [{'id': 'a', 'group': 'p', 'class': 'cell', 'dice': 0.5, 'ece': 0.1}]
    """
    whole = {row["id"]: row for row in results.get("case_level", ())}
    return [row | whole.get(row["id"], {}) for row in results["per_case"]]


def write_scores(folder: pathlib.Path, results: dict[str, Any]) -> None:
    """Write per_case.csv, then test_metrics.json, which says that a run is complete.

    Args:
        folder: folder of both files.
        results: results of ``evaluate``, with what the caller added.
    """
    write_csv(folder / CASE_TABLE, case_rows(results))
    write_results(folder / SCORES, results)
