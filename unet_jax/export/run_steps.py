"""Cleans label maps, for run.py beside this file; needs scipy."""

import sys

import numpy as np
from run_grids import needed


def keep_largest(labels, classes, radius, spacing):
    """Keep the largest component that classes make together."""
    ndimage, mask = needed("scipy.ndimage", "scipy"), np.isin(labels, classes)
    widths = [int((radius or 0) / step + 1e-6) for step in spacing or (1,) * mask.ndim]
    core = mask.astype(np.uint8)
    for axis, width in enumerate(widths):
        core = ndimage.minimum_filter1d(core, 2 * width + 1, axis, mode="nearest")
    components, count = ndimage.label(core)
    if not count:
        return labels
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    if any(widths):
        fraction = sizes / sizes[largest]
        owner = np.where(fraction < 1e-3, 0, np.arange(len(sizes)))
        owner[fraction >= 0.1] = largest
        markers = owner[components]
        close = (markers == largest).astype(np.uint8)
        for axis, width in enumerate(widths):
            reach = 2 * (3 * width + 1) + 1 if width else 1
            close = ndimage.maximum_filter1d(close, reach, axis, mode="nearest")
        if markers[markers != largest].any():
            flood = needed("skimage.segmentation", "scikit-image").watershed
            components = flood(np.zeros(mask.shape, np.uint8), markers, mask=mask)
        else:
            whole, _ = ndimage.label(mask)
            reached = np.unique(whole[markers == largest])
            components = np.where(np.isin(whole, reached), largest, 0)
        components[close == 0] = 0
    return np.where(mask & (components != largest), 0, labels)


def fill_planes(labels, classes):
    """Fill background that classes enclose in a plane with the first of them."""
    ndimage, mask = needed("scipy.ndimage", "scipy"), np.isin(labels, classes)
    filled = np.zeros_like(mask)
    for across in range(3) if labels.ndim == 3 else (None,):
        sides = ndimage.generate_binary_structure(labels.ndim, 1)
        if across is not None:
            sides &= np.indices(sides.shape)[across] == 1
        components, count = ndimage.label(~mask, sides)
        enclosed = np.arange(count + 1) > 0
        for axis in range(labels.ndim):
            if axis != across:
                enclosed[np.take(components, (0, -1), axis)] = False
        filled |= enclosed[components]
    return np.where(filled & (labels == 0), classes[0], labels)


def apply_steps(labels, steps, spacing):
    """Apply the postprocessing to a label map."""
    for name, index, number in steps:
        classes, dtype = index if isinstance(index, list) else [index], labels.dtype
        if name == "largest_component":
            labels = keep_largest(labels, classes, number, spacing)
        elif name == "fill_planes":
            labels = fill_planes(labels, classes)
        elif name == "min_size":
            ndimage = needed("scipy.ndimage", "scipy")
            components, _ = ndimage.label(labels == index)
            small = np.bincount(components.ravel()) < int(number or 0)
            small[0] = False
            labels = np.where(small[components], 0, labels)
        elif name == "fill_holes":
            fill = needed("scipy.ndimage", "scipy").binary_fill_holes
            labels = np.where(fill(labels == index) & (labels == 0), index, labels)
        else:
            sys.exit(f"run.py: bundle.json has the step {name!r}, which is unknown")
        labels = labels.astype(dtype)
    return labels
