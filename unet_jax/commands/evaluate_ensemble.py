"""Scores the mean of the probabilities of several finished runs."""

import pathlib
from collections.abc import Sequence
from typing import Any

from unet_jax.commands.evaluate import open_sources, score_test
from unet_jax.errors import InputError
from unet_jax.evaluation.case_table import write_scores
from unet_jax.experiment.ensemble import mean_segmenter
from unet_jax.experiment.finished import load_run, risk_of
from unet_jax.experiment.label_choices import (
    fits_temperature,
    with_validation_choices,
)
from unet_jax.experiment.record import as_tuples, check_no_run, read_finished_record
from unet_jax.experiment.risk import CALIBRATION, with_risk_threshold
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.hosts import agree
from unet_jax.inference.postprocess import Step


def evaluate_ensemble(
    workdirs: Sequence[pathlib.Path],
    *,
    output: pathlib.Path,
    names: Sequence[str] | None = None,
    steps: tuple[Step, ...] | None = None,
) -> dict[str, Any]:
    """Score the mean of the probabilities of several runs on their test split.

    Args:
        workdirs: folders of finished runs with the same classes and test split, such
            as folds or seeds.
        output: folder for test_metrics.json, per_case.csv, label maps and figures.
        names: names of the runs in the results; None for their paths.
        steps: postprocessing; None for the steps that all runs have.

    Returns: The content of test_metrics.json.
    Raises: InputError: a run is missing, or they differ in classes or test split.
    """
    check_no_run(output)
    runs = [load_run(workdir) for workdir in workdirs]
    _check_one_test(workdirs, runs)
    has_risk = _has_one_risk(workdirs, runs)
    sources = open_sources(workdirs[0], risk=has_risk)
    ensemble = mean_segmenter(runs, _common_steps(runs) if steps is None else steps)
    ensemble = with_validation_choices(
        output,
        ensemble,
        sources["validation"],
        step=None,
        steps=False,
        temperature=_has_one_validation(workdirs, runs),
    )
    risk = {}
    if has_risk:
        ensemble, risk["risk"] = with_risk_threshold(
            output, ensemble, sources[CALIBRATION], runs[0].config, step=None
        )
    print(f"test split with the mean of {len(runs)} runs:")
    results = score_test(ensemble, runs[0].config, sources, output)
    results |= {"members": list(names or map(str, workdirs)), **risk}
    if agree.is_first():
        write_scores(output, results)
    return results


def _check_one_test(
    workdirs: Sequence[pathlib.Path], runs: Sequence[TrainedRun]
) -> None:
    """Refuse runs that differ in their classes or their test split."""
    records = [read_finished_record(workdir) for workdir in workdirs]
    data = [run.config.data for run in runs]
    for what, values, fix in (
        *(
            (f"data.{key}", [as_tuples(one.get(key)) for one in data], "")
            for key in ("class_names", "label_map", "palette")
        ),
        ("data.regions", [run.predict_fn.regions for run in runs], ""),
        (
            "the test split",
            [record["dataset"].get("test") for record in records],
            "; train them with the same data.splits, or the same data.split_seed, "
            "data.test_fraction and data.group_regex; data.fold and seed may differ",
        ),
    ):
        for workdir, value in zip(workdirs, values, strict=True):
            if value != values[0]:
                raise InputError(
                    f"--workdirs: {what} of {workdir} differs from that of "
                    f"{workdirs[0]}; expected runs of one data set, with the same "
                    f"classes and test split{fix}"
                )


def _has_one_validation(
    workdirs: Sequence[pathlib.Path], runs: Sequence[TrainedRun]
) -> bool:
    """Tell whether a temperature can be fitted to the mean of runs.

    No run may have been trained on the cases, so that folds have none in common.
    """
    if not all(fits_temperature(run.config) for run in runs):
        return False
    if _validated_alike(workdirs, runs):
        return True
    print("temperature: none is fitted, because the runs validated on different cases")
    return False


def _has_one_risk(workdirs: Sequence[pathlib.Path], runs: Sequence[TrainedRun]) -> bool:
    """Tell whether one threshold can be chosen for the mean of runs."""
    limits = {risk_of(run.config) for run in runs}
    if limits == {None}:
        return False
    if len(limits) == 1 and _validated_alike(workdirs, runs):
        return True
    print(
        "eval.risk: no threshold is chosen, because the runs have different limits, or "
        "validated on different cases"
    )
    return False


def _validated_alike(
    workdirs: Sequence[pathlib.Path], runs: Sequence[TrainedRun]
) -> bool:
    """Tell whether the same cases chose the checkpoint of every run."""
    found = []
    for workdir, run in zip(workdirs, runs, strict=True):
        part = None
        if risk_of(run.config) is not None:
            part = run.config.data.calibration_fraction, run.config.data.split_seed
        found.append((read_finished_record(workdir)["dataset"].get("validation"), part))
    return all(one == found[0] for one in found)


def _common_steps(runs: Sequence[TrainedRun]) -> tuple[Step, ...]:
    """Return the postprocessing steps that all runs have."""
    chosen = [run.predict_fn.steps for run in runs]
    common = tuple(step for step in chosen[0] if all(step in steps for steps in chosen))
    if any(steps != common for steps in chosen):
        print(f"postprocessing: the runs differ; only common steps are done: {common}")
    return common
