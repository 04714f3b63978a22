"""Maps the values that labels store to classes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unet_jax.data.case import IGNORE
from unet_jax.errors import InputError, setting

Entry = tuple[int | tuple[int, int], int]
"""A stored value, or the first and last value of a range, and its class."""

VOID = 255
"""Value that many sets use for pixels of unknown class."""

_INSTANCES = 4
"""More values than this in masks of two classes are more likely objects than mistakes.
"""


class LabelMap:
    """Converts stored label values to classes, and refuses values without a class.

    Args:
        pairs: stored values (or first and last value of a range) and their classes (or
            IGNORE); None if the stored values are the classes 0 to ``num_classes - 1``.
        num_classes: number of classes, background included.

    Raises:
        InputError: a value is mapped twice, or a class does not exist.
    """

    def __init__(self, pairs: Sequence[Entry] | None, *, num_classes: int) -> None:
        """Check the pairs and sort their ranges."""
        self._given = pairs is not None
        self._num_classes = num_classes
        if pairs is None:
            pairs = [(index, index) for index in range(num_classes)]
        self._ranges = sorted(_as_range(pair) for pair in pairs)
        if not self._ranges:
            raise InputError(
                "data.label_map: () has no value, expected every stored value once"
            )
        for (_, last, _), (first, _, _) in zip(
            self._ranges, self._ranges[1:], strict=False
        ):
            if first <= last:
                raise InputError(
                    f"data.label_map: {_entries(self._ranges)} has a value twice, "
                    "expected every stored value once"
                )
        wrong = [r for r in self._ranges if not IGNORE <= r[2] < num_classes]
        if wrong:
            raise InputError(
                f"data.label_map: {_entries(wrong)} lead to no class, expected classes "
                f"0 to {num_classes - 1}, or {IGNORE} to ignore a value; fix it, or "
                "data.class_names"
            )
        self._first = np.array([first for first, _, _ in self._ranges], np.int64)
        self._last = np.array([last for _, last, _ in self._ranges], np.int64)
        self._class = np.array([index for _, _, index in self._ranges], np.int16)

    def __repr__(self) -> str:
        """Return the ranges of stored values and their classes."""
        return f"LabelMap({_entries(self._ranges)}, num_classes={self._num_classes})"

    def __call__(self, stored: np.ndarray, *, where: str) -> np.ndarray:
        """Look up the class of every pixel.

        Args:
            stored: integers of any shape.

        Returns:
            int16 of the same shape, class or IGNORE.

        Raises:
            InputError: the values are no integers, or one of them has no class.
        """
        if stored.dtype.kind not in "iub":
            raise InputError(
                f"{where}: the label is {stored.dtype}, expected integers; choose the "
                "feature or file with the class of every pixel"
            )
        if stored.dtype.itemsize == 1:
            # Few values: a table of all of them is faster than a search per pixel.
            low = int(np.iinfo(stored.dtype).min) if stored.dtype.kind == "i" else 0
            table, known = self._look_up(np.arange(low, low + 256))
            places = stored.astype(np.int16) - low
            label, inside = table[places], known[places]
        else:
            label, inside = self._look_up(stored.astype(np.int64))
        if not inside.all():
            raise InputError(self.refusal(np.unique(stored).tolist(), where))
        return label

    def _look_up(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the class of each value, and whether it has one."""
        place = np.searchsorted(self._first, values, side="right") - 1
        inside = (place >= 0) & (values <= self._last[place])
        return self._class[place], inside

    def unknown(self, found: Iterable[int]) -> list[int]:
        """Return the values that have no class."""
        values = list(found)
        if not values:
            return []
        _, inside = self._look_up(np.array(values, np.int64))
        return [value for value, known in zip(values, inside, strict=True) if not known]

    def refusal(
        self,
        found: Sequence[int],
        where: str,
        *,
        proposal: Sequence[Entry] | None = None,
    ) -> str:
        """Write which values were found and expected, and propose a label map.

        Args:
            found: all values of the labels, sorted.
            proposal: a label map; None makes one.
        """
        proposed = self.proposal(found) if proposal is None else proposal
        ignored = [value for value, index in proposed if index == IGNORE]
        if proposal is None and not self._given and set(ignored) - {VOID, IGNORE}:
            return (
                f"{where}: the label has the values {listed(found)}, but "
                f"data.class_names has {self._num_classes} names; expected a name for "
                "each, that of the background too; add the missing names, or give "
                f"every stored value its class ({IGNORE} to ignore it) in "
                "data.label_map"
            )
        entries = _entries([_as_range(pair) for pair in proposed])
        how = (
            f"to ignore {listed(self.unknown(found))}, set"
            if self._given
            else "such as"
        )
        return (
            f"{where}: the label has the values {listed(found)}, expected "
            f"{_listed_ranges(self._ranges)}; give every stored value its class "
            f"({IGNORE} to ignore it), {how} {setting('data.label_map', entries)}"
        )

    def proposal(self, found: Sequence[int]) -> tuple[Entry, ...]:
        """Propose a label map: values in order if they fit, objects as one class."""
        values = [int(value) for value in found]
        if not self._given and len(values) <= self._num_classes:
            return tuple((value, index) for index, value in enumerate(values))
        many = len(values) > _INSTANCES
        if not self._given and self._num_classes == 2 and many and values[0] == 0:
            return ((0, 0), ((values[1], values[-1]), 1))
        known = (((first, last), index) for first, last, index in self._ranges)
        return (*known, *((value, IGNORE) for value in self.unknown(values)))


def _as_range(pair: Any) -> tuple[int, int, int]:
    """Return first value, last value and class of an entry."""
    try:
        value, index = pair
        first, last = value if isinstance(value, tuple | list) else (value, value)
        if any(int(part) != part for part in (first, last, index)) or first > last:
            raise ValueError
        return int(first), int(last), int(index)
    except (TypeError, ValueError):
        raise InputError(
            f"data.label_map: found {pair!r}, expected (stored value, class) or "
            "((first, last), class)"
        ) from None


def _entries(ranges: Sequence[tuple[int, int, int]]) -> tuple[Entry, ...]:
    """Return ranges as the entries of a label map."""
    return tuple(
        (first if first == last else (first, last), index)
        for first, last, index in ranges
    )


def _listed_ranges(ranges: Sequence[tuple[int, int, int]]) -> str:
    """Write the values of ranges on one line."""
    shown = [
        str(first) if first == last else f"{first} to {last}"
        for first, last, _ in ranges[:12]
    ]
    return ", ".join(shown + (["..."] if len(ranges) > 12 else []))


def listed(values: Sequence[int]) -> str:
    """Write values on one line: the first twelve, the last one and their number."""
    shown = [str(int(value)) for value in values[:12]]
    if len(values) > 12:
        shown += ["...", f"{int(values[-1])} ({len(values)} values)"]
    return ", ".join(shown)
