"""Which patient a case of a folder belongs to, and which split a user put it in."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_jax.data.folder.find import Layout
from unet_jax.data.folder.split_files import read_splits
from unet_jax.data.folder.splits import FEWEST_GROUPS, split_folders
from unet_jax.errors import InputError, named_files


class NamedSplits(NamedTuple):
    """What a file, or the folders, say of the splits.

    Attributes:
        ids: of each split; None where they have to be drawn, none where there are
            only problems.
        fold: which of the folds validates, where validation is drawn; -1 for none.
        problems: a line each.
    """

    ids: dict[str, list[str]] | None
    fold: int
    problems: list[str]


def find_groups(layout: Layout, regex: str) -> tuple[dict[str, str], list[str]]:
    """Return the patient of each case.

    Args:
        layout: the cases.
        regex: finds the patient in an id; "" for the folder it lies in: of folders in
            folders the outermost ones, if there are at least three to be split.

    Returns:
        The group of every id (its own where the expression finds none), and problems.
    """
    groups = _patients(layout)
    if not regex:
        return groups, []
    try:
        pattern = re.compile(regex)
    except re.error as error:
        return groups, [f"data.group_regex: {regex!r}: {error}"]
    problems = []
    for pair in layout.pairs:
        match = pattern.search(pair.id)
        found = match and (match[1] if pattern.groups else match[0])
        if found is None:
            what = "group 1 of " if match else ""
            problems.append(
                f"{pair.images[0]}: {what}data.group_regex {regex!r} is not in its id "
                f"{pair.id!r}; fix the expression"
            )
        else:
            groups[pair.id] = found
    return groups, problems


def _patients(layout: Layout) -> dict[str, str]:
    """The folder of each case: a patient's visits are folders in the patient's."""
    folders = {pair.id: pair.patient.split("/") for pair in layout.pairs}
    groups: dict[str, str] = {}
    for level in range(1, 1 + max(map(len, folders.values()), default=0)):
        groups = {one: "/".join(names[:level]) or one for one, names in folders.items()}
        if len(set(groups.values())) >= FEWEST_GROUPS:
            break
    return groups


def find_splits(
    layout: Layout,
    groups: dict[str, str],
    *,
    path: Path,
    file: str,
    fold: int,
    by_regex: bool,
) -> NamedSplits:
    """Take the splits of a file, or of folders called train, val and test.

    Args:
        layout: the cases.
        groups: of each id; what a file says of them is put in.
        path: of the folder.
        file: of splits; "" for none.
        fold: which of the folds validates; -1 for none.
        by_regex: the groups are those of an expression, not of folders.

    Returns:
        The ids of each split; none where a problem leaves none.
    """
    ids = [pair.id for pair in layout.pairs]
    if not file:
        try:
            named = split_folders(ids)
        except InputError as error:
            return NamedSplits({}, fold, [f"{path}: {error}"])
        if named is None:
            return NamedSplits(None, fold, [])
        if not by_regex:
            # The folder of a split is no patient; the outermost inside it is.
            for pair in layout.pairs:
                _, *inside = pair.patient.split("/")
                groups[pair.id] = inside[0] if inside else pair.id
        return NamedSplits(named, fold, _cut_groups(named, groups, path))
    source = Path(file).expanduser()
    try:
        given = read_splits(source, fold=fold)
    except InputError as error:
        return NamedSplits({}, fold, [str(error)])
    found, problems = _resolved(given.ids, ids, source)
    if given.groups is not None:
        used = {one for split in found.values() for one in split} if found else set(ids)
        problems += _take_groups(
            given.groups, groups, ids, source, used, bool(given.ids)
        )
    problems += _cut_groups(found, groups, source)
    return NamedSplits(found or None, given.fold, problems)


def _take_groups(
    rows: Sequence[tuple[str, str]],
    groups: dict[str, str],
    ids: Sequence[str],
    path: Path,
    used: set[str],
    named: bool,
) -> list[str]:
    """Put the column of a file into the groups, and name what does not fit."""
    problems = []
    column: dict[str, str] = {}
    for one, group in rows:
        found, unknown = _resolved({"group": [one]}, ids, path)
        if not named:  # else the same names were looked for in the splits
            problems += unknown
        for case in found["group"]:
            if column.setdefault(case, group) != group:
                problems.append(
                    f"{path}: case {case!r} has the groups {column[case]!r} and "
                    f"{group!r}; expected one; remove a row"
                )
    without = sorted(used - column.keys())
    if without:
        problems.append(
            f"{path}: no group for {named_files(without, 'more cases')}; expected a "
            "row with the patient of every case; add them"
        )
    groups |= column
    return problems


def _resolved(
    named: Mapping[str, Sequence[str]], ids: Sequence[str], path: Path
) -> tuple[dict[str, list[str]], list[str]]:
    """Find the case of each name in a file of splits: its id, its end, or its file."""
    ends: dict[str, list[str]] = {}
    for one in ids:
        ends.setdefault(one.rpartition("/")[2], []).append(one)
    known = set(ids)
    result: dict[str, list[str]] = {}
    problems = []
    for split, names in named.items():
        result[split] = []
        for name in names:
            stem = re.sub(r"(_0000)?\.(nii\.gz|\w+)$", "", name)
            candidates = [one for one in (name, stem) if one in known]
            candidates += ends.get(name, []) or ends.get(stem.rpartition("/")[2], [])
            if not candidates or (
                candidates[0] not in (name, stem) and len(candidates) > 1
            ):
                what = "is in no file's name" if not candidates else "is ambiguous"
                problems.append(
                    f"{path}: {name!r} under {split} {what}; expected ids such as "
                    f"{ids[0]!r}"
                )
            elif candidates[0] in result[split]:
                problems.append(
                    f"{path}: {name!r} under {split} is there again; expected a case "
                    "once; remove it"
                )
            else:
                result[split].append(candidates[0])
    return result, problems


def _cut_groups(
    named: Mapping[str, Sequence[str]], groups: Mapping[str, str], path: Path
) -> list[str]:
    """Name groups and cases that a file of splits has in two of them."""
    seen: dict[str, tuple[str, str]] = {}
    problems = []
    for split, ids in named.items():
        for one in ids:
            group = groups.get(one, one)
            other, first = seen.setdefault(group, (split, one))
            if other != split:
                what, fix = f"case {one!r}", "move it"
                if one != first:
                    what = f"group {group!r}"
                    fix += ", or set data.group_regex where a folder is no patient"
                problems.append(
                    f"{path}: {what} is in {other} ({first}) and in {split} ({one}); "
                    f"expected a group in one split; {fix}"
                )
    return problems
