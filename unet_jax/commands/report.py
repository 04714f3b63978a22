"""Writes report.html of a run, or of several side by side."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.configs import base
from unet_jax.errors import InputError
from unet_jax.experiment.ensemble import is_crossvalidation
from unet_jax.experiment.record import flat_config, read_finished_record
from unet_jax.hosts import agree
from unet_jax.report.figure import problem_of_drawing
from unet_jax.report.page import write_page
from unet_jax.report.side_by_side import write_comparison_page
from unet_jax.report.template import PAGE
from unet_jax.runtime.shown_path import shown


def refresh_page(workdir: pathlib.Path) -> bool:
    """Write report.html of a workdir in the first process; a problem ends no run.

    Returns:
        Whether the page was written.
    """
    if not agree.is_first():
        return False
    problem = problem_of_drawing(_write_page, workdir)
    if problem:
        print(f"{PAGE} is not written ({problem})")
    return not problem


def report(workdirs: Sequence[str], output: str | None) -> pathlib.Path:
    """Write the page of a finished run again, or a page with several side by side.

    Args:
        workdirs: folders of runs.
        output: file of several runs; None for report.html in this folder.

    Returns:
        The file.

    Raises:
        InputError: a folder has no run, or one of several has no scores.
    """
    folders = [pathlib.Path(one) for one in workdirs]
    if len(folders) == 1 and output is None:
        if not is_crossvalidation(folders[0]):
            read_finished_record(folders[0])
        path = folders[0] / PAGE
        if problem := problem_of_drawing(_write_page, folders[0]):
            raise InputError(
                f"--workdir {folders[0]}: no page can be made of its files "
                f"({problem}); score it again: --mode=evaluate --workdir={folders[0]}"
            )
    else:
        records = [read_finished_record(one) for one in folders]
        for folder in folders:
            if not (folder / "test_metrics.json").is_file():
                raise InputError(
                    f"--workdirs: {folder} has no test_metrics.json; score it first: "
                    f"--mode=evaluate --workdir={folder}"
                )
        defaults = flat_config(base.get_config().to_dict())
        names = [one.name for one in folders]
        if len(set(names)) < len(names):
            names = [str(one) for one in folders]
        path = pathlib.Path(output or PAGE)
        write_comparison_page(
            path,
            dict(zip(names, folders, strict=True)),
            {
                # A run of an earlier version has the defaults of keys that came later.
                name: defaults | flat_config(record["config"])
                for name, record in zip(names, records, strict=True)
            },
        )
    print(f"report: {shown(path)}")
    return path


def run_facts(workdir: pathlib.Path) -> list[tuple[str, str]]:
    """List what was run in a workdir, from its record as it stands."""
    for name in ("config.json", "crossvalidation_config.json", "fold_0/config.json"):
        if (workdir / name).is_file():
            record = json.loads((workdir / name).read_text())
            if "config" in record:
                return _facts(record)
    return []


def _write_page(workdir: pathlib.Path) -> None:
    """Write report.html with what the record says of the run."""
    facts = run_facts(workdir)
    write_page(workdir, title=dict(facts).get("name", workdir.name), facts=facts)


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what was run."""
    config = record.get("config")
    if not config:
        return []
    defaults = flat_config(base.get_config().to_dict())
    settings = {
        key: value
        for key, value in flat_config(config).items()
        if _plain(value) != _plain(defaults.get(key))
    }
    dataset = record.get("dataset") or {}
    cases = ", ".join(
        f"{split} {len(one['ids'])}"
        for split, one in dataset.items()
        if isinstance(one, Mapping) and "ids" in one
    )
    versions = record.get("versions", {})
    return [
        ("config", f"{config['name']}; what differs from configs/base.py stands below"),
        ("seed", str(config.get("seed"))),
        (
            "data",
            f"{config['data'].get('path') or config['data'].get('name', '')}",
        ),
        ("cases", cases or "-"),
        ("versions", ", ".join(f"{name} {one}" for name, one in versions.items())),
        ("git", record.get("git_revision") or "no git"),
        *((key, str(value)) for key, value in sorted(settings.items())),
    ]


def _plain(value: Any) -> Any:
    """Turn tuples into lists, as JSON does."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
