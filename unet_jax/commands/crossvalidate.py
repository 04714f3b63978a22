"""Cross-validates: trains every fold, scores each case out-of-fold, joins the folds."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.commands.evaluate import (
    held_out_losses,
    scorer_options,
    write_prediction,
)
from unet_jax.commands.evaluate_ensemble import evaluate_ensemble
from unet_jax.commands.report import refresh_page
from unet_jax.commands.train import train_and_evaluate
from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.files.label_table import write_csv
from unet_jax.errors import InputError
from unet_jax.evaluation.case_table import CASE_TABLE, case_rows
from unet_jax.evaluation.folds import folds_table, summarise_folds
from unet_jax.evaluation.scorer import evaluate, write_results
from unet_jax.evaluation.table import counted, score_cell
from unet_jax.experiment.complete import resolve_source
from unet_jax.experiment.config_file import keep_folds_config
from unet_jax.experiment.ensemble import (
    CROSSVALIDATION,
    load_folds,
    read_crossvalidation,
)
from unet_jax.experiment.finished import load_run, open_run_data
from unet_jax.experiment.folds import (
    Fold,
    chooses_steps,
    divide_into_folds,
    fold_config,
    fold_folder,
)
from unet_jax.experiment.labels_only import labels_only
from unet_jax.experiment.record import check_no_run
from unet_jax.experiment.run import check
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.postprocess import Step, apply_steps, choose_steps
from unet_jax.method import Spacing
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.shown_path import shown
from unet_jax.runtime.stop import Stop

OUT_OF_FOLD = "out_of_fold"
"""Folder with label map and scores of each case, by the fold that did not train on it.
"""

TABLE = "crossvalidation.txt"


def crossvalidate(
    config: ConfigDict, workdir: pathlib.Path, *, stop: Stop | None = None
) -> dict[str, Any]:
    """Train the folds that are missing, and score every case out-of-fold.

    Each fold is an ordinary run in ``fold_<number>``; a complete one is left alone, and
    an interrupted one is resumed. Every case outside of the test split is then scored
    by the fold that validated on it. The predictions of all folds together choose the
    postprocessing, unless ``eval.postprocess`` gives steps. The test split, if there is
    one, is scored by the mean of the networks.

    Args:
        config: config of a folder; it is not changed.
        workdir: folder for the folds, their scores and the table.
        stop: requests to stop; None if there are none.

    Returns:
        The content of crossvalidation.json.

    Raises:
        InputError: the config, the data or the workdir cannot be used.
        RunError: a fold cannot go on.
        Stopped: a fold was asked to stop, and saved its state.
    """
    config = resolve_source(config)
    _check(config, workdir)
    folds = divide_into_folds(config, workdir)
    keep_folds_config(workdir, config)
    for number in range(len(folds)):
        folder = fold_folder(workdir, number)
        print(f"\nfold {number} of 0 to {len(folds) - 1}: {shown(folder)}", flush=True)
        train_and_evaluate(fold_config(config, number), folder, stop=stop)
    print("\nevery case, by the fold that did not train on it:", flush=True)
    if not _is_scored(config, workdir, len(folds)):
        found = _score(config, workdir, folds)
        found["test"] = _score_test(workdir, folds, found)
        write_csv(workdir / OUT_OF_FOLD / CASE_TABLE, case_rows(found["pooled"]))
        write_results(workdir / CROSSVALIDATION, found)
    results = read_crossvalidation(workdir)
    assert results is not None, "it is written"
    text = folds_table(results)
    with atomic_path(workdir / TABLE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    made = shown(workdir)
    print(f"table: {made}/{TABLE}, scores: {made}/{CROSSVALIDATION}")
    refresh_page(workdir)
    return results


def evaluate_folds(workdir: pathlib.Path) -> dict[str, Any]:
    """Score the test split with the mean of the folds of a finished cross-validation.

    Returns: The new content of test_metrics.json.
    Raises: InputError: it is not finished, or has no test split beside the folds.
    """
    runs, steps = load_folds(workdir)
    if not _has_test(open_run_data(fold_folder(workdir, 0)).fingerprint):
        raise InputError(
            f"--workdir {workdir}: its cross-validation has no test split; expected "
            f"one to score. {CROSSVALIDATION} has the scores of all cases."
        )
    return _score_mean(workdir, len(runs), steps)


def _has_test(fingerprint: Mapping[str, Any]) -> bool:
    """Whether the test split of a fold is not its validation split."""
    return bool(fingerprint["test"]["ids"] != fingerprint["validation"]["ids"])


def _check(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse what no folds can be trained of, before any work."""
    check_no_run(workdir)
    if config.data.source != "folder":
        raise InputError(
            f"data.source: found {config.data.source!r}, expected 'folder': a TFDS set "
            "comes with its splits; cross-validate the images of a folder (data.path)"
        )
    if config.data.fold >= 0:
        raise InputError(
            f"data.fold: found {config.data.fold}, expected -1: --mode=crossvalidate "
            "trains every fold; leave it out, or train this fold with --mode=train"
        )
    check(fold_config(config, 0), fold_folder(workdir, 0))


def _is_scored(config: ConfigDict, workdir: pathlib.Path, count: int) -> bool:
    """Whether there are scores of these checkpoints, made with these settings."""
    found = read_crossvalidation(workdir)
    if found is None:
        return False
    runs = [load_run(fold_folder(workdir, number)) for number in range(count)]
    steps = [one["checkpoint_step"] for one in found["folds"]]
    same = steps == [run.step for run in runs]
    if not same or found.get("eval") != _settings(config, runs[0]):
        return False
    print(f"{shown(workdir)} is complete: nothing to do")
    return True


def _settings(config: ConfigDict, run: TrainedRun) -> dict[str, Any]:
    """Return the settings of the scores, as JSON gives them back."""
    settings = run.config.eval.to_dict()
    settings["postprocess"] = config.eval.postprocess
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found


# ---- every case, by the fold that did not train on it --------------------------------


def _score(
    config: ConfigDict, workdir: pathlib.Path, folds: Sequence[Fold]
) -> dict[str, Any]:
    """Score each case out-of-fold, and choose the postprocessing."""
    output = workdir / OUT_OF_FOLD
    entries: list[Any] = []
    rows, duplicates = [], 0
    with _kept_labels(output / "kept") as kept:
        for number in range(len(folds)):
            folder = fold_folder(workdir, number)
            run, dataset = load_run(folder, complete=False), open_run_data(folder)
            source = dataset.source("validation")
            options = scorer_options(run.config)
            options["losses"] = held_out_losses(
                run.config, {"train": dataset.source("train")}
            )
            results, found = _score_fold(run, source, options, kept, output)
            entries += found
            duplicates += getattr(source, "duplicates", 0)
            rows.append(_row(number, run, results))
            dice = score_cell("dice", results["mean"]["dice"])
            cases = counted(results["n_cases"], "case")
            print(f"fold {number}: {cases}, Dice {dice}", flush=True)
        # The scores of the cases are there: they are put together.
        pooled = evaluate(_no_method, (), gather=lambda _: entries, **options)
        steps = run.predict_fn.steps
        chooses = chooses_steps(config)
        if chooses:
            steps = kept.chosen_steps(run.predict_fn.groups)
        post = kept.scored_after(steps, options) if chooses and steps else pooled
    fold_of = {one: number for number, fold in enumerate(folds) for one in fold["val"]}
    for row in (*pooled["per_case"], *pooled["case_level"], *pooled["per_slice"]):
        row["fold"] = fold_of[row["id"]]
    if duplicates:
        pooled["duplicates"] = duplicates
    if labels_only(run.config):
        pooled["images"] = "drawn"
    shown_part = {key: post[key] for key in ("mean", "ci95", "per_class")}
    return {
        "class_names": list(options["class_names"]),
        "folds": rows,
        **summarise_folds(rows),
        "pooled": pooled,
        "postprocess": {"steps": steps, "chosen": chooses, **shown_part},
        "eval": _settings(config, run),
    }


def _score_fold(
    run: TrainedRun,
    source: Source,
    options: dict[str, Any],
    kept: "_KeptLabels",
    output: pathlib.Path,
) -> tuple[dict[str, Any], list[Any]]:
    """Score the validation cases of a fold.

    Temperature and threshold are left out: these cases chose them.

    Returns:
        The results, and the scores of each case as the scorer gathers them.
    """
    entries: list[Any] = []

    def gather(mine: Sequence[Any]) -> list[Any]:
        entries.extend(mine)
        return list(mine)

    def finish(case: Case, labels: np.ndarray) -> np.ndarray:
        kept.add(case, labels)
        write_prediction(output, case, labels, run.config)
        return labels

    segmenter = dataclasses.replace(run.predict_fn, temperature=None, threshold=None)
    results = evaluate(
        segmenter.method,
        (read_case(source, index) for index in range(len(source))),
        finish=finish,
        gather=gather,
        **options,
    )
    return results, entries


def _row(number: int, run: TrainedRun, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of the results of a fold."""
    keys = ("n_cases", "n_groups", "mean", "per_class")
    row = {"fold": number, "checkpoint_step": run.step}
    return row | {key: results[key] for key in keys}


def _no_method(image: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Stand for a method where every case has been scored."""
    raise AssertionError("no case is left to score")


class _KeptLabels:
    """Labels and ground truth of cases, in files: those of all folds need not fit."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Keep nothing yet."""
        self._folder = folder
        self._cases: list[Case] = []

    def add(self, case: Case, labels: np.ndarray) -> None:
        """Keep the labels of a case beside its ground truth."""
        assert case.label is not None, "validation has labels"
        index = len(self._cases)
        np.save(self._folder / f"{index}.labels.npy", labels)
        np.save(self._folder / f"{index}.truth.npy", case.label)
        # The scorer reads the size of an image alone.
        image = np.empty((*case.image.shape[:-1], 0), np.uint8)
        self._cases.append(dataclasses.replace(case, image=image, label=None))

    def _read(self, index: int, what: str) -> np.ndarray:
        """Map an array of a case."""
        found: np.ndarray = np.load(self._folder / f"{index}.{what}.npy", mmap_mode="r")
        return found

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield labels and ground truth of the cases with all classes labelled."""
        for index, case in enumerate(self._cases):
            if case.labelled_classes is None:
                yield self._read(index, "labels"), self._read(index, "truth")

    def chosen_steps(self, groups: Sequence[Sequence[int]]) -> tuple[Step, ...]:
        """Choose the postprocessing; () where every case is partly labelled."""
        if next(iter(self), None) is None:
            return ()
        return choose_steps(self, groups=groups)

    def scored_after(
        self, steps: Sequence[Step], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Score the labels after a postprocessing."""
        places = {case.id: index for index, case in enumerate(self._cases)}
        cases = (
            dataclasses.replace(case, label=self._read(index, "truth"))
            for index, case in enumerate(self._cases)
        )
        return evaluate(
            lambda image, spacing: np.zeros(image.shape[:-1], np.uint8),
            cases,
            finish=lambda case, _: apply_steps(
                self._read(places[case.id], "labels"), steps, spacing=case.spacing
            ),
            **options,
        )


@contextmanager
def _kept_labels(folder: pathlib.Path) -> Iterator[_KeptLabels]:
    """Make a folder for labels, which is removed at the end or by the next start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield _KeptLabels(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- the test split, by the mean of the folds ----------------------------------------


def _score_test(
    workdir: pathlib.Path, folds: Sequence[Fold], results: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Score the test split with the mean of the folds; None without one."""
    if "test" not in folds[0]:
        return None
    found = _score_mean(workdir, len(folds), results["postprocess"]["steps"])
    keys = ("n_cases", "n_groups", "mean", "ci95", "ci95_note", "per_class")
    kept = {key: found[key] for key in keys}
    return kept | {key: found[key] for key in ("duplicates",) if key in found}


def _score_mean(
    workdir: pathlib.Path, count: int, steps: tuple[Step, ...]
) -> dict[str, Any]:
    """Score the test split with the mean of the folds."""
    folders = [fold_folder(workdir, number) for number in range(count)]
    return evaluate_ensemble(
        folders, output=workdir, names=[one.name for one in folders], steps=steps
    )
