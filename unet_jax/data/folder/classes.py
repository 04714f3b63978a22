"""Finds the classes of a folder's masks, and proposes a label map."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from unet_jax.data.case import IGNORE
from unet_jax.data.label_map import VOID, Entry, LabelMap, listed
from unet_jax.errors import named_files, setting

_MAX_CLASSES = 64
_RARE = 0.1
"""Messages name the files of values that at most this fraction of the masks have."""

_BACKGROUND = frozenset({"background", "bg", "other", "none", "void", "unlabelled"})
"""Names of class 0 that show that a list of names has one for it."""

FileOf = Callable[[str, AbstractSet[int]], str]
"""Function from the id of a case and some values to its file that has one of them."""


class Classes(NamedTuple):
    """Meaning of the stored values.

    Attributes:
        names: name of each class; () if the values are no classes.
        label_map: stored values and their classes; a proposed map if there are
            problems.
    """

    names: tuple[str, ...]
    label_map: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def noted(self, notes: Iterable[str]) -> "Classes":
        """Return the classes with more notes."""
        return self._replace(notes=(*self.notes, *notes))


def find_classes(
    masks: Mapping[str, Mapping[int, int]],
    *,
    class_names: tuple[str, ...] | None,
    label_map: Sequence[Entry],
    file_of: FileOf,
) -> Classes:
    """Find the classes.

    Args:
        masks: number of pixels of each stored value, by id of the case.
        class_names: name of each class; None counts the classes.
        label_map: stored values and their classes; () finds them.

    Returns:
        The classes; values of no class are among the problems, with a label map to
        paste.
    """
    found = sorted({value for values in masks.values() for value in values})
    names, pairs, note = class_names, tuple(label_map), ""
    if not pairs:
        if found in ([0, VOID], [VOID]) and (names is None or len(names) == 2):
            pairs, note = ((0, 0), (VOID, 1)), "labels: 0 and 255 are classes 0 and 1"
        else:
            count = len(names) if names else found[-1] + 1
            plain = found[0] >= 0 and count <= _MAX_CLASSES
            if not names and not (plain and found == list(range(count))):
                return Classes((), (), problems=(_no_classes(masks, found, file_of),))
            pairs = tuple((index, index) for index in range(count))
    given = bool(label_map)
    if names is None:
        count = 1 + max(int(index) for _, index in pairs)
        names = ("background", *(f"class_{index}" for index in range(1, max(count, 2))))
    classes = LabelMap(pairs if given or note else None, num_classes=len(names))
    unknown = set(classes.unknown(found))
    problems = []
    if unknown:
        proposal = None if given else propose_map(masks, num_classes=len(names))
        pairs = proposal or classes.proposal(found)
        strays = {value for value in unknown if (value, IGNORE) in pairs}
        where = _files_with(strays or unknown, masks, file_of)
        if not given and (missing := _too_few_names(tuple(names), masks, pairs)):
            problems.append(f"{where}: {missing}")
        else:
            problems.append(classes.refusal(found, where, proposal=pairs))
    return Classes(tuple(names), pairs, (note,) if note else (), tuple(problems))


def orphan_problems(
    classes: Classes, masks: Mapping[str, Mapping[int, int]]
) -> list[str]:
    """Find values without a class in masks without an image: pixels by file."""
    known = LabelMap(classes.label_map, num_classes=len(classes.names))
    return [
        known.refusal(sorted(values), file)
        for file, values in masks.items()
        if known.unknown(values)
    ]


def _too_few_names(
    names: tuple[str, ...],
    masks: Mapping[str, Mapping[int, int]],
    pairs: Sequence[Entry],
) -> str:
    """Write that classes have no name, if a label map would ignore them for that."""
    counts = Counter(value for values in masks.values() for value in values)
    ignored = {value for value, index in pairs if index == IGNORE}
    plain, rare = _plain(counts), set(_rare(counts, masks))
    classes = {value for value in counts if _is_class(value) or plain == 1}
    # If the common values have their names, a value of few masks may be a mistake.
    strays = rare if len(classes - rare) == len(names) else set()
    if not classes & ignored - strays:
        return ""
    missing = max(1, len(classes) - len(names))
    completed = (*names, *(f"class_{len(names) + index}" for index in range(missing)))
    what = "a name for each"
    if missing == 1 and not set(map(str.lower, names)) & _BACKGROUND:
        completed, what = ("background", *names), f"{what}, that of the background too"
    return (
        f"the masks have the values {listed(sorted(counts))}, but data.class_names has "
        f"{len(names)} names; expected {what}, such as "
        f"{setting('data.class_names', completed)}; {IGNORE} in data.label_map ignores "
        "a value"
    )


def propose_map(
    masks: Mapping[str, Mapping[int, int]], *, num_classes: int | None
) -> tuple[Entry, ...] | None:
    """Propose a label map for values of which some count up from 0 without a gap.

    The map ignores 255 beside smaller classes, values below 0, and values for which
    ``num_classes`` has no room. A value of few masks is a class: a rare class cannot be
    told from a mistake. If some masks have 1 and others 255, both become class 1;
    without any 1, 255 becomes class 1.

    Returns:
        The map; None if there are no other values, or not both 0 and 1.
    """
    counts = Counter(value for values in masks.values() for value in values)
    plain = _plain(counts)
    apart = sorted(value for value in counts if not 0 <= value < plain)
    if not apart:
        return None
    entries: list[Entry] = [(index, index) for index in range(plain)]
    often = set(apart) - set(_rare(counts, masks))
    if plain == 1 and num_classes in (None, 2) and often == {VOID}:
        apart.remove(VOID)
        entries.append((VOID, 1))
        plain = 2
    if plain < 2 or plain > (num_classes or plain):
        return None
    following = plain
    for value in apart:
        together = any({1, value} <= values.keys() for values in masks.values())
        if value == VOID and plain == 2 and not together:
            entries.append((value, 1))
        elif _is_class(value) and (num_classes is None or following < num_classes):
            entries.append((value, following))
            following += 1
        else:
            entries.append((value, IGNORE))
    return tuple(entries)


def _plain(counts: Mapping[int, int]) -> int:
    """Count the values 0, 1, 2 and so on up to the first gap."""
    plain = 0
    while plain in counts:
        plain += 1
    return plain


def _is_class(value: int) -> bool:
    """Return whether a value stands for a class, not for unknown pixels."""
    return value >= 0 and value != VOID


def _rare(
    counts: Mapping[int, int], masks: Mapping[str, Mapping[int, int]]
) -> list[int]:
    """Return values that few of several masks have."""
    if len(masks) < 3:
        return []
    most = max(1, int(_RARE * len(masks)))
    return sorted(value for value, count in counts.items() if count <= most)


def _no_classes(
    masks: Mapping[str, Mapping[int, int]], found: Sequence[int], file_of: FileOf
) -> str:
    """Write that the stored values are no classes, and propose a map."""
    if len(found) > _MAX_CLASSES or (len(found) > 16 and found[0] == 0):
        proposal: tuple[Entry, ...] = ((0, 0), ((1, int(found[-1])), 1))
        if found[0] < 0:
            proposal = (((int(found[0]), -1), IGNORE), *proposal)
        what = "if they are instances of one class"
        where = ""
    else:
        in_order = tuple((int(value), index) for index, value in enumerate(found))
        proposal = propose_map(masks, num_classes=None) or in_order
        what = f"in this order, or another ({IGNORE} to ignore a value)"
        where = _where_rare(masks, file_of)
    return (
        f"masks: the values {listed(found)}{where}; expected 0 to the largest class "
        "without a gap, or a label map, "
        f"{what}: {setting('data.label_map', proposal)}"
    )


def _where_rare(masks: Mapping[str, Mapping[int, int]], file_of: FileOf) -> str:
    """Name the files that have values of few masks."""
    counts = Counter(value for values in masks.values() for value in values)
    rare = _rare(counts, masks)
    if not rare:
        return ""
    return f" ({listed(rare)} only in {_files_with(set(rare), masks, file_of)})"


def _files_with(
    values: set[int], masks: Mapping[str, Mapping[int, int]], file_of: FileOf
) -> str:
    """Name the masks that have one of some values; only the named ones are read."""
    cases = [one for one, found in masks.items() if values & found.keys()]
    return named_files([file_of(one, values) for one in cases[:3]] + cases[3:])
