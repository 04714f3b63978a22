"""Divides a data set into the folds of a cross-validation, each with its config."""

import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from unet_jax.data.folder.split_files import SPLITS_FILE
from unet_jax.errors import InputError, named_files, setting
from unet_jax.experiment.data import open_dataset
from unet_jax.experiment.record import flat_config, read_record
from unet_jax.runtime.atomic import atomic_path
from unet_jax.training.resume import has_checkpoint

Fold = Mapping[str, Sequence[str]]
"""Ids of "train", "val" and, where there is a held-out one, "test"."""


def fold_folder(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """Return the folder of the run of a fold."""
    return workdir / f"fold_{number}"


def fold_config(config: ConfigDict, number: int) -> ConfigDict:
    """Return the config of the run of a fold.

    Postprocessing that is to be chosen is left out: all folds choose it together.
    """
    made = config.copy_and_resolve_references()
    with made.unlocked():
        made.data.fold = number
        if chooses_steps(config):
            made.eval.postprocess = None
    return made.lock()


def chooses_steps(config: ConfigDict) -> bool:
    """Whether the out-of-fold predictions choose the postprocessing."""
    return config.eval.postprocess in (None, "auto")


def divide_into_folds(config: ConfigDict, workdir: pathlib.Path) -> list[Fold]:
    """Divide the data into folds, check them, and keep them in the workdir.

    They are kept in ``splits_final.json``, which ``data.splits`` and nnU-Net read.
    Every file is read once; the folds are given the facts that were found.

    Returns:
        The ids of each fold.

    Raises:
        InputError: the data allow no folds, the folds leave a case out, or those of a
            cross-validation that has begun are others.
    """
    folds: list[Fold] = []
    count = 1
    while len(folds) < count:
        dataset = open_dataset(fold_config(config, len(folds)), workdir)
        count = getattr(dataset, "folds", 0)
        folds.append(_fold(dataset.fingerprint))
    given = config.data.folds
    if given not in (None, count) or count < 2:
        expected = "at least 2" if count < 2 else f"{given} (data.folds)"
        raise InputError(
            f"data.splits: found {count} folds in the file, expected {expected}; leave "
            "data.folds out, or name another file"
        )
    check_folds(folds)
    _check_same_folds(config, workdir, folds)
    with atomic_path(workdir / SPLITS_FILE) as temporary:
        temporary.write_text(json.dumps(folds, indent=1) + "\n", encoding="utf-8")
    for number in range(count):
        _give_facts(workdir, fold_folder(workdir, number))
    return folds


def _fold(fingerprint: Mapping[str, Any]) -> Fold:
    """Return the ids of a fold; the test split only where it is none of the folds."""
    ids = {split: list(found["ids"]) for split, found in fingerprint.items()}
    fold = {"train": ids["train"], "val": ids["validation"]}
    return fold if ids["test"] == ids["validation"] else fold | {"test": ids["test"]}


def check_folds(folds: Sequence[Fold]) -> None:
    """Refuse folds that do not score every case exactly once.

    Raises:
        InputError: a case validates in two folds or in none, or test splits differ.
    """
    counts = Counter(one for fold in folds for one in fold["val"])
    twice = sorted(one for one, count in counts.items() if count > 1)
    pool = {one for fold in folds for one in fold["train"]}
    for wrong, what in (
        (twice, "in several folds"),
        (sorted(pool - counts.keys()), "in no fold"),
    ):
        if wrong:
            raise InputError(
                f"data.splits: {named_files(wrong, 'more cases')}: validates {what}; "
                "expected every case to validate in one fold; correct the file"
            )
    tests = [set(fold.get("test", ())) for fold in folds]
    for number, test in enumerate(tests):
        if test != tests[0]:
            raise InputError(
                f"data.splits: fold {number} has another test split than fold 0; "
                "expected one for all; correct the file"
            )


_DRAWN_BY = ("folds", "test_fraction", "split_seed", "group_regex")
"""Keys of ``data`` that decide which folds are drawn."""


def _check_same_folds(
    config: ConfigDict, workdir: pathlib.Path, folds: Sequence[Fold]
) -> None:
    """Refuse other folds than those that a cross-validation began with."""
    kept = workdir / SPLITS_FILE
    begun = [one for one in sorted(workdir.glob("fold_*")) if has_checkpoint(one)]
    if not begun or not kept.exists():
        return
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before == folds:
            return
        same_cases = _cases_of(before[0]) == _cases_of(folds[0])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{kept}: cannot be read ({type(error).__name__}: {error}); restore it, or "
            "name another --workdir"
        ) from None
    record = read_record(begun[0]) if same_cases else None
    recorded = {} if record is None else flat_config(record["config"])
    for key in _DRAWN_BY:
        old, new = recorded.get(f"data.{key}"), config.data[key]
        new = len(folds) if key == "folds" and new is None else new
        if old is not None and old != new:
            raise InputError(
                f"--workdir {workdir}: its folds have data.{key}={old!r}, this config "
                f"{new!r}; give {setting(f'data.{key}', old)}, or name another "
                "--workdir"
            )
    raise InputError(
        f"--workdir {workdir}: the folds of the data are no longer those of "
        f"{SPLITS_FILE}, with which it began; restore the images and data.splits, or "
        "name another --workdir"
    )


def _cases_of(fold: Fold) -> set[str]:
    """Return the ids of all cases."""
    return {one for ids in fold.values() for one in ids}


def _give_facts(workdir: pathlib.Path, fold: pathlib.Path) -> None:
    """Give a fold the facts of the cases, so that it does not read all files again."""
    facts, name = workdir / "dataset.json", "dataset.json"
    if facts.exists() and not (fold / name).exists():
        fold.mkdir(parents=True, exist_ok=True)
        with atomic_path(fold / name) as temporary:
            shutil.copyfile(facts, temporary)
