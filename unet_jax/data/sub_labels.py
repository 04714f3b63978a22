"""Numbers the parts of classes that drawn images tell apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_jax.data.label_map import Entry
from unet_jax.errors import InputError, setting

LARGEST = 4
"""Largest number beside class 0, and the negative of the smallest one."""


class SubLabels:
    """Converts stored label values to sub-labels, whole numbers from -4 to 4.

    Left and right of a structure look alike, while the cortex and the thalamus, of one
    class, do not. 0 is the largest part of a class, and air in class 0.

    Args:
        given: stored values, or the first and last one, and their sub-labels; 0 for
            all others. () numbers the entries of the label map in turn.
        label_map: stored values and their classes.

    Raises:
        InputError: an entry has another form or number.

    Example:
        >>> brain = SubLabels((), label_map=((0, 0), (2, 1), (3, 2), (4, 2)))
        >>> brain(np.array([0, 2, 3, 4]))
        array([0., 0., 0., 1.], dtype=float32)
    """

    def __init__(
        self, given: Sequence[Entry], *, label_map: Sequence[Entry] = ()
    ) -> None:
        """Check the entries."""
        self._ranges = _in_turn(label_map)
        if given:
            self._ranges = [_checked(entry) for entry in given]

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Return the sub-label of every stored value, float32."""
        numbers = np.zeros(stored.shape, np.float32)
        for first, last, number in self._ranges:
            if number:
                numbers[(stored >= first) & (stored <= last)] = number
        return numbers


def _in_turn(label_map: Sequence[Entry]) -> list[tuple[int, int, int]]:
    """Number the entries of each class 0, 1, -1, and on to 4, -4 in class 0."""
    seen: dict[int, int] = {}
    ranges = []
    for (first, last), index in sorted((_ends(value), to) for value, to in label_map):
        place = seen[index] = seen.get(index, -1) + 1
        if index == 0 and place:
            place = 1 + (place - 1) % (2 * LARGEST)  # air is the first value alone
        elif index:
            place %= 3
        number = (place + 1) // 2 * (1 if place % 2 else -1)
        ranges.append((first, last, number))
    return ranges


def _ends(value: Any) -> tuple[int, int]:
    """Return the first and last stored value that a value of an entry stands for."""
    first, last = value if isinstance(value, tuple | list) else (value, value)
    return first, last


def _checked(entry: Any) -> tuple[int, int, int]:
    """Return first and last stored value of an entry, and its number."""
    try:
        value, number = entry
        first, last = _ends(value)
        whole = all(int(part) == part for part in (first, last, number))
        if not whole or first > last or not -LARGEST <= number <= LARGEST:
            raise ValueError
        return int(first), int(last), int(number)
    except (TypeError, ValueError):
        raise InputError(
            f"data.sub_labels: found {entry!r}; expected (stored value, number) or "
            f"((first, last), number), with numbers from -{LARGEST} to {LARGEST}; "
            f"such as {setting('data.sub_labels', ((7, -1), ((10, 13), 1)))}"
        ) from None
