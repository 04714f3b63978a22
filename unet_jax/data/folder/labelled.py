"""Reads which classes were labelled in each case: ``data.labelled_classes``."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.data.case_traits import CaseTraits
from unet_jax.data.label_map import Entry, LabelMap
from unet_jax.errors import InputError, named_files, setting
from unet_jax.labels import IGNORE
from unet_jax.runtime.home import expanded

Labelled = Mapping[str, tuple[int, ...]]
"""Indices of the labelled classes by id of the case; a case that is not in it has all
classes labelled."""

Rows = Sequence[tuple[str, Sequence[str]]]
"""Names of cases, or patterns such as ``"liver_*"``, with the names of classes."""


def find_labelled(
    given: str | Rows, *, ids: Sequence[str], class_names: Sequence[str]
) -> Labelled:
    """Find which classes are labelled in each case.

    Args:
        given: a CSV file with the header ``case,class`` and a row for each class of a
            case (further cells are further classes), or such rows; "" or () for none.
        ids: ids of all cases. A name of a case may be a pattern with ``*`` and ``?``.
        class_names: name of each class; the background is labelled in every case.

    Raises:
        InputError: the file is missing or has another form, or a row names a case or a
            class that is not there, or no class.
    """
    if not given:
        return {}
    rows, where = _rows(given)
    found: dict[str, set[int]] = {}
    for pattern, names in rows:
        cases = [one for one in ids if one == pattern or fnmatchcase(one, pattern)]
        if not cases:
            raise InputError(
                f"{where}: there is no case {pattern!r}; expected an id such as "
                f"{ids[0]!r}, or a pattern with *; correct or remove the row"
            )
        unknown = [name for name in names if name not in class_names]
        if unknown or not names:
            what = f"unknown class {unknown[0]!r}" if unknown else "no class"
            raise InputError(
                f"{where}: case {pattern!r} has {what}; expected any of "
                f"{', '.join(class_names)}; correct the row"
            )
        for one in cases:
            found.setdefault(one, {0}).update(class_names.index(n) for n in names)
    return {
        one: tuple(sorted(indices))
        for one, indices in found.items()
        if len(indices) < len(class_names)
    }


def _rows(given: str | Rows) -> tuple[Rows, str]:
    """Return the rows of a config or a CSV file, and where they are from."""
    key = "data.labelled_classes"
    if isinstance(given, str):
        path = Path(expanded(given))
        return _read_rows(path, f"{key}: {path}"), f"{key}: {path}"
    try:
        return [(str(case), _names(names)) for case, names in given], key
    except (TypeError, ValueError):
        example = setting(key, (("liver_*", ("liver",)),))
        raise InputError(
            f"{key}: found {given!r}, expected a CSV file, or pairs of a case and its "
            f"classes; write {example}"
        ) from None


def _names(names: Any) -> tuple[str, ...]:
    """Return names of classes; a single one may stand alone."""
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def _read_rows(path: Path, where: str) -> Rows:
    """Read the rows of a CSV file with the header ``case,class``."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{where}: {reason}; expected a CSV file with the columns case, class"
        ) from None
    mark = ";" if lines and ";" in lines[0] else ","
    table = [
        [cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)
    ]
    header, *rows = table or [[""]]
    if header[0] != "case" or len(header) < 2:
        raise InputError(
            f"{where}: the header is {mark.join(header)!r}, expected 'case,class'; add "
            "it, with a row for each labelled class of a case"
        )
    return [(row[0], tuple(filter(None, row[1:]))) for row in rows if any(row)]


def describe_labelled(
    labelled: Labelled,
    traits: Iterable[CaseTraits],
    *,
    class_names: Sequence[str],
    label_map: Sequence[Entry],
) -> list[str]:
    """Write how many cases have which classes labelled, and what is not read of them.

    Args:
        traits: the cases that are read.
    """
    if not labelled:
        return []
    known = LabelMap(label_map, num_classes=len(class_names))
    counts: dict[tuple[int, ...] | None, int] = {}
    drawn: dict[str, list[str]] = {}
    for case in traits:
        classes = labelled.get(case.id)
        counts[classes] = counts.get(classes, 0) + 1
        stored = np.array(list(case.values), np.int64)
        found = set(known(stored, where=case.masks[0]).tolist())
        for index in () if classes is None else sorted(found - {*classes, IGNORE}):
            drawn.setdefault(class_names[index], []).append(case.id)
    parts = [
        f"{count} with " + ("all" if one is None else names_of(one, class_names))
        for one, count in sorted(counts.items(), key=lambda item: item[0] or ())
    ]
    return [
        f"labelled classes: {', '.join(parts)}; of the other classes a case says "
        "nothing, and neither loss nor score reads them there",
        *(
            f"WARNING: {named_files(cases)} has pixels of {name!r}, which "
            "data.labelled_classes does not name there; they are not read"
            for name, cases in drawn.items()
        ),
    ]


def names_of(classes: Sequence[int], class_names: Sequence[str]) -> str:
    """List classes by name, without the background."""
    return " and ".join(class_names[index] for index in classes if index) or "none"


def unlabelled_problems(
    labelled: Labelled, trained: Iterable[str], class_names: Sequence[str]
) -> list[str]:
    """Write which classes are labelled in no training case.

    Args:
        trained: ids of the training cases.
    """
    every = tuple(range(len(class_names)))
    seen = {index for one in trained for index in labelled.get(one, every)}
    return [
        f"data.labelled_classes: no training case has {class_names[index]!r} labelled; "
        "expected at least one; correct it, or leave the class out of data.class_names"
        for index in every
        if index not in seen
    ]
