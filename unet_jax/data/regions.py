"""Defines regions of classes that may overlap, such as a tumour and its core."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unet_jax.errors import InputError


class Region(NamedTuple):
    """A region: its name, the classes in it, and the class that stands for it.

    The last one is written where no later region of a list is predicted.
    """

    name: str
    classes: tuple[int, ...]
    written: int


@dataclasses.dataclass(frozen=True)
class Regions:
    """Regions in the order in which they are written into a label map.

    Channel 0 of a network with a sigmoid for each region is not trained; channel i is
    region i, counted from 1.

    Example:
        >>> regions = Regions((Region("tumour", (1, 2), 1), Region("core", (2,), 2)))
        >>> regions.members(3).tolist()
        [[False, False, False], [False, True, False], [False, True, True]]
        >>> regions.written(np.array([[0, 0.2, 0.1], [0, 0.9, 0.4], [0, 0.4, 0.6]]))
        array([0, 1, 2], dtype=uint8)
    """

    entries: tuple[Region, ...]

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Classes of each region by its name."""
        return {one.name: one.classes for one in self.entries}

    @property
    def channels(self) -> int:
        """Number of channels of a network."""
        return 1 + len(self.entries)

    def members(self, num_classes: int) -> np.ndarray:
        """Return which channels a class is in, ``(classes, channels)`` bool."""
        found = np.zeros((num_classes, self.channels), bool)
        for channel, one in enumerate(self.entries, start=1):
            found[list(one.classes), channel] = True
        return found

    def written(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the class of each pixel, from ``(*pixels, channels)``.

        A region is written where its probability is above 1/2, over those before it.
        """
        labels = np.zeros(probabilities.shape[:-1], np.uint8)
        for channel, one in enumerate(self.entries, start=1):
            labels[probabilities[..., channel] > 0.5] = one.written
        return labels


def regions_from(given: Any, *, class_names: Sequence[str] | None) -> Regions | None:
    """Read ``data.regions`` of a config.

    Args:
        given: ``(name, classes, class)`` for each region; None or () for no regions.
        class_names: name of each class; None before it is known.

    Returns:
        The regions; None for none.

    Raises:
        InputError: it has another form, or a class does not exist.
    """
    if not given:
        return None
    try:
        entries = [
            Region(str(name), tuple(int(one) for one in classes), int(written))
            for name, classes, written in given
        ]
    except (TypeError, ValueError):
        entries = []
    count = 256 if class_names is None else len(class_names)
    wrong = [
        one
        for one in entries
        if one.written not in one.classes
        or not all(1 <= index < count for index in one.classes)
    ]
    if not entries or wrong or len({one.name for one in entries}) < len(entries):
        raise InputError(
            f"data.regions: found {tuple(wrong[0]) if wrong else given!r}, expected "
            f"(name, classes from 1 to {count - 1}, the one to write) for each region; "
            'write such as (("tumour", (1, 2), 1), ("core", (2,), 2))'
        )
    return Regions(tuple(entries))
