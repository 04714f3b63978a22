"""Joins finished runs to one network: the mean of their probabilities."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from unet_jax.errors import InputError
from unet_jax.experiment.finished import load_run, parse_steps
from unet_jax.experiment.folds import fold_folder
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.postprocess import Step
from unet_jax.inference.segmenter import Segmenter

CROSSVALIDATION = "crossvalidation.json"
"""File with the scores of a cross-validation, which its end writes."""


def mean_segmenter(runs: Sequence[TrainedRun], steps: tuple[Step, ...]) -> Segmenter:
    """Return the mean of the networks of several runs, with a postprocessing.

    Args:
        runs: runs of one data set, with the same classes.
        steps: postprocessing of the labels.
    """
    heads = {run.predict_fn.head for run in runs}
    return Segmenter(
        tuple(one for run in runs for one in run.predict_fn.members),
        steps,
        # That of sigmoid keeps the order of any probabilities.
        head="softmax" if heads == {"softmax"} else "sigmoid",
        regions=runs[0].predict_fn.regions,
    )


def is_crossvalidation(workdir: pathlib.Path) -> bool:
    """Whether a workdir has the folds of a cross-validation, finished or not."""
    is_run = (workdir / "config.json").exists()
    return not is_run and fold_folder(workdir, 0).is_dir()


def load_trained(workdir: pathlib.Path) -> TrainedRun:
    """Load a finished run, or the mean of the folds of a cross-validation.

    Settings and the distance from training (``describer``) are those of the first fold.

    Raises:
        InputError: there is neither, or it is not finished.
    """
    if not is_crossvalidation(workdir):
        return load_run(workdir)
    runs, steps = load_folds(workdir)
    first = runs[0]
    return TrainedRun(
        first.config,
        first.preprocessing,
        None,
        mean_segmenter(runs, steps),
        first.describer,
    )


def load_folds(
    workdir: pathlib.Path,
) -> tuple[list[TrainedRun], tuple[Step, ...]]:
    """Load the runs of all folds, and the postprocessing that they chose together.

    Raises:
        InputError: the cross-validation is not finished, or a fold has changed.
    """
    content = read_crossvalidation(workdir)
    if content is None:
        raise InputError(
            f"--workdir {workdir}: its cross-validation is not finished (there is no "
            f"{CROSSVALIDATION}); run --mode=crossvalidate again, which goes on with it"
        )
    runs = []
    for one in content["folds"]:
        folder = fold_folder(workdir, one["fold"])
        if not (folder / "config.json").exists():
            raise InputError(
                f"{folder}: there is no run of this fold; put it back, or run "
                "--mode=crossvalidate again, which trains it"
            )
        runs.append(load_run(folder))
        if runs[-1].step != one["checkpoint_step"]:
            raise InputError(
                f"{folder}: has the checkpoint of step {runs[-1].step}, and "
                f"{CROSSVALIDATION} the scores of step {one['checkpoint_step']}; run "
                "--mode=crossvalidate again, which scores it"
            )
    return runs, parse_steps(content["postprocess"]["steps"])


def read_crossvalidation(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Read crossvalidation.json; None where there is none.

    Raises:
        InputError: the file cannot be read.
    """
    path = workdir / CROSSVALIDATION
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        [(one["fold"], one["checkpoint_step"]) for one in content["folds"]]
        content["postprocess"]["steps"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); restore it, or "
            "move it away and run --mode=crossvalidate again, which writes it"
        ) from None
    return content
