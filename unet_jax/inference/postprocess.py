"""Postprocesses label maps, and chooses the steps that help on validation cases."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from scipy import ndimage
from skimage.segmentation import watershed

from unet_jax.labels import IGNORE

Step = tuple[str, int | tuple[int, ...], int | float | None]
"""Name of a step, a class index or several, and a number where the step takes one.

The number is of pixels ("min_size") or millimetres ("largest_component").
"""

STEPS = ("largest_component", "min_size", "fill_holes", "fill_planes")


_PARTS = (1e-3, 0.1)
"""Sizes of other components, as fractions of the largest, that are not of it."""

_REACH = 3
"""Farthest pixels of a component, in radii from what erosion left of it."""


def keep_largest(
    labels: Integer[np.ndarray, "*spatial"],
    *,
    classes: Sequence[int],
    radius: float = 0.0,
    spacing: Sequence[float] | None = None,
) -> Integer[np.ndarray, "*spatial"]:
    """Keep the largest component that classes make together; the rest is background.

    Neighbours touch at a side (pictures) or a face (volumes). With a radius, bridges
    that are thinner than twice of it do not connect: the classes are eroded by a box,
    and each of their pixels belongs to the component of what is left that it reaches
    in the fewest steps. Crumbs below a thousandth of the largest are part of it, and
    so are halves, of a tenth of it and above. What lies farther than three radii from
    it is not, such as skin.

    Args:
        classes: classes of the component; all others stay as they are.
        radius: half of the box, in millimetres; 0 for no erosion.
        spacing: millimetres of a pixel along each axis; None for pixels of 1.

    Source: with a radius, a watershed from markers (Beucher and Meyer 1993) that are
    found by erosion, as in BSE, which strips skulls so (Shattuck et al. 2001).
    """
    box, mask = _boxed(labels, classes)
    steps = spacing or (1.0,) * labels.ndim
    widths = [int(radius / step + 1e-6) for step in steps]
    core = mask.astype(np.uint8)
    for axis, width in enumerate(widths):
        if width:
            core = ndimage.minimum_filter1d(core, 2 * width + 1, axis, mode="nearest")
    components, count = ndimage.label(core)
    if not count:
        return labels
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    if any(widths):
        fraction = sizes / sizes[largest]
        owner = np.where(fraction < _PARTS[0], 0, np.arange(len(sizes)))
        owner[fraction >= _PARTS[1]] = largest
        markers = owner[components]
        near = (markers == largest).astype(np.uint8)
        for axis, width in enumerate(widths):
            if width:
                reach = 2 * (_REACH * width + 1) + 1
                near = ndimage.maximum_filter1d(near, reach, axis, mode="nearest")
        if markers[markers != largest].any():
            components = watershed(np.zeros(mask.shape, np.uint8), markers, mask=mask)
        else:  # the same, faster
            whole, _ = ndimage.label(mask)
            reached = np.unique(whole[markers == largest])
            components = np.where(np.isin(whole, reached), largest, 0)
        components[near == 0] = 0
    kept = labels.copy()
    kept[box][mask & (components != largest)] = 0
    return kept


def _boxed(
    labels: Integer[np.ndarray, "*spatial"], classes: Sequence[int]
) -> tuple[tuple[slice, ...], Bool[np.ndarray, "*part"]]:
    """Return the box of classes with a pixel around it, and where they are in it."""
    mask = np.isin(labels, classes)
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (found,) = np.nonzero(mask.any(axis=others))
        low, high = (found[0], found[-1]) if len(found) else (0, 0)
        box.append(slice(max(low - 1, 0), high + 2))
    return tuple(box), mask[tuple(box)]


def remove_small(
    labels: Integer[np.ndarray, "*spatial"], *, index: int, min_size: int
) -> Integer[np.ndarray, "*spatial"]:
    """Turn components of a class below ``min_size`` pixels into background."""
    components, _ = ndimage.label(labels == index)
    small = np.bincount(components.ravel()) < min_size
    small[0] = False
    return np.where(small[components], 0, labels)


def fill_holes(
    labels: Integer[np.ndarray, "*spatial"], *, index: int
) -> Integer[np.ndarray, "*spatial"]:
    """Turn background that a class encloses into that class.

    Other classes inside the hole stay.
    """
    filled = ndimage.binary_fill_holes(labels == index)
    return np.where(filled & (labels == 0), index, labels)


def fill_planes(
    labels: Integer[np.ndarray, "*spatial"], *, classes: Sequence[int]
) -> Integer[np.ndarray, "*spatial"]:
    """Turn background that classes together enclose in a plane into the first of them.

    A plane is a picture, or a slice of a volume across any axis: a ventricle that
    leaves a slab at both ends is enclosed in slices only.
    """
    box, mask = _boxed(labels, classes)
    filled = np.zeros_like(mask)
    for across in range(3) if labels.ndim == 3 else (None,):
        plane = [axis for axis in range(labels.ndim) if axis != across]
        # Neighbours lie in one plane, so that all planes are labelled at once.
        sides = ndimage.generate_binary_structure(labels.ndim, 1)
        if across is not None:
            sides &= np.indices(sides.shape)[across] == 1
        components, count = ndimage.label(~mask, sides)
        enclosed = np.ones(count + 1, bool)
        enclosed[0] = False
        for axis in plane:
            enclosed[np.take(components, (0, -1), axis)] = False
        filled |= enclosed[components]
    found = labels.copy()
    found[box][filled & (labels[box] == 0)] = classes[0]
    return found


def apply_steps(
    labels: np.ndarray,
    steps: Sequence[Step],
    *,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Apply steps one after the other; the labels keep their dtype.

    Raises:
        ValueError: a step is unknown, or has several classes and is of one.
    """
    dtype = labels.dtype
    for name, index, number in steps:
        classes = (index,) if isinstance(index, int) else index
        match name, classes:
            case "largest_component", _:
                labels = keep_largest(
                    labels, classes=classes, radius=number or 0.0, spacing=spacing
                )
            case "fill_planes", _:
                labels = fill_planes(labels, classes=classes)
            case "min_size", (one,):
                labels = remove_small(labels, index=one, min_size=int(number or 0))
            case "fill_holes", (one,):
                labels = fill_holes(labels, index=one)
            case "min_size" | "fill_holes", _:
                raise ValueError(f"{name} has one class, not {index}")
            case _:
                raise ValueError(f"Unknown step {name!r}; expected one of {STEPS}")
    return labels.astype(dtype, copy=False)


Pairs = Iterable[tuple[np.ndarray, np.ndarray]]
"""Prediction and label of each validation case, read again for each step."""


def choose_steps(
    pairs: Pairs,
    *,
    groups: Sequence[Sequence[int]],
    min_sizes: Sequence[int] = (8, 32, 128),
) -> tuple[Step, ...]:
    """Choose the steps that raise the Dice of validation cases; () where none helps.

    Each step is tried on top of the steps chosen before, group by group.

    Args:
        groups: classes of which the Dice is measured, one by one, or those of each
            region. Of a region with several classes the largest component is tried.
        min_sizes: minimum component sizes to try, in pixels.
    """
    kept: tuple[Step, ...] = ()
    best = _dice(pairs, kept, groups)
    for place, classes in enumerate(groups):
        index = classes[0] if len(classes) == 1 else tuple(classes)
        candidates: list[Step] = [("largest_component", index, None)]
        if len(classes) == 1:
            candidates += [("min_size", index, size) for size in min_sizes]
            candidates.append(("fill_holes", index, None))
        for step in candidates:
            found = _dice(pairs, (*kept, step), groups)
            # A class without pixels has NaN, which is never greater.
            if found[place] > best[place] and np.nanmean(found) > np.nanmean(best):
                kept, best = (*kept, step), found
    return kept


def _dice(pairs: Pairs, steps: Sequence[Step], groups: Sequence[Sequence[int]]) -> Any:
    """Return the Dice of each group of classes, averaged over cases."""
    rows = []
    for prediction, label in pairs:
        fixed = apply_steps(prediction, steps)
        row = np.full(len(groups), np.nan)
        for place, classes in enumerate(groups):
            one = np.isin(fixed, classes) & (label != IGNORE)
            two = np.isin(label, classes)
            both = int(one.sum()) + int(two.sum())
            if both:
                row[place] = 2 * int((one & two).sum()) / both
        rows.append(row)
    table = np.array(rows)
    count = (~np.isnan(table)).sum(axis=0)
    total = np.nansum(table, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
