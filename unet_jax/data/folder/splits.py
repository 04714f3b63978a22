"""Draws and completes splits; no patient is in two of them."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np

from unet_jax.errors import InputError, named_files

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of the splits in files and folders."""

FEWEST_GROUPS = 3
"""Smallest number of groups to draw splits from; the cases of fewer are cut into slabs.
"""
DEFAULT_FOLDS = 5
"""Number of folds where there are as many groups, or more."""

SPLITS_VERSION = 2
"""Version of the rule that draws splits, which stands in config.json.

Version 1, of unet_jax 0.1, did not look at the classes of the cases.
"""

TRAIN_FRACTION, VALIDATION_FRACTION, GAP_FRACTION = 0.6, 0.2, 0.02
"""Fractions of a single image in its slabs and in the gap between them."""


class Part(NamedTuple):
    """A case of a split, or a slab of one.

    Attributes:
        start: fraction of the case's cut axis at which the slab begins.
        stop: fraction at which it ends.
    """

    id: str
    start: float = 0.0
    stop: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the part is the whole case."""
        return (self.start, self.stop) == (0.0, 1.0)


class Splits(NamedTuple):
    """The cases or slabs of "train", "validation" and "test", and their origin.

    Attributes:
        version: version of the rule that drew them.
        placed: whether slabs are where they are read, see `slabs.fit_slabs`.
        folds: number of folds that these splits are one of; 0 without folds.
    """

    parts: dict[str, tuple[Part, ...]]
    note: str
    version: int = SPLITS_VERSION
    placed: bool = False
    folds: int = 0


Features = Mapping[str, AbstractSet[Hashable]]
"""Classes of each case or group (or what else splits keep a fraction of)."""


def split_folders(ids: Sequence[str]) -> dict[str, list[str]] | None:
    """Take the splits of a data set that lies in folders called train, val and test.

    Returns:
        Ids by split; None if no case lies in a folder called train.

    Raises:
        InputError: some cases lie in such folders, and some do not. Drawing splits of
            all would train on cases of the test split.
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
            f"{named_files(others)}: in no folder of a split, but other cases are in "
            f"{', '.join(splits)}; move them into one of these, or list the cases of "
            "each split in a file and set data.splits"
        )
    return splits


def draw_splits(
    groups: Mapping[str, str],
    *,
    features: Features,
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    fold: int,
    folds: int | None,
) -> Splits:
    """Draw the splits by group.

    Each split gets its fraction of the groups, and of the groups that have a class: of
    three such groups one trains, one validates and one tests, of two one trains and one
    tests. A group with more than half of the cases trains.

    Args:
        groups: group of each case.
        features: classes of each case.
        test_fraction: fraction of the groups for the test split.
        validation_fraction: fraction of the groups for validation without folds.
        folds: parts of the groups outside the test split; None for `DEFAULT_FOLDS`, or
            as many as there are groups.

    Returns:
        The splits; slabs of the cases where there are fewer than `fewest_groups`.

    Raises:
        InputError: more folds than groups, or too few groups for folds.
    """
    names = sorted(set(groups.values()))
    if len(names) < (fewest := fewest_groups(fold, test_fraction)):
        if fold >= 0:
            raise _no_folds(
                f"found {len(names)} group(s), expected {fewest} or more"
                + ", or 2 with data.test_fraction=0" * (fewest == FEWEST_GROUPS)
            )
        return _few_groups(groups, names)
    shuffled, rare = _shuffled(groups, features, seed)
    count = round(test_fraction * len(names))
    count = min(max(count, 1 if test_fraction > 0 else 0), len(names) - 2)
    seats = ["test"] * count + ["others"] * (len(names) - count)
    chosen = _allotted(shuffled, seats, rare, least="test")
    rest = [group for group in shuffled if chosen[group] == "others"]
    folds = _number_of_folds(fold, folds, len(rest))
    validation = _drawn(rest, validation_fraction, fold, folds, rare)
    note = f"{len(names)} groups drawn with data.split_seed={seed}"
    if folds:
        note += f", fold {fold} of {folds}"
    chosen |= {one: "validation" if one in validation else "train" for one in rest}
    parts = {
        split: tuple(
            Part(one) for one in sorted(groups) if chosen[groups[one]] == split
        )
        for split in SPLITS
    }
    if not count:
        parts["test"] = parts["validation"]
        note += "; no test split: the validation split is scored"
    return Splits(parts, note, folds=folds)


def fewest_groups(fold: int, test_fraction: float) -> int:
    """Return the smallest number of groups to draw splits from."""
    return FEWEST_GROUPS - (fold >= 0 and test_fraction == 0)


def _shuffled(
    groups: Mapping[str, str], features: Features, seed: int
) -> tuple[list[str], dict[str, set[Hashable]]]:
    """Shuffle the groups, and find which have what only some of them have.

    A group with more than half of the cases is the last, where training has its place.
    """
    found: dict[str, set[Hashable]] = {group: set() for group in groups.values()}
    for one, group in groups.items():
        found[group] |= features.get(one, set())
    everywhere = set.intersection(*found.values())
    sizes = Counter(groups.values())
    large = {group for group, size in sizes.items() if 2 * size > len(groups)}
    rare = {one: set() if one in large else found[one] - everywhere for one in found}
    shuffled = np.random.default_rng(seed).permutation(sorted(found)).tolist()
    return sorted(shuffled, key=lambda group: group in large), rare


def _allotted(
    groups: Sequence[str], seats: Sequence[str], rare: Features, *, least: str = ""
) -> dict[str, str]:
    """Give each group a seat of a split, and each split its fraction of each feature.

    The rarest feature comes first (Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6
    _10). Groups without one take the seats that are left, in order.

    Args:
        seats: split of each seat, as many as there are groups.
        least: the split that gets a group of every feature that two groups have.
    """
    sizes, free = Counter(seats), Counter(seats)
    chosen: dict[str, str] = {}
    counts = Counter(feature for group in groups for feature in rare[group])
    for feature in sorted(counts, key=lambda one: (counts[one], str(one))):
        holders = [group for group in groups if feature in rare[group]]
        part = {split: len(holders) * n / len(seats) for split, n in sizes.items()}
        if least in part and len(holders) > 1:
            more = min(max(part[least], 1), len(holders) - 1) - part[least]
            part = {
                one: n + (more if one == least else -more) for one, n in part.items()
            }
        for group in holders:
            if group in chosen:
                part[chosen[group]] -= 1
        for group in holders:
            if group not in chosen:
                places = [split for split in part if free[split]]
                split = max(places, key=lambda one: (part[one], free[one]))
                chosen[group] = split
                free[split] -= 1
                part[split] -= 1
    used, left = Counter(chosen.values()), []
    for seat in seats:
        if used[seat]:
            used[seat] -= 1
        else:
            left.append(seat)
    others = [group for group in groups if group not in chosen]
    return chosen | dict(zip(others, left, strict=True))


def _no_folds(what: str) -> InputError:
    """Make the error for folds that would change nothing."""
    return InputError(
        f"data.fold: no folds can be drawn: {what}; train one network "
        "without data.fold and --mode=crossvalidate"
    )


def _number_of_folds(fold: int, folds: int | None, groups: int) -> int:
    """Return the number of folds to draw; 0 without folds."""
    if fold < 0:
        return 0
    folds = min(DEFAULT_FOLDS, groups) if folds is None else folds
    if fold >= folds:
        raise InputError(f"data.fold: found {fold}, expected 0 to {folds - 1}")
    if folds > groups:
        raise InputError(
            f"data.folds: found {folds}, expected at most {groups}, the number of "
            "groups outside the test split; lower it"
        )
    return folds


def _drawn(
    rest: Sequence[str], fraction: float, fold: int, folds: int, rare: Features
) -> set[str]:
    """Choose the groups that validate; without folds, a fraction of them."""
    if not folds:
        count = min(max(round(fraction * len(rest)), 1), len(rest) - 1)
        seats = ["validation"] * count + ["train"] * (len(rest) - count)
        chosen = _allotted(rest, seats, rare, least="validation")
        return {group for group in rest if chosen[group] == "validation"}
    seats = [f"fold {number % folds}" for number in range(len(rest))]
    chosen = _allotted(rest, seats, rare)
    return {group for group in rest if chosen[group] == f"fold {fold}"}


def _few_groups(groups: Mapping[str, str], names: Sequence[str]) -> Splits:
    """Cut cases into slabs if there are too few groups to draw from."""
    note = (
        "slabs of the same image, with a gap between them: such a score says nothing "
        "about new images"
    )
    first = [one for one in sorted(groups) if groups[one] == names[0]]
    validate_at = TRAIN_FRACTION + GAP_FRACTION
    if len(names) == 1:
        test_at = validate_at + VALIDATION_FRACTION - GAP_FRACTION
        bounds = {
            "train": (0.0, TRAIN_FRACTION),
            "validation": (validate_at, test_at),
            "test": (test_at + GAP_FRACTION, 1.0),
        }
        parts = {
            split: tuple(Part(one, *bounds[split]) for one in first) for split in SPLITS
        }
        return Splits(parts, f"1 group: {note}")
    train, validation = slabs(first)
    other = tuple(Part(one) for one in sorted(groups) if groups[one] == names[1])
    parts = {"train": train, "validation": validation, "test": other}
    return Splits(parts, f"2 groups: one is the test split, the other {note}")


def slabs(ids: Sequence[str]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Cut each case into a slab for training and one for validation."""
    stop = 1 - VALIDATION_FRACTION - GAP_FRACTION
    train = tuple(Part(one, 0.0, stop) for one in ids)
    return train, tuple(Part(one, stop + GAP_FRACTION, 1.0) for one in ids)


def named_splits(
    named: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    *,
    features: Features,
    seed: int,
    validation_fraction: float,
    fold: int,
    folds: int | None,
) -> Splits:
    """Complete the splits that a user gives.

    Args:
        named: ids by split, all of them ids of ``groups``.
        features: classes of each case.
        seed: seed of the draw of a validation split that is not given.
        validation_fraction: fraction of the training groups for that validation split.
        folds: number of parts of the training groups; None as for `draw_splits`.

    Raises:
        InputError: more folds than groups, or no groups to draw folds from.
    """
    parts = {
        split: tuple(Part(one) for one in named.get(split, ())) for split in SPLITS
    }
    note = "taken from the file of splits, or from the folders"
    if parts["validation"] and fold >= 0:
        raise _no_folds(
            'there are cases under "validation", so that there is nothing to draw'
        )
    found = 0
    if not parts["validation"]:
        names = sorted({groups[one] for one in named["train"]})
        if len(names) < 2:
            if fold >= 0:
                raise _no_folds("there are training cases of one group only")
            parts["train"], parts["validation"] = slabs(list(named["train"]))
            note += "; validation on a slab of the training images"
        else:
            training = {one: groups[one] for one in named["train"]}
            shuffled, rare = _shuffled(training, features, seed)
            found = _number_of_folds(fold, folds, len(shuffled))
            chosen = _drawn(shuffled, validation_fraction, fold, found, rare)
            cases = parts["train"]
            parts["train"] = tuple(p for p in cases if groups[p.id] not in chosen)
            parts["validation"] = tuple(p for p in cases if groups[p.id] in chosen)
            note += f"; validation drawn from train with data.split_seed={seed}"
    if not parts["test"]:
        parts["test"] = parts["validation"]
        note += "; no test split: the validation split is scored"
    return Splits(parts, note, folds=found)
