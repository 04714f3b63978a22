"""Scores the test split of finished runs; writes results, label maps and figures."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.commands.draw_cases import draw_cases
from unet_jax.commands.report import refresh_page
from unet_jax.data.case import Case, Source
from unet_jax.data.class_fractions import class_fractions
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.files.write import write_label_map
from unet_jax.evaluation.case_table import CASE_TABLE, SCORES, write_scores
from unet_jax.evaluation.loss_metrics import create_held_out_losses, held_out_spec
from unet_jax.evaluation.metric_table import Metric
from unet_jax.evaluation.scorer import evaluate
from unet_jax.evaluation.table import results_table
from unet_jax.experiment.distance import DISTANCE
from unet_jax.experiment.finished import load_run, open_run_data, read_run, risk_of
from unet_jax.experiment.inference import CompiledNetwork
from unet_jax.experiment.label_choices import (
    fits_temperature,
    with_named_clusters,
    with_validation_choices,
)
from unet_jax.experiment.labels_only import DRAWN_SCORES, labels_only
from unet_jax.experiment.regions import score_groups, scored_names
from unet_jax.experiment.risk import CALIBRATION, sources_of, with_risk_threshold
from unet_jax.hosts import agree
from unet_jax.inference.segmenter import Segmenter
from unet_jax.losses.terms import needs_class_fractions, reads_labels
from unet_jax.report.figure import problem_of_drawing, write_figure
from unet_jax.report.reliability import reliability_figure
from unet_jax.report.template import PAGE
from unet_jax.runtime.shown_path import shown


def evaluate_run(workdir: pathlib.Path) -> dict[str, Any]:
    """Score the test split of a finished run again.

    Args:
        workdir: folder of the run; no other input is needed.

    Returns: The new content of test_metrics.json.
    Raises: InputError: the folder has no finished run, or the data of the run is gone.
    """
    return score_run(workdir, None)


def score_run(
    workdir: pathlib.Path,
    sources: Mapping[str, Source] | None,
    *,
    compiled: CompiledNetwork | None = None,
) -> dict[str, Any]:
    """Score the test split with the best checkpoint; write and print the results.

    Args:
        workdir: folder of the run.
        sources: cases of each split; None opens the data that the run's config names.
        compiled: network of the run's config; None builds it.

    Returns: The content of test_metrics.json.
    Raises: InputError: the folder has no finished run, or the data of the run is gone.
    """
    if sources is None:
        sources = open_sources(workdir)
    run = load_run(workdir, compiled=compiled, complete=False)
    segmenter = run.predict_fn
    if not reads_labels(run.config.loss):
        segmenter = with_named_clusters(workdir, run, sources["train"])
    segmenter = with_validation_choices(
        workdir,
        segmenter,
        sources["validation"],
        step=run.step,
        steps=run.config.eval.postprocess == "auto",
        temperature=fits_temperature(run.config),
    )
    risk = {}
    if risk_of(run.config) is not None:
        segmenter, risk["risk"] = with_risk_threshold(
            workdir, segmenter, sources[CALIBRATION], run.config, step=run.step
        )
    describer = run.describer
    if describer is not None and run.config.eval.get("distance"):
        agree.on_first(
            lambda: describer.fit(workdir / DISTANCE, sources, step=run.step)
        )
    print(f"test split with the checkpoint of step {run.step}:")
    results = score_test(segmenter, run.config, sources, workdir)
    results |= {"checkpoint_step": run.step, **risk}
    # As JSON gives it back: the result equals the content of the file.
    results["eval"] = json.loads(json.dumps(run.config.eval.to_dict()))
    if agree.is_first():
        write_scores(workdir, results)
    if refresh_page(workdir):
        print(f"report: {shown(workdir / PAGE)}")
    return results


def read_scores(
    workdir: pathlib.Path, config: ConfigDict, checkpoint_step: int | None
) -> dict[str, Any] | None:
    """Read the scores of a checkpoint, made with the section ``eval`` of a config.

    Returns: The content of test_metrics.json; None where it is missing or damaged, or
        has the scores of another checkpoint or of other settings.
    """
    try:
        results: dict[str, Any] = json.loads((workdir / SCORES).read_text())
        settings = json.loads(json.dumps(config.eval.to_dict()))
        # Version 0.1 recorded no settings.
        found = results["checkpoint_step"], results.get("eval", settings)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return results if found == (checkpoint_step, settings) else None


def open_sources(workdir: pathlib.Path, *, risk: bool = True) -> Mapping[str, Source]:
    """Open the splits of a run's data, with the calibration part if it has one."""
    config, dataset = read_run(workdir)[0], open_run_data(workdir)
    return sources_of(config, dataset, risk=risk)


def held_out_losses(
    config: ConfigDict, sources: Mapping[str, Source]
) -> dict[str, Metric]:
    """Make the losses that ``eval.metrics`` names.

    Args:
        config: the resolved config.
        sources: cases of each split; "train" is read where a loss weights the classes
            by their fractions.

    Returns: A metric for each ``loss/<name>`` among ``eval.metrics``.
    """
    spec = held_out_spec(config.eval.metrics, config.loss)
    fractions, names = None, tuple(config.data.class_names)
    if needs_class_fractions(spec):
        train = sources["train"]
        counted = class_fractions(train, names, limit=len(train))
        fractions = tuple(counted.fractions.values())
    return create_held_out_losses(
        spec,
        head=config.model.head,
        class_fractions=fractions,
        include_background=config.data.include_background,
        num_classes=len(names),
        patch_size=config.train.patch_size,
    )


def scorer_options(config: ConfigDict) -> dict[str, Any]:
    """Return the arguments of `evaluate` that a config decides."""
    return {
        "class_names": tuple(config.data.class_names),
        "regions": score_groups(config),
        "include_background": config.data.include_background,
        "metrics": tuple(config.eval.metrics),
        "surface": config.eval.surface,
        "tolerance_mm": config.eval.tolerance_mm,
        "tolerance_px": config.eval.tolerance_px,
        "slice_axis": config.data.slice_axis,
    }


def write_prediction(
    folder: pathlib.Path, case: Case, labels: np.ndarray, config: ConfigDict
) -> pathlib.Path:
    """Write the label map of a case to ``predictions/`` of a folder."""
    colors = tuple(config.data.class_colors)
    return write_label_map(folder / "predictions", _as_stored(case), labels, colors)


def score_test(
    segmenter: Segmenter,
    config: ConfigDict,
    sources: Mapping[str, Source],
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Score the test split, write its label maps and figures, print the table."""
    source, losses = sources["test"], held_out_losses(config, sources)
    mine = agree.indices_here(len(source))
    files: list[pathlib.Path] = []

    def write(case: Case, labels: np.ndarray) -> np.ndarray:
        files.append(write_prediction(folder, case, labels, config))
        return labels

    results = evaluate(
        segmenter.method,
        (source[number] for number in mine),
        losses=losses,
        finish=write,
        gather=agree.gather_items,
        **scorer_options(config),
    )
    results["temperature"] = segmenter.temperature
    if duplicates := getattr(source, "duplicates", 0):
        results["duplicates"] = duplicates
    if labels_only(config):
        print(DRAWN_SCORES)
        results["images"] = "drawn"
    print(results_table(results, scored_names(config)))
    if agree.is_first() and (
        problem := problem_of_drawing(_draw_reliability, results, config.name, folder)
    ):
        print(f"reliability.png is not drawn ({problem})")
    draw_cases(folder, results, source, dict(zip(mine, files, strict=True)), config)
    made = shown(folder)
    print(f"scores: {made}/{SCORES} and {CASE_TABLE}, pictures: {made}/figures")
    return results


def _draw_reliability(
    results: Mapping[str, Any], name: str, folder: pathlib.Path
) -> None:
    """Write the reliability diagram, where calibration was measured."""
    if "reliability" in results:
        figure = reliability_figure(results["reliability"], title=f"{name}: test split")
        write_figure(folder / "figures" / "reliability.png", figure)


def _as_stored(case: Case) -> StoredImage:
    """Describe a case as the file whose form its label map takes."""
    stem = _file_stem(case.id)
    if case.image.ndim == 3:
        path = pathlib.Path(f"{stem}.png")
        return StoredImage(path, case.image, None, case.spacing, "picture")
    return StoredImage(
        path=pathlib.Path(f"{stem}.nii.gz"),
        image=case.image,
        affine=np.diag([*(case.spacing or (1.0, 1.0, 1.0)), 1.0]),
        spacing=case.spacing,
        kind="volume",
    )


def _file_stem(case_id: str) -> str:
    """Turn an id into a unique file name, with "__" for "/" and "--" for ":"."""
    stem = case_id.replace("/", "__").replace(":", "--")
    stem = re.sub(r"[^\w.-]+", "_", stem).strip("_")
    if stem.replace("__", "/").replace("--", ":") == case_id:
        return stem
    return f"{stem}-{hashlib.sha256(os.fsencode(case_id)).hexdigest()[:8]}"
