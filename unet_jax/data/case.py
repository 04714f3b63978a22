"""The unit that sources yield and that scores are made for."""

import dataclasses
from typing import Protocol

import numpy as np

from unet_jax.labels import IGNORE

__all__ = ["IGNORE", "Case", "Source"]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One image with its label, as a person would count it: a picture or a volume.

    Attributes:
        id: unique within the data set.
        image: ``(*spatial, channels)`` in its stored dtype; volumes are in RAS order.
        label: ``(*spatial)`` integers, class index or ``IGNORE``; None if unlabelled.
        spacing: millimetres a pixel on each spatial axis; None for pictures.
        group: the patient or volume that splits must not cut.
        reference: mean and deviation of each channel over the non-zero pixels of the
            whole scan, where the case is only a slab of one: a slab's own would depend
            on which tissue happens to lie in it.
    """

    id: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, ...] | None
    group: str
    reference: tuple[tuple[float, float], ...] | None = None


class Source(Protocol):
    """Random access to cases: ``len(source)`` and ``source[i]``."""

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def __getitem__(self, index: int) -> Case:
        """Return one case, read when it is asked for."""
        ...
