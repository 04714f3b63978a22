"""Cuts cases into slabs if there are too few cases to draw splits from."""

from collections.abc import Mapping, Sequence

import numpy as np

from unet_jax.data.case_traits import CaseTraits
from unet_jax.data.folder.splits import Part

_THIN = 10
"""A volume of fewer slices is cut along its longest axis instead."""

_FEWEST_PLANES = 20
"""Fewer labelled planes are not divided: a slab could be left without any."""


def fit_slabs(
    parts: Mapping[str, Sequence[Part]], traits: Sequence[CaseTraits], slice_axis: int
) -> dict[str, tuple[Part, ...]]:
    """Move slabs so that their fractions apply to the labelled planes.

    The ends of a scan are often empty, and a slab of them would have nothing to score.

    Args:
        parts: parts of each split, as fractions of the whole axis.

    Returns:
        The parts; the first and the last slab still reach the ends. If few planes are
        labelled, the slabs stay as they are.
    """
    known = {case.id: case for case in traits}

    def moved(part: Part, fraction: float) -> float:
        if fraction in (0.0, 1.0) or part.id not in known:
            return fraction
        case = known[part.id]
        axis = cut_axis(case.shape, slice_axis)
        first, end = case.labelled[axis]
        if end - first < _FEWEST_PLANES:
            return fraction
        return (first + fraction * (end - first)) / case.shape[axis]

    return {
        split: tuple(
            Part(one.id, moved(one, one.start), moved(one, one.stop)) for one in found
        )
        for split, found in parts.items()
    }


def slab_of(part: Part, shape: Sequence[int], slice_axis: int) -> slice | None:
    """Return the planes of a part along its cut axis; None for the whole case."""
    if part.is_whole:
        return None
    size = shape[cut_axis(shape, slice_axis)]
    return slice(round(part.start * size), max(round(part.stop * size), 1))


def slab_index(
    part: Part, shape: Sequence[int], slice_axis: int
) -> tuple[slice, ...] | None:
    """Return the index of a part in an array of a case; None for the whole case."""
    slab = slab_of(part, shape, slice_axis)
    return slab and (*(slice(None),) * cut_axis(shape, slice_axis), slab)


def cut_axis(shape: Sequence[int], slice_axis: int) -> int:
    """Choose the axis that slabs are cut along."""
    if len(shape) == 3 and shape[slice_axis] >= _THIN:
        return slice_axis
    return int(np.argmax(shape))
