"""Compares the mean scores of finished runs on the test set that they share."""

import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unet_jax.errors import InputError
from unet_jax.evaluation.bootstrap import MIN_GROUPS, mean_of_present
from unet_jax.evaluation.paired import DRAWS, compare_means, mean_scores
from unet_jax.evaluation.summary import number
from unet_jax.experiment.record import (
    changes_scores,
    check_no_run,
    defaults_of_added_keys,
    flat_config,
    read_finished_record,
)
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.shown_path import shown

_METRICS = ("dice", "iou")


class _Run(NamedTuple):
    """The part of a run that is compared.

    Attributes:
        name: name in the results.
        config: the config that its scores belong to, with dotted keys.
        dataset: fingerprint of its data, by split.
        versions: versions of draws, labels and networks that the run has.
        groups: group of each test case.
        classes: names of the scored classes.
        scores: ``(cases, classes)`` of each metric, NaN where a class is absent.
    """

    name: str
    config: dict[str, Any]
    dataset: dict[str, Any]
    versions: dict[str, int]
    groups: dict[str, str]
    classes: tuple[str, ...]
    scores: dict[str, np.ndarray]


def compare_runs(
    workdirs: Sequence[pathlib.Path],
    *,
    output: pathlib.Path,
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compare finished runs on the test set that they have in common.

    Runs that differ only in their seed, and in keys that cannot change a score, are one
    method: its mean is the mean over its runs, reported with the standard deviation
    between its runs. Every other method is compared with the first one.

    Args:
        workdirs: folders of at least two finished runs.
        output: folder for comparison.json and comparison.md.
        names: names of the runs in the files; None for their paths.

    Returns: The content of comparison.json: ``methods`` with ``mean`` and ``std`` of
        each metric; ``pairs`` with the difference of two means, its bootstrap interval
        over groups and its p value (None where there are too few groups).
    Raises: InputError: fewer than two runs, one is not finished, or test sets differ.
    """
    if len(workdirs) < 2:
        raise InputError("--runs: found one folder, expected at least two: A,B")
    check_no_run(output)
    runs = [
        _read_run(workdir, name)
        for workdir, name in zip(workdirs, names or map(str, workdirs), strict=True)
    ]
    _check_one_test(runs)
    methods = _by_method(runs)
    results = {
        "n_cases": len(runs[0].groups),
        "n_groups": len(set(runs[0].groups.values())),
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
    """Read the scores of a finished run: one number for each case, class and metric."""
    record = read_finished_record(workdir)
    path = workdir / "test_metrics.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        rows = results["per_case"]
        groups = dict(sorted((row["id"], row["group"]) for row in rows))
        classes = tuple(dict.fromkeys(str(row["class"]) for row in rows))
        scores = {metric: _table(rows, metric) for metric in _METRICS}
        record["dataset"]["test"]
        settings = dict(results.get("eval", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: cannot be read ({reason}); expected the scores of a finished "
            f"run; make them with --mode=evaluate --workdir={shlex.quote(str(workdir))}"
        ) from None
    # A workdir can be given other settings after its scores were made.
    config = defaults_of_added_keys() | flat_config(record["config"])
    config |= flat_config(settings, "eval.")
    versions = {key: record[key] for key in record if key.endswith("_version")}
    return _Run(name, config, record["dataset"], versions, groups, classes, scores)


def _table(rows: Sequence[dict[str, Any]], metric: str) -> np.ndarray:
    """Arrange the values of a metric as ``(sorted cases, classes)``; NaN for None."""
    cases = sorted({row["id"] for row in rows})
    classes = list(dict.fromkeys(row["class"] for row in rows))
    table = np.full((len(cases), len(classes)), np.nan)
    case_place, class_place = (
        {key: place for place, key in enumerate(keys)} for keys in (cases, classes)
    )
    for row in rows:
        if row.get(metric) is not None:
            table[case_place[row["id"]], class_place[row["class"]]] = row[metric]
    return table


def _check_one_test(runs: Sequence[_Run]) -> None:
    """Refuse runs that were scored on other cases, or for other classes."""

    def scored_on(run: _Run) -> tuple[Any, ...]:
        return run.dataset["test"], run.groups

    def labels_of(run: _Run) -> tuple[Any, ...]:
        keys = ("data.class_names", "data.label_map", "data.palette")
        return run.classes, *(run.config.get(key) for key in keys)

    for run in runs[1:]:
        for what, of, expected in (
            ("test set", scored_on, "on the same cases"),
            ("classes or label map", labels_of, "for the same classes"),
        ):
            if of(run) != of(runs[0]):
                raise InputError(
                    f"--runs: the {what} of {run.name} differs from that of "
                    f"{runs[0].name}; expected runs that were scored {expected}"
                )


def _by_method(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """Group the runs that differ only in what cannot change a score, and the seed."""
    methods: dict[str, list[_Run]] = {}
    keys: dict[str, str] = {}
    for run in runs:
        plain = {
            key: value
            for key, value in run.config.items()
            if key != "seed" and changes_scores(key)
        }
        # Runs of other training cases are no seeds either.
        key = json.dumps([plain, run.dataset, run.versions], sort_keys=True)
        name = keys.setdefault(key, run.name)
        methods.setdefault(name, []).append(run)
    return methods


def _method_row(name: str, members: Sequence[_Run]) -> dict[str, Any]:
    """Mean score, and its standard deviation between runs of different seeds."""
    row: dict[str, Any] = {
        "name": name,
        "runs": [run.name for run in members],
        "seeds": [run.config.get("seed") for run in members],
    }
    for metric in _METRICS:
        means = mean_scores(_scores(members, metric))
        found = means[~np.isnan(means)]
        row[metric] = {
            "mean": number(float(mean_of_present(means))),
            "std": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        }
    return row


def _scores(members: Sequence[_Run], metric: str) -> np.ndarray:
    """Scores of a method, ``(runs, cases, classes)``."""
    return np.stack([run.scores[metric] for run in members])


def _pairs(methods: Mapping[str, list[_Run]]) -> list[dict[str, Any]]:
    """Compare every other method with the first."""
    first, *others = methods
    groups = list(methods[first][0].groups.values())
    return [
        {"method": name, "minus": first}
        | {
            metric: compare_means(
                _scores(methods[name], metric), _scores(methods[first], metric), groups
            )._asdict()
            for metric in _METRICS
        }
        for name in others
    ]


def _markdown(results: Mapping[str, Any]) -> str:
    """Write the methods and their differences as two Markdown tables."""
    lines = ["| runs | Dice | IoU |", "| --- | ---: | ---: |"]
    for row in results["methods"]:
        cells = [_spread(row[metric]) for metric in _METRICS]
        lines.append(f"| {', '.join(row['runs'])} | {cells[0]} | {cells[1]} |")
    means = {row["name"]: row for row in results["methods"]}
    lines += [
        "",
        "| difference | Dice | p | IoU | p |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in results["pairs"]:
        cells = []
        for metric in _METRICS:
            two = [means[row[key]][metric]["mean"] for key in ("method", "minus")]
            p = row[metric]["p"]
            cells += [_difference(row[metric], two), "-" if p is None else f"{p:.3g}"]
        lines.append(f"| {row['method']} - {row['minus']} | {' | '.join(cells)} |")
    lines += ["", _notes(results)]
    return "\n".join(lines) + "\n"


def _notes(results: Mapping[str, Any]) -> str:
    """Explain the numbers of the tables."""
    text = (
        f"Test cases: {results['n_cases']}, groups: {results['n_groups']}. Means are "
        "over the cases that have a score, then over classes: a false alarm scores 0, "
        "and a case without the class that is left empty has no score. Runs that "
        "differ only in their seed are averaged; ± is the standard deviation between "
        "them. A difference is that of the two means. "
    )
    if all(row[metric]["p"] is None for row in results["pairs"] for metric in _METRICS):
        return text + (
            f"An interval and p need at least {MIN_GROUPS} groups that have a score of "
            "each class."
        )
    return text + (
        f"Its 95 % interval and p are from a bootstrap of {DRAWS} samples that draws "
        f"groups and computes both means again, with at least {MIN_GROUPS} groups that "
        "have a score of each class."
    )


def _spread(value: Mapping[str, Any]) -> str:
    """A mean with the standard deviation between seeds."""
    if value["mean"] is None:
        return "-"
    text = f"{value['mean']:.4f}"
    return text if value["std"] is None else f"{text} ± {value['std']:.4f}"


def _difference(value: Mapping[str, Any], means: Sequence[float | None]) -> str:
    """The difference of two means as the table shows them, with its interval."""
    one, two = means
    if one is None or two is None:
        return "-"
    text = f"{round(one, 4) - round(two, 4):+.4f}"
    if value["ci95"] is None:
        return text
    low, high = value["ci95"]
    return f"{text} ({low:+.4f} to {high:+.4f})"
