"""Writes the table of a run and the file of all results."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.spread import Spread, ratio, spread
from benchmarks.turns import Case, Outcome

FORMAT = 1
"""Version of the results file; results are not added to another version."""

_HEADINGS = ("benchmark", "case", "of", "ours", "peer", "its best", "ratio", "others")


def result_of(case: Case, outcome: Outcome, about: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the outcome of a case into an entry of the results file.

    Args:
        case: the case.
        outcome: results of the case.
        about: the run: date, command, cpu and the like.

    Returns:
        What JSON can hold.
    """
    best = outcome.best_mode
    measures = {}
    for name, ours in outcome.ours.items():
        measures[name] = {
            "ours": _plain(spread(ours)),
            "peers": {
                mode: _plain(spread(found[name]))
                for mode, found in outcome.peers.items()
            },
            "ratio": _plain(ratio(ours=ours, peer=outcome.peers[best][name])),
        }
    return {
        "benchmark": case.benchmark,
        "case": case.name,
        "unit": case.unit,
        "peer": case.peer_name,
        "best_mode": best,
        "measures": measures,
        "facts": outcome.facts,
        "differences": outcome.differences,
        "failed_modes": outcome.failed,
        "versions": outcome.versions,
        **about,
    }


def failure_of(case: Case, reason: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a case that failed into an entry of the results file.

    Args:
        case: the case that failed.
        reason: why it gave none.
        about: the run.

    Returns:
        What JSON can hold.
    """
    named = {"benchmark": case.benchmark, "case": case.name, "error": reason}
    return {**named, **about}


def _plain(found: Spread) -> dict[str, Any]:
    """Round to six digits, more than a clock measures."""
    plain = dataclasses.asdict(found)
    plain["values"] = [float(f"{value:.6g}") for value in found.values]
    return {
        key: value if key == "values" else float(f"{value:.6g}")
        for key, value in plain.items()
    }


def read_results(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the results of earlier runs.

    Args:
        path: path of the results file; it may be missing.

    Returns:
        The results, in order.

    Raises:
        ValueError: the file is none of ours.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        if content["format"] == FORMAT:
            return list(content["results"])
        found = f"format {content['format']!r}"
    except (ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
    raise ValueError(
        f"{path}: found {found}, expected results of format {FORMAT}; move it away or "
        "name another file with --output"
    )


def add_result(path: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Write a result to the file; it replaces an older result of the same case.

    Args:
        path: path of the results file. It is replaced in one move, so that an
            interruption leaves the old file or the new one.
        result: entry from `result_of` or `failure_of`.
    """
    results = read_results(path)
    key = (result["benchmark"], result["case"])
    places = [
        index
        for index, old in enumerate(results)
        if (old["benchmark"], old["case"]) == key
    ]
    if places:
        results[places[0]] = dict(result)
    else:
        results.append(dict(result))
    content = {"format": FORMAT, "results": results}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(new, path)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Write results as a Markdown table.

    Args:
        results: entries from `result_of` or `failure_of`.

    Returns:
        A line for each measure of each: medians with their quartiles, the ratio (peer
        over ours) with the quartiles of the rounds' ratios, and the peer's other modes.
    """
    rows = [list(_HEADINGS)]
    for result in results:
        rows += [_failed_row(result)] if "error" in result else _rows(result)
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows
    )


def _failed_row(result: Mapping[str, Any]) -> list[str]:
    """Line of a case without times."""
    reason = result["error"].strip().splitlines()[-1].replace("|", "/")
    cells = [result["benchmark"], result["case"], "", f"failed: {reason}"]
    return cells + [""] * (len(_HEADINGS) - len(cells))


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Lines of a case, one for each measure."""
    best, rows = result["best_mode"], []
    for name, found in result["measures"].items():
        others = [
            f"{mode} {_amount(name, other['median'])}"
            for mode, other in found["peers"].items()
            if mode != best
        ]
        times = found["ratio"]
        alone = len(found["peers"]) == 1 and not result["failed_modes"]
        rows.append(
            [
                result["benchmark"],
                result["case"],
                result["unit"] if name == "seconds" else name.replace("_", " "),
                _spread(name, found["ours"]),
                result["peer"] if alone else f"{result['peer']} {best}",
                _spread(name, found["peers"][best]),
                f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})",
                ", ".join([*others, *(f"{mode} fails" for mode in _failed(result))]),
            ]
        )
    return rows


def _failed(result: Mapping[str, Any]) -> list[str]:
    """Modes of the peer that failed."""
    return sorted(result["failed_modes"])


def _spread(measure: str, found: Mapping[str, Any]) -> str:
    """A median with its quartiles, in the unit of the median."""
    median, low, high = (found[key] for key in ("median", "low", "high"))
    return (
        f"{_amount(measure, median)} ({_amount(measure, low, median).split()[0]} to "
        f"{_amount(measure, high, median).split()[0]})"
    )


def _amount(measure: str, value: float, like: float | None = None) -> str:
    """A number with its unit; the unit suits ``like`` where it is given."""
    if measure.endswith("mib"):
        return f"{value:.0f} MiB"
    if measure != "seconds":
        return f"{value:.4g}"
    size = value if like is None else like
    if size < 1:
        return f"{1000 * value:.{3 if size < 0.001 else 1}f} ms"
    return f"{value:.2f} s"
