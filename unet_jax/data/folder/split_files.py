"""Reads a file of splits and patients."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from unet_jax.data.folder.splits import SPLIT_NAMES
from unet_jax.errors import InputError

SPLITS_FILE = "splits_final.json"
"""nnU-Net's file of folds, in its preprocessed folder or beside ``dataset.json``."""


class SplitFile(NamedTuple):
    """Content of a file of splits, with the file's names of the cases.

    Attributes:
        ids: ids by split; empty if the file has no splits.
        groups: case and group of each row; None if the file has no such column.
        fold: the fold that is still to be drawn; -1 if the file lists the folds.
        folds: number of folds that the file lists; 0 for none.
    """

    ids: dict[str, list[str]]
    groups: list[tuple[str, str]] | None
    fold: int
    folds: int = 0


def read_splits(path: Path, *, fold: int) -> SplitFile:
    """Read the splits of a JSON or CSV file.

    Args:
        path: JSON ``{"train": [ids], "validation": [ids], "test": [ids]}``, or a list
            of such dicts, one per fold; or CSV with the columns id, split and
            optionally group (the patient); or id and group only, for drawn splits. A
            folder stands for the ``splits_final.json`` in it.

    Raises:
        InputError: the file is missing or has another form.
    """
    path = path / SPLITS_FILE if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"data.splits: {path}: {error.strerror}; expected a JSON or CSV file"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"data.splits: {path}: is not text ({error}); expected JSON or CSV in UTF-8"
        ) from None
    if path.suffix.lower() == ".csv":
        return _read_csv(path, text, fold)
    return _read_json(path, text, fold)


def _read_json(path: Path, text: str, fold: int) -> SplitFile:
    """Read lists of ids by split, or a list of such dicts, one per fold."""
    try:
        content: Any = json.loads(text, object_pairs_hook=_splits_once)
    except _TwiceError as error:
        raise InputError(
            f"data.splits: {path} has the split {error} twice; expected each once; "
            "put its ids into one list"
        ) from None
    except ValueError as error:
        raise InputError(
            f'data.splits: {path} is not JSON ({error}); expected {{"train": [ids], '
            '"validation": [ids], "test": [ids]}'
        ) from None
    left, folds = fold, 0
    if isinstance(content, list):
        folds = len(content)
        if not 0 <= fold < folds:
            raise InputError(
                f"data.fold: found {fold}, expected 0 to {folds - 1}: {path} "
                f"has {folds} folds"
            )
        content, left = content[fold], -1
    splits: dict[str, list[str]] = {}
    for key, ids in content.items() if isinstance(content, dict) else ():
        name = SPLIT_NAMES.get(str(key).lower())
        if name is None or not isinstance(ids, list):
            raise InputError(
                f"data.splits: {path} has {key!r}; expected lists of ids under "
                "'train', 'validation' and 'test'"
            )
        splits[name] = [str(one) for one in ids]
    if not splits.get("train"):
        raise InputError(
            f"data.splits: {path} has no ids under 'train'; expected one or more"
        )
    return SplitFile(splits, None, left, folds)


class _TwiceError(Exception):
    """A split is listed twice, under one name or two names that mean the same."""


def _splits_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict, and refuse a split that is listed twice."""
    names = [SPLIT_NAMES.get(key.lower(), key) for key, _ in pairs]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise _TwiceError(repr(pairs[index][0]))
    return dict(pairs)


def _read_csv(path: Path, text: str, fold: int) -> SplitFile:
    """Read a table with the columns id, split and perhaps group."""
    try:
        rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    except csv.Error as error:
        raise InputError(
            f"data.splits: {path} is not CSV ({error}); expected columns id, split"
        ) from None
    columns = set(rows[0]) if rows else set()
    column = "group" if "group" in columns else "patient"
    if "id" not in columns or not columns & {"split", column}:
        raise InputError(
            f"data.splits: {path} has the columns {sorted(map(str, columns))}, "
            "expected id, and split or group (the patient) or both, separated by commas"
        )
    groups = None
    if column in columns:
        groups = [
            (str(row["id"]).strip(), str(row[column]).strip())
            for row in rows
            if row.get(column)
        ]
    if "split" not in columns:
        return SplitFile({}, groups, fold)
    splits: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=2):
        name = SPLIT_NAMES.get(str(row["split"]).strip().lower())
        if name is None:
            raise InputError(
                f"data.splits: {path} line {number}: split {row['split']!r}, expected "
                "train, validation or test"
            )
        splits.setdefault(name, []).append(str(row["id"]).strip())
    if "train" not in splits:
        raise InputError(
            f"data.splits: {path} has no row of split 'train'; expected one or more"
        )
    return SplitFile(splits, groups, fold)
