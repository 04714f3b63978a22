"""Summarises the scores of a cross-validation, and lays them out as one table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.evaluation.table import (
    counted,
    duplicate_notes,
    interval_notes,
    laid_out,
    metric_titles,
    score_cell,
    wrapped,
)


def summarise_folds(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean and standard deviation of each metric over folds.

    Args:
        folds: results of ``evaluate`` for the cases of each fold.

    Returns: ``mean`` and ``std`` ``{metric: value}`` of the folds' means, and
        ``per_class`` ``{name: {"mean": ..., "std": ...}}``. Folds in which a metric has
        no value are left out; ``std`` has the divisor n - 1, and is None for one fold.

    Example:
        >>> found = summarise_folds([{"mean": {"dice": value}, "per_class": {}}
        ...     for value in (0.5, 0.75, 1.0, None)])
        >>> found["mean"], found["std"]
        ({'dice': 0.75}, {'dice': 0.25})
    """
    return _over_folds([fold["mean"] for fold in folds]) | {
        "per_class": {
            name: _over_folds([fold["per_class"][name] for fold in folds])
            for name in folds[0]["per_class"]
        }
    }


def _over_folds(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of each metric."""
    found: dict[str, Any] = {"mean": {}, "std": {}}
    for metric in dict.fromkeys(name for one in values for name in one):
        if metric.startswith("n_"):  # a number of cases
            continue
        numbers = [one[metric] for one in values if one.get(metric) is not None]
        found["mean"][metric] = statistics.fmean(numbers) if numbers else None
        found["std"][metric] = statistics.stdev(numbers) if len(numbers) > 1 else None
    return found


def folds_table(results: Mapping[str, Any]) -> str:
    """Lay out the scores of a cross-validation.

    Args:
        results: content of crossvalidation.json.

    Returns: Lines of aligned plain text: a row for each fold, their mean and standard
        deviation, and the mean over all cases; with several classes also a column with
        the Dice of each. Notes explain what the numbers are.
    """
    folds, pooled = results["folds"], results["pooled"]
    titles = metric_titles(pooled)
    columns = [
        ["fold", *(str(one["fold"]) for one in folds), *_FOOTER],
        ["cases", *(str(one["n_cases"]) for one in folds), "", "", _cases(pooled)],
        ["step", *(str(one["checkpoint_step"]) for one in folds), "", "", ""],
    ]
    for metric, title in titles.items():
        means = [one["mean"].get(metric) for one in (*folds, results)]
        means += [results["std"].get(metric), pooled["mean"][metric]]
        columns.append([title, *(score_cell(metric, value) for value in means)])
    names = list(pooled["per_class"])
    for name in names if len(names) > 1 else ():
        of_class = results["per_class"][name]
        dice = [one["per_class"][name]["dice"] for one in folds]
        dice += [of_class["mean"]["dice"], of_class["std"]["dice"]]
        dice.append(pooled["per_class"][name]["dice"])
        columns.append([f"Dice {name}", *(score_cell("dice", one) for one in dice)])
    text = laid_out(columns, footer=len(_FOOTER))
    return "\n".join([text, "", *wrapped(_notes_on(results, titles))])


_FOOTER = ("mean of folds", "std of folds", "all cases")


def _cases(results: Mapping[str, Any]) -> str:
    """Write the number of cases."""
    return str(results["n_cases"])


def _notes_on(results: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Explain the rows, the choices, and what the test split gave."""
    pooled, post, test = (results[key] for key in ("pooled", "postprocess", "test"))
    notes = [
        f"{counted(pooled['n_cases'], 'case')} in "
        f"{counted(pooled['n_groups'], 'group')}, each scored by the network of the "
        "fold that did not learn from its group.",
        "All cases: " + " ".join(interval_notes(pooled, titles)),
        *duplicate_notes(pooled),
    ]
    if pooled.get("images") == "drawn":
        notes.append("The images were drawn: the scores say little about real ones.")
    if results["eval"]["choose"] == "best":
        notes.append(
            "The cases of a fold also chose its checkpoint (eval.choose='best'), so "
            "that these scores are a little too good."
        )
    if not post["steps"]:
        why = "no step raises the Dice of these predictions"
        notes.append(f"Postprocessing: none{f'; {why}' if post['chosen'] else ''}.")
    elif not post["chosen"]:
        notes.append(f"Postprocessing, as given: {_steps(results)}.")
    else:
        before, after = (
            score_cell("dice", one["mean"]["dice"]) for one in (pooled, post)
        )
        notes.append(
            f"Postprocessing chosen on these predictions: {_steps(results)}; it "
            f"changes the Dice of all cases from {before} to {after}, which is a "
            "little too good, since the same cases chose it."
        )
    if test is None:
        notes.append("There is no test split beside the folds.")
    else:
        dice = score_cell("dice", test["mean"]["dice"])
        notes.append(
            f"Test split ({counted(test['n_cases'], 'case')}), mean of the networks "
            f"with that postprocessing: Dice {dice}."
        )
        notes += duplicate_notes(test)
    return notes


def _steps(results: Mapping[str, Any]) -> str:
    """Write the steps of a postprocessing, with the names of classes."""
    names, lines = results["class_names"], []
    for step, index, number in results["postprocess"]["steps"]:
        classes = [index] if isinstance(index, int) else index
        line = f"{step} of {' and '.join(names[one] for one in classes)}"
        lines.append(line if number is None else f"{line} ({number})")
    return ", ".join(lines)
