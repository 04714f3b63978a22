"""The unit that sources yield and that scores are made for."""

import dataclasses
from typing import Protocol

import numpy as np

from unet_jax.errors import InputError
from unet_jax.labels import IGNORE

__all__ = ["IGNORE", "Case", "Source", "name_of", "read_case"]


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


def name_of(source: Source, index: int) -> str:
    """Name a case without reading it.

    Args:
        source: one that can has a method ``where(index)``.
        index: of the case.

    Returns:
        Its id, and its file where it has one; else its number.

    Example:
        >>> name_of([], 3)
        'case number 3'
    """
    where = getattr(source, "where", None)
    return f"case number {index}" if where is None else str(where(index))


def read_case(source: Source, index: int) -> Case:
    """Read a case, and name it whatever goes wrong.

    Files rot and disks go away in the middle of a run, and a reader may then raise
    anything.

    Args:
        source: of the case.
        index: of the case.

    Returns:
        The case.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return source[index]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name_of(source, index)}: cannot be read "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); expected "
            "what was there when the run began; put it back"
        ) from error
