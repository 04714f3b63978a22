"""Finds the group (patient) of each case of a folder, and doubts what is none."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from unet_jax.data.folder.channels import same_form
from unet_jax.data.folder.pairing import Layout
from unet_jax.data.folder.splits import FEWEST_GROUPS
from unet_jax.errors import named_files, setting

_FEW_FOLDERS, _LARGE_FOLDER = 10, 5
"""Fewer folders than the first number, with on average at least the second number of
cases each, are taken for patients only if their names say so."""

_SMALLEST_SET = 12
"""In smaller sets a folder may hold more than half of the cases."""

_PATIENT = re.compile(
    r"(p|pt|pat|patient|s|sub|subj|subject|case|person|participant|volunteer|donor"
    r"|mouse|rat|animal|id)[-_. ]?\w*\d|.*\d{3,}.*",
    re.IGNORECASE,
)
"""Names of folders that are patients: p1, sub-02, Case_17, 00123, TCGA_CS_4941."""

_CLASS_WORDS = frozenset(
    {
        *("benign", "malignant", "normal", "abnormal", "healthy", "sick", "diseased"),
        *("disease", "positive", "negative", "pos", "neg", "tumor", "tumour", "cancer"),
        *("no_tumor", "notumor", "no_tumour", "control", "controls", "pathological"),
        *("with", "without", "yes", "no", "background", "foreground", "defect", "good"),
    }
)
"""Names of folders that sort images by what they show."""

_LOOKS = (
    r"^(.*\d)\D+\d+\D*$",  # p1_00, patient01_slice003, p1s03
    r"^(.*[^\W\d_])[\W_]+\D*\d+\D*$",  # anna_01
)
"""Expressions for ids that end with the number of a slice or visit."""

_TILE = r"^(.+)[\W_]+[xrXR]?(\d+)[\W_]+[ycYC]?(\d+)$"
"""Expression for ids that end with the place of a tile in a large image."""

_TILE_STEP = 8
"""Places of tiles are multiples of this number of pixels."""

_YEAR = re.compile(r"(^|.*\D)(19|20)\d\d")


class Groups(NamedTuple):
    """The group of each case.

    Attributes:
        of: group by id; the id itself for a case that is its own group.
        origin: what the groups were taken from; "" for cases that are their own.
        folders: outermost folder of each case whose group is another, by id; drawn
            splits keep the fraction of each.
    """

    of: dict[str, str]
    origin: str
    folders: dict[str, str]
    problems: list[str]


def find_groups(layout: Layout, regex: str, *, version: int) -> Groups:
    """Find the patient of each case.

    Args:
        regex: regular expression that finds the patient in an id; "" takes the folder
            of the case. Of nested folders it takes the outermost level that has at
            least three. Folders named for what their images show, and one folder for
            all cases, are no patients.
        version: version of the rule; 1 takes every folder for a patient.

    Returns:
        The group of every id (its folder where the expression finds none), and the
        problems.
    """
    of = _by_folder(layout, version)
    problems: list[str] = []
    origin = "folders" if any(one != group for one, group in of.items()) else ""
    if regex:
        origin, problems = "data.group_regex", _by_regex(layout, regex, of)
    folders = {
        pair.id: pair.patient.partition("/")[0]
        for pair in layout.pairs
        if pair.patient and of[pair.id] != pair.patient.partition("/")[0]
    }
    if len(set(folders.values())) >= _FEW_FOLDERS:
        folders = {}
    return Groups(of, origin, folders, problems)


def _by_regex(layout: Layout, regex: str, of: dict[str, str]) -> list[str]:
    """Put the groups that an expression finds into a mapping; return the problems."""
    try:
        pattern = re.compile(same_form(regex))
    except re.error as error:
        return [
            f"data.group_regex: {regex!r} is no regular expression ({error}); fix it"
        ]
    problems = []
    for pair in layout.pairs:
        match = pattern.search(same_form(pair.id))
        found = match and (match[1] if pattern.groups else match[0])
        if found is None:
            what = "group 1 of " if match else ""
            problems.append(
                f"{pair.images[0]}: {what}data.group_regex {regex!r} does not match "
                f"its id {pair.id!r}; fix the expression"
            )
        else:
            of[pair.id] = found
    return problems


def _by_folder(layout: Layout, version: int) -> dict[str, str]:
    """Take the folder of each case; a patient's folder may hold one per visit."""
    folders = {pair.id: pair.patient.split("/") for pair in layout.pairs}
    own = {one: one for one in folders}
    groups = own
    for level in range(1, 1 + max(map(len, folders.values()), default=0)):
        here = {names[level - 1] for names in folders.values() if len(names) >= level}
        if version > 1 and any(map(is_class_folder, here)):
            continue
        groups = {one: "/".join(names[:level]) or one for one, names in folders.items()}
        if len(set(groups.values())) >= FEWEST_GROUPS:
            break
    found = set(groups.values())
    if version > 1 and len(found) == 1 and not _is_patient(*found):
        return own
    return groups


def is_class_folder(name: str) -> bool:
    """Return whether a folder is named for what its images show."""
    return name.lower() in _CLASS_WORDS


def _is_patient(folder: str) -> bool:
    """Return whether a folder has the name of a patient, and not that of a year."""
    name = folder.rpartition("/")[2]
    year = re.fullmatch(r"(19|20)\d\d", name)
    return year is None and _PATIENT.fullmatch(name) is not None


def doubtful_folders(groups: Groups) -> str:
    """Write that folders may be no patients; "" where they plainly are.

    Whole folders validate and test: if they sort images by what these show, one class
    trains and another one is scored.
    """
    if groups.origin != "folders":
        return ""
    sizes = Counter(groups.of.values())
    cases = len(groups.of)
    doubted = {
        group: size
        for group, size in sizes.items()
        if size > 1 and not _is_patient(group)
    }
    few = len(sizes) < _FEW_FOLDERS and cases >= _LARGE_FOLDER * len(sizes)
    most = max(doubted.values(), default=0)
    if not doubted or not (few or (2 * most > cases and cases >= _SMALLEST_SET)):
        return ""
    shown = [f"{group} ({size} cases)" for group, size in sorted(doubted.items())]
    return (
        f"the folders {named_files(shown)} are taken for patients, but are few and "
        "large; expected splits that hold a part of each. If each case is a patient of "
        f"its own, set {setting('data.group_regex', '.+')}; if each folder is one, set "
        f"{setting('data.group_regex', '^[^/]+')}"
    )


def describe_groups(groups: Groups) -> str:
    """Write what was taken for a group, and how many cases the groups have."""
    sizes = Counter(groups.of.values())
    if len(sizes) == len(groups.of):
        line = f"each of the {len(sizes)} cases is a group of its own"
        folders = sorted(
            {groups.folders[one] for one in groups.of if one in groups.folders}
        )
        if len(folders) > 1:
            line += f"; each split gets its part of the folders {named_files(folders)}"
        return line
    low, high = min(sizes.values()), max(sizes.values())
    each = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"{len(sizes)}, from {groups.origin} ({named_files(sorted(sizes))}), with "
        f"{each} cases each"
    )


def _are_tiles(ids: Iterable[str]) -> bool:
    """Return whether all ids end with two places on a grid of pixels."""
    found = [re.match(_TILE, one) for one in ids]
    places = [int(part) for match in found if match for part in match.groups()[1:]]
    on_grid = all(place % _TILE_STEP == 0 for place in places)
    return None not in found and on_grid and any(places)


def cut_groups(groups: Groups, splits: Mapping[str, Iterable[str]]) -> str:
    """Write that ids look like groups which the splits cut; "" if not.

    Args:
        splits: ids by split.
    """
    of = groups.of
    if any(one != group for one, group in of.items()):
        return ""
    for regex in (_TILE, *_LOOKS) if _are_tiles(of) else _LOOKS:
        looks: dict[str, str] = {}
        for one in of:
            match = re.match(regex, one)
            if match is None:
                break
            looks[one] = match[1]
        sizes = Counter(looks.values())
        if len(looks) < len(of) or not 2 <= len(sizes) <= len(of) / 2:
            continue
        names = {one.rpartition("/")[2] for one in sizes}
        if all(_YEAR.fullmatch(one) or is_class_folder(one) for one in names):
            continue
        folders = {(looks[one], folder) for one, folder in groups.folders.items()}
        if len(folders) == len(sizes) == len(set(groups.folders.values())):
            continue  # covid/covid_1 has the name of its folder, which is no patient
        places: dict[str, set[str]] = {}
        for split, ids in splits.items():
            for one in ids:
                places.setdefault(looks[one], set()).add(split)
        cut = {group: found for group, found in places.items() if len(found) > 1}
        if cut:
            group, found = next(iter(cut.items()))
            return (
                f"WARNING: ids look like groups ({named_files(sorted(sizes))}), and "
                f"{group} is in {' and in '.join(sorted(found))}. If these are "
                "patients, the scores are too good; set "
                f"{setting('data.group_regex', regex)}"
            )
    return ""
