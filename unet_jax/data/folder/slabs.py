"""Slabs: parts of one case, where there are too few cases to draw splits from."""

from collections.abc import Mapping, Sequence

import numpy as np

from unet_jax.data.folder.splits import Part
from unet_jax.data.folder.traits import CaseTraits

_THIN = 10
"""A volume of fewer slices is cut along its longest axis instead."""

_SHAREABLE = 20
"""Labels in fewer planes cannot be shared out: a slab could be left without a plane."""


def shared_out(
    parts: Mapping[str, Sequence[Part]],
    traits: Sequence[CaseTraits],
    slice_axis: int,
) -> dict[str, tuple[Part, ...]]:
    """Move slabs so that their shares are those of what is labelled.

    The ends of a scan are often empty: a slab of them would have nothing to score.

    Args:
        parts: of each split, with shares of a whole axis.
        traits: of the cases; those that are missing are left as they are.
        slice_axis: that volumes are cut along.

    Returns:
        The parts; the first and the last slab still reach to the ends. Where few planes
        are labelled the slabs stay as they are.
    """
    known = {case.id: case for case in traits}

    def moved(part: Part, share: float) -> float:
        if share in (0.0, 1.0) or part.id not in known:
            return share
        case = known[part.id]
        axis = cut_axis(case.shape, slice_axis)
        first, end = case.labelled[axis]
        if end - first < _SHAREABLE:
            return share
        return (first + share * (end - first)) / case.shape[axis]

    return {
        split: tuple(
            Part(one.id, moved(one, one.start), moved(one, one.stop)) for one in found
        )
        for split, found in parts.items()
    }


def slab_of(part: Part, shape: Sequence[int], slice_axis: int) -> slice | None:
    """Return what a part takes of its cut axis.

    Args:
        part: of a split.
        shape: spatial shape of the case.
        slice_axis: that volumes are cut along.

    Returns:
        Its planes; None for a part that is the whole case.
    """
    if (part.start, part.stop) == (0.0, 1.0):
        return None
    size = shape[cut_axis(shape, slice_axis)]
    return slice(round(part.start * size), max(round(part.stop * size), 1))


def cut_axis(shape: Sequence[int], slice_axis: int) -> int:
    """Choose the axis that slabs are cut along.

    Args:
        shape: spatial shape of a case.
        slice_axis: that volumes are cut along.

    Returns:
        The axis.
    """
    if len(shape) == 3 and shape[slice_axis] >= _THIN:
        return slice_axis
    return int(np.argmax(shape))
