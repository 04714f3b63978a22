"""Which cases train, which validate and which are scored: never a patient in two."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unet_jax.errors import InputError, named_files

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What files and folders call the splits."""

FEWEST_GROUPS = 3
"""That splits are drawn of; the cases of fewer are cut into slabs."""
TRAIN_SHARE, VALIDATION_SHARE, GAP_SHARE = 0.6, 0.2, 0.02
"""Shares of a single image that its slabs have."""


class Part(NamedTuple):
    """A case of a split, or a slab of one.

    Attributes:
        id: of the case.
        start: share of the case's cut axis where the slab begins; 0 for all of it.
        stop: where it ends; 1 for all of it.
    """

    id: str
    start: float = 0.0
    stop: float = 1.0


class Splits(NamedTuple):
    """The cases of each split.

    Attributes:
        parts: of "train", "validation" and "test".
        groups: patient of each case, where the file of splits says so.
        note: how the splits came about.
    """

    parts: dict[str, tuple[Part, ...]]
    groups: dict[str, str]
    note: str


def split_folders(ids: Sequence[str]) -> dict[str, list[str]] | None:
    """Take the splits of a data set that lies in folders called train, val and test.

    Args:
        ids: of the cases; paths.

    Returns:
        Ids by split; None where no case lies in a folder called train.

    Raises:
        InputError: some lie in such folders, and some do not. To draw splits of all
            would train on what is called the test split.
    """
    splits: dict[str, list[str]] = {}
    others = []
    for one in ids:
        first, slash, _ = one.partition("/")
        name = SPLIT_NAMES.get(first.lower()) if slash else None
        if name is None:
            others.append(one)
        else:
            splits.setdefault(name, []).append(one)
    if "train" not in splits:
        return None
    if others:
        raise InputError(
            f"{named_files(others)}: in no folder of a split, where others lie "
            f"in {', '.join(splits)}; move them into one of those, or name the cases "
            "of each split in a file, data.splits"
        )
    return splits


def draw_splits(
    groups: Mapping[str, str],
    *,
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    fold: int,
    folds: int,
) -> Splits:
    """Draw the splits by group.

    Args:
        groups: the group of each case.
        seed: of the draw.
        test_fraction: share of the groups for the test split.
        validation_fraction: share of the groups for validation, where there is no fold.
        fold: which of the folds validates; -1 for none.
        folds: parts that all groups but those of the test split are cut into.

    Returns:
        The splits; with fewer than three groups, slabs of their cases.

    Raises:
        InputError: more folds than groups, or too few groups for any.
    """
    names = sorted(set(groups.values()))
    if len(names) < FEWEST_GROUPS:
        if fold >= 0:
            raise _no_folds(fold, f"too few groups ({len(names)}) to draw folds of")
        return _few_groups(groups, names)
    shuffled = np.random.default_rng(seed).permutation(names).tolist()
    count = round(test_fraction * len(names))
    count = min(max(count, 1 if test_fraction > 0 else 0), len(names) - 2)
    test, rest = set(shuffled[:count]), shuffled[count:]
    validation = _drawn(rest, validation_fraction, fold, folds)
    note = f"{len(names)} groups drawn with data.split_seed={seed}"
    if fold >= 0:
        note += f", fold {fold} of {folds}"
    chosen = {
        group: "test"
        if group in test
        else "validation"
        if group in validation
        else "train"
        for group in names
    }
    parts = {
        split: tuple(
            Part(one) for one in sorted(groups) if chosen[groups[one]] == split
        )
        for split in SPLITS
    }
    if not test:
        parts["test"] = parts["validation"]
        note += "; no test split: the validation split is scored"
    return Splits(parts, {}, note)


def _no_folds(fold: int, what: str) -> InputError:
    """Make the refusal of a fold that would change nothing."""
    return InputError(
        f"data.fold: found {fold}, expected -1: there are {what}; leave data.fold out"
    )


def _drawn(rest: Sequence[str], share: float, fold: int, folds: int) -> set[str]:
    """Choose the groups that validate."""
    if fold < 0:
        return set(rest[: min(max(round(share * len(rest)), 1), len(rest) - 1)])
    if fold >= folds:
        raise InputError(f"data.fold: found {fold}, expected 0 to {folds - 1}")
    if folds > len(rest):
        raise InputError(
            f"data.folds: found {folds}, expected at most {len(rest)}, the groups that "
            "are not in the test split"
        )
    return set(rest[fold::folds])


def _few_groups(groups: Mapping[str, str], names: Sequence[str]) -> Splits:
    """Cut cases into slabs where there are too few groups to draw from."""
    note = (
        "slabs of the same image, with a gap between them: such a score is no claim "
        "about new images"
    )
    first = [one for one in sorted(groups) if groups[one] == names[0]]
    validate_at = TRAIN_SHARE + GAP_SHARE
    if len(names) == 1:
        test_at = validate_at + VALIDATION_SHARE - GAP_SHARE
        bounds = {
            "train": (0.0, TRAIN_SHARE),
            "validation": (validate_at, test_at),
            "test": (test_at + GAP_SHARE, 1.0),
        }
        parts = {
            split: tuple(Part(one, *bounds[split]) for one in first) for split in SPLITS
        }
        return Splits(parts, {}, f"1 group: {note}")
    train, validation = slabs(first)
    other = tuple(Part(one) for one in sorted(groups) if groups[one] == names[1])
    parts = {"train": train, "validation": validation, "test": other}
    return Splits(parts, {}, f"2 groups: one is the test split, the other {note}")


def slabs(ids: Sequence[str]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Cut each case into a slab for training and one for validation.

    Args:
        ids: of the cases.

    Returns:
        The parts for training and for validation.
    """
    stop = 1 - VALIDATION_SHARE - GAP_SHARE
    train = tuple(Part(one, 0.0, stop) for one in ids)
    return train, tuple(Part(one, stop + GAP_SHARE, 1.0) for one in ids)


def named_splits(
    named: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    *,
    seed: int,
    validation_fraction: float,
    fold: int,
    folds: int,
) -> Splits:
    """Complete the splits that a user named.

    Args:
        named: ids by split; they are those of ``groups``.
        groups: the group of each case.
        seed: of the draw of a validation split that is not named.
        validation_fraction: its share of the training groups.
        fold: which of the folds validates; -1 for none.
        folds: parts of the training groups.

    Returns:
        The splits.

    Raises:
        InputError: more folds than groups, or nothing to draw them of.
    """
    parts = {
        split: tuple(Part(one) for one in named.get(split, ())) for split in SPLITS
    }
    note = "as the file of splits, or the folders, say"
    if parts["validation"] and fold >= 0:
        raise _no_folds(
            fold, 'cases under "validation", so that there is nothing to draw'
        )
    if not parts["validation"]:
        names = sorted({groups[one] for one in named["train"]})
        if len(names) < 2:
            if fold >= 0:
                raise _no_folds(fold, "training cases of one group alone")
            parts["train"], parts["validation"] = slabs(list(named["train"]))
            note += "; validation on a slab of the training images"
        else:
            shuffled = np.random.default_rng(seed).permutation(names).tolist()
            chosen = _drawn(shuffled, validation_fraction, fold, folds)
            cases = parts["train"]
            parts["train"] = tuple(p for p in cases if groups[p.id] not in chosen)
            parts["validation"] = tuple(p for p in cases if groups[p.id] in chosen)
            note += f"; validation drawn from train with data.split_seed={seed}"
    if not parts["test"]:
        parts["test"] = parts["validation"]
        note += "; no test split: the validation split is scored"
    return Splits(parts, {}, note)
