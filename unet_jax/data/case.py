"""Defines a case, the unit that sources give and scores are computed for."""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from unet_jax.errors import InputError
from unet_jax.labels import IGNORE

__all__ = ["IGNORE", "Case", "CaseFacts", "Source", "facts_of", "name_of", "read_case"]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One image with its label: a picture or a volume.

    Attributes:
        id: name of the case, unique within the data set.
        image: ``(*spatial, channels)`` in its stored dtype; volumes are in RAS order.
        label: ``(*spatial)`` integers, class index or ``IGNORE``; None if unlabelled.
        spacing: millimetres per pixel on each spatial axis; None for pictures.
        group: the patient or volume, which splits must not cut.
        reference: mean and standard deviation of each channel over the non-zero pixels
            of the whole scan, for a case that is only a slab of a scan: the slab's own
            statistics depend on the tissue that happens to lie in it. For an image with
            missing pixels, over the others.
        labelled_classes: indices of the classes that were labelled in this case; a
            pixel of background may be of any other class. None for all classes.
    """

    id: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, ...] | None
    group: str
    reference: tuple[tuple[float, float], ...] | None = None
    labelled_classes: tuple[int, ...] | None = None


class CaseFacts(NamedTuple):
    """Describes a case without its pixels."""

    id: str
    axes: int
    channels: int
    spacing: tuple[float, ...] | None

    @classmethod
    def of(cls, case: Case) -> "CaseFacts":
        """Describe a case that has been read."""
        *spatial, channels = case.image.shape
        return cls(case.id, len(spatial), channels, case.spacing)


class Extent(NamedTuple):
    """Counts what a split holds beside its cases.

    Attributes:
        groups: number of groups (patients).
        images: number of stored images: files of pictures, channels and volumes, or
            slices that are stored one by one.
    """

    groups: int
    images: int


class Source(Protocol):
    """Gives random access to cases: ``len(source)`` and ``source[i]``.

    A source may also have these methods:

    - ``where(index) -> str`` names a case and its file without reading it.
    - ``facts(index) -> CaseFacts`` describes a case without reading it.
    - ``class_counts(index)`` counts the pixels of each class without reading the case;
      None for a case without a label.
    - ``labelled_classes(index)`` gives those of the case without reading it.
    - ``content(index) -> str`` changes with all that a case is made of: its files, and
      how they are read and mapped to classes; nothing is read.
    - ``extent() -> Extent`` counts groups and images without reading them.
    - ``release(index)`` frees a case that the source holds in memory, and
      ``held_bytes`` is the memory of all cases that it holds.
    """

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def __getitem__(self, index: int) -> Case:
        """Return one case, read on demand."""
        ...


def name_of(source: Source, index: int) -> str:
    """Name a case without reading it.

    Returns:
        Id and file of the case if the source knows them, else its number.

    Example:
        >>> name_of([], 3)
        'case number 3'
    """
    where = getattr(source, "where", None)
    return f"case number {index}" if where is None else str(where(index))


def facts_of(source: Source, index: int) -> CaseFacts:
    """Describe a case; read it only if the source cannot describe it without."""
    if hasattr(source, "facts"):
        facts: CaseFacts = source.facts(index)
        return facts
    return CaseFacts.of(read_case(source, index))


def read_case(source: Source, index: int) -> Case:
    """Read a case; every error, of whatever kind, is an InputError that names it."""
    try:
        return source[index]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name_of(source, index)}: cannot be read "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); expected "
            "the file that was there when the run began; put it back"
        ) from error
