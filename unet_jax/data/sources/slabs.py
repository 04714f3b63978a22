"""Slabs: parts of one case, where there are too few cases to draw splits from."""

from collections.abc import Sequence

import numpy as np

from unet_jax.data.sources.splits import Part

_THIN = 10
"""A volume of fewer slices is cut along its longest axis instead."""


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
