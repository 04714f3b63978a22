"""Gives a run the predictions of a previous one: the second stage of a cascade.

The previous run, or the folds of a cross-validation, is copied into the workdir, which
then has all that a prediction needs. Its label maps of the training and validation
cases are made once and kept there, under a hash of the image.
"""

import functools
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unet_jax.data.case import Case, Source, read_case
from unet_jax.data.previous_changes import PreviousChanges
from unet_jax.errors import InputError, setting
from unet_jax.experiment.record import read_finished_record
from unet_jax.experiment.trained_run import TrainedRun
from unet_jax.inference.segmenter import Segmenter
from unet_jax.method import Reference, Spacing
from unet_jax.runtime.atomic import atomic_path
from unet_jax.runtime.home import expanded

FOLDER = "previous_stage"
"""Folder of a workdir with the previous runs and their label maps."""

_KEPT = (
    *("config.json", "checkpoints", "postprocess.json", "temperature.json"),
    *("risk.json", "clusters.json", FOLDER),
)
"""Files and folders of a run that its predictions need."""

Load = Callable[[pathlib.Path], TrainedRun]


def has_previous(config: ConfigDict) -> bool:
    """Tell whether a run is a second stage; a record of 0.1 has no such key."""
    return bool(config.data.get("previous_stage"))


def previous_channels(config: ConfigDict) -> int:
    """Return the number of one-hot channels: the classes without the background."""
    return len(config.data.class_names) - 1 if has_previous(config) else 0


def previous_changes(config: ConfigDict) -> PreviousChanges | None:
    """Return how training crops change the prediction; None for not at all."""
    if not (has_previous(config) and config.augment.enabled):
        return None
    return PreviousChanges(
        classes=previous_channels(config),
        operator_probability=config.augment.previous_operator_probability,
        removal_probability=config.augment.previous_removal_probability,
    )


class PreviousStage:
    """Label maps of a previous network for the images of a second one.

    Attributes:
        classes: number of classes without the background.
    """

    def __init__(self, folder: pathlib.Path, classes: int, load: Load) -> None:
        """Load nothing yet.

        Args:
            folder: `FOLDER` of the workdir of the second stage.
            classes: number of classes without the background.
            load: function that loads a finished run.
        """
        self.classes = classes
        self._folder, self._load = folder, load

    def __call__(
        self,
        image: np.ndarray,
        spacing: Spacing,
        *,
        name: str = "image",
        reference: Reference = None,
    ) -> np.ndarray:
        """Return the class index of every pixel ``(*spatial)``.

        The arguments are those of `Segmenter`. A label map that is kept is read.
        """
        kept = self._kept(image, spacing)
        if kept.exists():
            with np.load(kept, allow_pickle=False) as found:
                stored: np.ndarray = found["labels"]
            return stored
        every = self._segmenter(tuple(range(len(self._runs))))
        labels = every(image, spacing, name=name, reference=reference)
        return labels.astype(np.int16)

    def keep(self, split: str, source: Source) -> None:
        """Make the label maps of the cases of a split, where they are missing.

        Of several runs those count that did not train on a case.
        """
        known = 0
        for index in range(len(source)):
            case = read_case(source, index)
            known += not self._unseen_by(case)
            kept = self._kept(case.image, case.spacing)
            if kept.exists():
                continue
            chosen = self._unseen_by(case) or tuple(range(len(self._runs)))
            labels = self._segmenter(chosen)(
                case.image, case.spacing, name=case.id, reference=case.reference
            )
            with atomic_path(kept) as temporary, open(temporary, "wb") as stream:
                np.savez_compressed(stream, labels=labels.astype(np.int16))
        print(f"previous    {len(source)} {split} cases predicted by the first stage")
        if known:
            print(
                f"warning: the first stage trained on {known} of these cases. Its "
                "predictions of them are better than those of new cases; a "
                "cross-validation as data.previous_stage has predictions of each case "
                "by a network that did not see it."
            )

    def _kept(self, image: np.ndarray, spacing: Spacing) -> pathlib.Path:
        """Return the file for the label map of an image."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((image.shape, image.dtype.str, spacing)).encode())
        for plane in image:
            digest.update(np.ascontiguousarray(plane).data)
        return self._folder / "labels" / f"{digest.hexdigest()}.npz"

    @functools.cached_property
    def _runs(self) -> tuple[pathlib.Path, ...]:
        """Folders of the previous runs."""
        return tuple(sorted(one.parent for one in self._folder.glob("*/config.json")))

    @functools.cached_property
    def _trained_on(self) -> tuple[frozenset[str], ...]:
        """Ids of the training cases of each previous run."""
        records = (read_finished_record(run)["dataset"] for run in self._runs)
        return tuple(frozenset(one.get("train", {}).get("ids", ())) for one in records)

    def _unseen_by(self, case: Case) -> tuple[int, ...]:
        """Return the numbers of the runs that did not train on a case."""
        return tuple(
            number for number, ids in enumerate(self._trained_on) if case.id not in ids
        )

    @functools.cached_property
    def _loaded(self) -> tuple[TrainedRun, ...]:
        """The previous runs; loaded when the first image needs them."""
        if not self._runs:
            raise InputError(
                f"{self._folder}: holds no run, expected the first stage of this one; "
                "restore the folder, or train again in another --workdir"
            )
        return tuple(map(self._load, self._runs))

    def _segmenter(self, numbers: Sequence[int]) -> Segmenter:
        """Return one run with its postprocessing, or the mean of several."""
        chosen = [self._loaded[number].predict_fn for number in numbers]
        if len(chosen) == 1:
            return chosen[0]
        return Segmenter(
            tuple(member for one in chosen for member in one.members),
            head=chosen[0].head,
            regions=chosen[0].regions,
        )


def previous_stage_of(
    config: ConfigDict, workdir: pathlib.Path, load: Load
) -> PreviousStage | None:
    """Return the first stage of a run from its workdir; None where it has none."""
    if not has_previous(config):
        return None
    return PreviousStage(workdir / FOLDER, previous_channels(config), load)


def adopt_previous_stage(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Copy the runs that ``data.previous_stage`` names into a new workdir.

    Raises:
        InputError: there is no finished run, or it does not fit this one.
    """
    given = pathlib.Path(expanded(config.data.previous_stage))
    runs = {"run": given}
    if not (given / "config.json").exists():
        folds = sorted(given.glob("fold_*/config.json"))
        runs = {one.parent.name: one.parent for one in folds}
    if not runs or given.resolve() == workdir.resolve():
        what = "is the --workdir itself" if runs else "holds no run"
        raise InputError(
            f"data.previous_stage: {given} {what}, expected the workdir of another "
            "finished run, or of a cross-validation; train the first stage, and write "
            f"{setting('data.previous_stage', 'runs/lowres')}"
        )
    for run in runs.values():
        _check_fits(config, run)
    made, folder = workdir / f"{FOLDER}.tmp", workdir / FOLDER
    for old in (made, folder):
        shutil.rmtree(old, ignore_errors=True)
    for name, run in runs.items():
        (made / name).mkdir(parents=True)
        for part in filter(lambda part: (run / part).exists(), _KEPT):
            copy = shutil.copytree if (run / part).is_dir() else shutil.copy
            copy(run / part, made / name / part)  # type: ignore[operator]
    (made / "labels").mkdir()
    made.rename(folder)


def _check_fits(config: ConfigDict, run: pathlib.Path) -> None:
    """Refuse a first stage of other classes or images, or one without a checkpoint."""
    record: Mapping[str, Any] = read_finished_record(run)["config"]
    for key, mine in (
        ("class_names", tuple(config.data.class_names)),
        ("orientation", config.data.orientation),
    ):
        theirs = record["data"].get(key, "")
        theirs = tuple(theirs) if isinstance(theirs, list | tuple) else theirs
        if theirs != mine:
            raise InputError(
                f"data.previous_stage: {run} has data.{key}={theirs!r}, expected "
                f"{mine!r} as this run; train both with the same"
            )
    if not any((run / "checkpoints").glob("*")):
        raise InputError(
            f"data.previous_stage: {run} has no checkpoint, expected a finished run; "
            "end its training first"
        )
