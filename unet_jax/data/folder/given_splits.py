"""Takes the splits that a user gives, in a file or as folders."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.groups import is_class_folder
from unet_jax.data.folder.pairing import Layout
from unet_jax.data.folder.split_files import read_splits
from unet_jax.data.folder.splits import split_folders
from unet_jax.errors import InputError, named_files
from unet_jax.runtime.home import expanded
from unet_jax.runtime.unknown_bytes import printable


class GivenSplits(NamedTuple):
    """Splits as a file, or folders, give them.

    Attributes:
        ids: ids of each split; None if the splits have to be drawn, empty if there are
            only problems.
        fold: the fold that validates, if validation is drawn; -1 for none.
        folds: number of folds that the file lists; 0 for none.
    """

    ids: dict[str, list[str]] | None
    fold: int
    problems: list[str]
    folds: int = 0


def find_splits(
    layout: Layout,
    groups: dict[str, str],
    *,
    path: Path,
    file: str,
    fold: int,
    by_regex: bool,
) -> GivenSplits:
    """Take the splits from a file, or from folders called train, val and test.

    Args:
        groups: group of each id; replaced by the groups in the file, if it has some.
        file: JSON or CSV file of splits; "" for none.
        by_regex: whether the groups come from an expression, not from folders.
    """
    ids = [pair.id for pair in layout.pairs]
    if layout.test and not file:
        test = dict.fromkeys(layout.test)
        named = {"train": [one for one in ids if one not in test], "test": list(test)}
        return GivenSplits(named, fold, _cut_groups(named, groups, path))
    if not file:
        try:
            inside = split_folders(ids)
        except InputError as error:
            return GivenSplits({}, fold, [f"{path}: {error}"])
        if inside is None:
            return GivenSplits(None, fold, [])
        if not by_regex:
            # The folder of a split is no patient, nor is one of a class; the outermost
            # other folder in it is.
            for pair in layout.pairs:
                _, *names = pair.patient.split("/")
                patients = [name for name in names if not is_class_folder(name)]
                groups[pair.id] = patients[0] if patients else pair.id
        return GivenSplits(inside, fold, _cut_groups(inside, groups, path))
    source = Path(expanded(file))
    try:
        given = read_splits(source, fold=fold)
    except InputError as error:
        return GivenSplits({}, fold, [str(error)])
    found, problems = _resolved(given.ids, ids, source)
    if found and "test" not in found and layout.test:
        found["test"] = list(layout.test)
    if given.groups is not None:
        used = {one for split in found.values() for one in split} if found else set(ids)
        problems += _take_groups(
            given.groups, groups, ids, source, used, bool(given.ids)
        )
    problems += _cut_groups(found, groups, source)
    return GivenSplits(found or None, given.fold, problems, given.folds)


def _take_groups(
    rows: Sequence[tuple[str, str]],
    groups: dict[str, str],
    ids: Sequence[str],
    path: Path,
    used: set[str],
    named: bool,
) -> list[str]:
    """Put the group column of a file into the groups, and list problems."""
    problems = []
    column: dict[str, str] = {}
    for one, group in rows:
        found, unknown = _resolved({"group": [one]}, ids, path)
        if not named:  # else the splits have reported the same names
            problems += unknown
        for case in found["group"]:
            if column.setdefault(case, same_form(group)) != same_form(group):
                problems.append(
                    f"{path}: case {case!r} has the groups {column[case]!r} and "
                    f"{group!r}; expected one; remove a row"
                )
    without = sorted(used - column.keys())
    if without:
        problems.append(
            f"{path}: no group for {named_files(without, 'more cases')}; expected a "
            "row with the patient of every case; add the rows"
        )
    groups |= column
    return problems


def _resolved(
    named: Mapping[str, Sequence[str]], ids: Sequence[str], path: Path
) -> tuple[dict[str, list[str]], list[str]]:
    """Find the case of each name in a file of splits: an id, its end, or a file."""
    # Messages show names that are not UTF-8 as `printable` writes them.
    known = {form: one for one in ids for form in (same_form(one), printable(one))}
    ends: dict[str, list[str]] = {}
    for key, one in known.items():
        ends.setdefault(key.rpartition("/")[2], []).append(one)
    result: dict[str, list[str]] = {}
    problems = []
    for split, names in named.items():
        found: dict[str, None] = {}
        for name in map(same_form, names):
            stem = re.sub(r"(_0000)?\.(nii\.gz|\w+)$", "", name)
            exact = [known[one] for one in (name, stem) if one in known][:1]
            candidates = exact or ends.get(name) or ends.get(stem.rpartition("/")[2])
            if not candidates or len(set(candidates)) > 1:
                what = "matches no file" if not candidates else "is ambiguous"
                problems.append(
                    f"{path}: {name!r} under {split} {what}; expected ids such as "
                    f"{ids[0]!r}"
                )
            elif candidates[0] in found:
                problems.append(
                    f"{path}: {name!r} under {split} is listed twice; expected each "
                    "case once; remove one"
                )
            else:
                found[candidates[0]] = None
        result[split] = list(found)
    return result, problems


def _cut_groups(
    named: Mapping[str, Sequence[str]], groups: Mapping[str, str], path: Path
) -> list[str]:
    """List groups and cases that are in two splits."""
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
                    fix += ", or set data.group_regex if a folder is no patient"
                problems.append(
                    f"{path}: {what} is in {other} ({first}) and in {split} ({one}); "
                    f"expected each group in one split; {fix}"
                )
    return problems
