"""From the values that a data set stores in its labels to classes."""

from collections.abc import Sequence

import numpy as np

from unet_jax.data.case import IGNORE
from unet_jax.errors import InputError

_NO_CLASS = np.iinfo(np.int16).min


class LabelMap:
    """Turns stored label values into classes, and refuses values that have none.

    Args:
        pairs: stored value and class (or IGNORE) of each; None if the stored values
            are the classes 0 to ``num_classes - 1``.
        num_classes: number of classes, background included.

    Raises:
        InputError: a value that is mapped twice, or a class that does not exist.
    """

    def __init__(
        self, pairs: Sequence[tuple[int, int]] | None, *, num_classes: int
    ) -> None:
        """Check the pairs and lay them out as a lookup table."""
        self._given = pairs is not None
        self._num_classes = num_classes
        if pairs is None:
            pairs = [(index, index) for index in range(num_classes)]
        self._pairs = [(int(value), int(index)) for value, index in pairs]
        self._values = sorted({value for value, _ in self._pairs})
        if len(self._values) != len(self._pairs) or not self._values:
            raise InputError(
                f"label_map: {_written(self._pairs)} names "
                f"{'a value twice' if self._values else 'no value'}, expected every "
                "stored value once"
            )
        wrong = [pair for pair in self._pairs if not IGNORE <= pair[1] < num_classes]
        if wrong:
            raise InputError(
                f"label_map: {_written(wrong)} lead to no class, expected classes 0 to "
                f"{num_classes - 1}, or {IGNORE} to ignore a value; mend label_map or "
                "num_classes"
            )
        self._low = self._values[0]
        self._table = np.full(self._values[-1] - self._low + 1, _NO_CLASS, np.int16)
        for value, index in self._pairs:
            self._table[value - self._low] = index

    def __call__(self, stored: np.ndarray, *, where: str) -> np.ndarray:
        """Look up the class of every pixel.

        Args:
            stored: integers of any shape.
            where: what is read, for the error: data set, split, example.

        Returns:
            int16 of the same shape, class or IGNORE.

        Raises:
            InputError: the label is not made of integers, or has an unmapped value.
        """
        if stored.dtype.kind not in "iub":
            raise InputError(
                f"{where}: the label is {stored.dtype}, expected integers; choose the "
                "feature or file with the class of every pixel"
            )
        places = stored.astype(np.int64) - self._low
        inside = (places >= 0) & (places < len(self._table))
        label = self._table[np.where(inside, places, 0)]
        if not (inside.all() and (label != _NO_CLASS).all()):
            raise InputError(self._refusal(np.unique(stored).tolist(), where))
        return label

    def _refusal(self, found: list[int], where: str) -> str:
        """Say which values were found and expected, and propose a label map."""
        unknown = [int(value) for value in found if value not in self._values]
        if not self._given and len(found) <= self._num_classes:
            proposal = [(int(value), index) for index, value in enumerate(found)]
        else:
            proposal = [*self._pairs, *((value, IGNORE) for value in unknown)]
        return (
            f"{where}: the label has the values {_listed(found)}, expected "
            f"{_listed(self._values)}; give every stored value its class ({IGNORE} to "
            f"ignore it), such as label_map = {_written(proposal)}"
        )


def _written(pairs: Sequence[tuple[int, int]]) -> str:
    """Write pairs as the tuple to paste into a config."""
    return f"({', '.join(map(str, pairs))}{',' if len(pairs) == 1 else ''})"


def _listed(values: Sequence[int]) -> str:
    """Write values on one line, also where a picture was given for a label."""
    shown = [str(int(value)) for value in values[:12]]
    if len(values) > 12:
        shown += ["...", f"{int(values[-1])} ({len(values)} values)"]
    return ", ".join(shown)
