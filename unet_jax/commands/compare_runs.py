"""Compares finished runs case by case on the test set that they have in common."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from unet_jax.errors import InputError
from unet_jax.evaluation.scorer import MIN_GROUPS
from unet_jax.experiment.record import (
    check_no_run,
    flat_config,
    may_change,
    read_finished_record,
)
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.shown_path import shown

_DRAWS = 2000
_METRICS = ("dice", "iou")


class _Run(NamedTuple):
    """The part of a run that is compared."""

    name: str
    config: dict[str, Any]
    test: Any
    cases: dict[str, str]  # id -> group
    scores: dict[str, dict[str, float]]  # metric -> case -> mean over classes


def compare_runs(
    workdirs: Sequence[pathlib.Path],
    *,
    output: pathlib.Path,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compare finished runs on the test set that they have in common.

    Runs that differ only in their seed are one method: its case scores are the means
    over its runs, reported with the standard deviation between its runs. Every other
    method is compared with the first one.

    Args:
        workdirs: folders of at least two finished runs.
        output: folder for comparison.json and comparison.md.
        names: names of the runs in the files; None for their paths.

    Returns: The content of comparison.json: ``methods`` with ``mean`` and ``std`` of
        each metric; ``pairs`` with the mean difference by case, its bootstrap interval
        over groups and the p value of Wilcoxon's signed-rank test (None where there are
        too few cases).
    Raises: InputError: fewer than two runs, one is not finished, or test sets differ.
    """
    if len(workdirs) < 2:
        raise InputError("--runs: found one folder, expected at least two: A,B")
    check_no_run(output)
    runs = [
        _read_run(workdir, name)
        for workdir, name in zip(workdirs, names or map(str, workdirs), strict=True)
    ]
    for run in runs[1:]:
        if (run.test, run.cases) != (runs[0].test, runs[0].cases):
            raise InputError(
                f"--runs: the test set of {run.name} differs from that of "
                f"{runs[0].name}; expected runs that were scored on the same cases"
            )
    methods = _by_method(runs)
    results = {
        "n_cases": len(runs[0].cases),
        "n_groups": len(set(runs[0].cases.values())),
        "methods": [_method_row(name, members) for name, members in methods.items()],
        "pairs": _pairs(methods),
    }
    output.mkdir(parents=True, exist_ok=True)
    text = _markdown(results)
    for name, content in (
        ("comparison.json", json.dumps(results, indent=1) + "\n"),
        ("comparison.md", text),
    ):
        with atomic_path(output / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(text)
    print(f"table: {shown(output / 'comparison.md')}")
    return results


def _read_run(workdir: pathlib.Path, name: str) -> _Run:
    """Read the scores of a finished run: one number for each case and metric."""
    record = read_finished_record(workdir)
    path = workdir / "test_metrics.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["per_case"]
        cases, scores = _case_scores(rows)
        test = record["dataset"]["test"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: cannot be read ({reason}); expected the scores of a finished "
            f"run; make them with --mode=evaluate --workdir={workdir}"
        ) from None
    return _Run(name, record["config"], test, cases, scores)


def _case_scores(
    rows: Sequence[dict[str, Any]],
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Return the group of each case, and the mean of each metric over its classes."""
    cases = {row["id"]: row["group"] for row in rows}
    values: dict[str, dict[str, list[float]]] = {metric: {} for metric in _METRICS}
    for row in rows:
        for metric, by_case in values.items():
            if row.get(metric) is not None:
                by_case.setdefault(row["id"], []).append(row[metric])
    return cases, {
        metric: {case: float(np.mean(each)) for case, each in by_case.items()}
        for metric, by_case in values.items()
    }


def _by_method(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Group the runs that differ only in their seed."""
    methods: dict[str, list[_Run]] = {}
    keys: dict[str, str] = {}
    for run in runs:
        plain = {
            key: value
            for key, value in flat_config(run.config).items()
            if key not in ("seed", "name")
            and (key == "train.steps" or not may_change(key))
        }
        key = json.dumps(plain, sort_keys=True)
        name = keys.setdefault(key, run.name)
        methods.setdefault(name, []).append(run)
    return methods


def _case_means(members: Sequence[_Run], metric: str) -> dict[str, float]:
    """Mean over the runs of a method for each case that has a score in all of them."""
    return {
        case: float(np.mean([run.scores[metric][case] for run in members]))
        for case in members[0].scores[metric]
        if all(case in run.scores[metric] for run in members)
    }


def _method_row(name: str, members: Sequence[_Run]) -> dict[str, Any]:
    """Mean over cases, and its standard deviation between runs of different seeds."""
    row: dict[str, Any] = {
        "name": name,
        "runs": [run.name for run in members],
        "seeds": [run.config.get("seed") for run in members],
    }
    for metric in _METRICS:
        means = [
            float(np.mean(list(run.scores[metric].values())))
            for run in members
            if run.scores[metric]
        ]
        row[metric] = {
            "mean": float(np.mean(means)) if means else None,
            "std": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        }
    return row


def _pairs(methods: Mapping[str, list[_Run]]) -> list[dict[str, Any]]:
    """Compare every other method with the first."""
    names = list(methods)
    groups = methods[names[0]][0].cases
    rows = []
    for name in names[1:]:
        row: dict[str, Any] = {"method": name, "minus": names[0]}
        for metric in _METRICS:
            one = _case_means(methods[name], metric)
            two = _case_means(methods[names[0]], metric)
            shared = [case for case in one if case in two]
            differences = np.array([one[case] - two[case] for case in shared])
            row[metric] = _paired(differences, [groups[case] for case in shared])
        rows.append(row)
    return rows


def _paired(differences: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """Mean difference, its interval over groups, and the p value of Wilcoxon's test."""
    if not len(differences):
        return {"difference": None, "ci95": None, "p": None, "n": 0}
    ci95 = None
    if len(set(groups)) >= MIN_GROUPS:
        ci95 = _bootstrap(differences, groups)
    p = None
    if len(differences) >= MIN_GROUPS and np.any(differences):
        p = float(stats.wilcoxon(differences).pvalue)
    return {
        "difference": float(differences.mean()),
        "ci95": ci95,
        "p": p,
        "n": len(differences),
    }


def _bootstrap(differences: np.ndarray, groups: Sequence[str]) -> list[float]:
    """Percentile bootstrap interval of the mean; whole groups are drawn."""
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, differences)
    counts = np.bincount(place).astype(np.float64)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _DRAWS)
    means = np.einsum("sg,g->s", draws, sums) / np.einsum("sg,g->s", draws, counts)
    low, high = np.percentile(means, (2.5, 97.5))
    return [float(low), float(high)]


def _markdown(results: Mapping[str, Any]) -> str:
    """Write the methods and their differences as two Markdown tables."""
    lines = ["| runs | Dice | IoU |", "| --- | ---: | ---: |"]
    for row in results["methods"]:
        cells = [_spread(row[metric]) for metric in _METRICS]
        lines.append(f"| {', '.join(row['runs'])} | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "| difference | Dice | p | IoU | p |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in results["pairs"]:
        cells = []
        for metric in _METRICS:
            p = row[metric]["p"]
            cells += [_difference(row[metric]), "-" if p is None else f"{p:.3g}"]
        lines.append(f"| {row['method']} - {row['minus']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Test cases: {results['n_cases']}, groups: {results['n_groups']}. The score "
        "of a case is the mean over its classes. Runs that differ only in their seed "
        "are averaged; ± is the standard deviation between them. Differences are by "
        f"case: mean with 95 % bootstrap interval over groups ({_DRAWS} samples; at "
        f"least {MIN_GROUPS} groups), p value of Wilcoxon's signed-rank test.",
    ]
    return "\n".join(lines) + "\n"


def _spread(value: Mapping[str, Any]) -> str:
    """A mean with the standard deviation between seeds."""
    if value["mean"] is None:
        return "-"
    text = f"{value['mean']:.4f}"
    return text if value["std"] is None else f"{text} ± {value['std']:.4f}"


def _difference(value: Mapping[str, Any]) -> str:
    """A signed difference with its interval."""
    if value["difference"] is None:
        return "-"
    text = f"{value['difference']:+.4f}"
    if value["ci95"] is None:
        return text
    low, high = value["ci95"]
    return f"{text} ({low:+.4f} to {high:+.4f})"
