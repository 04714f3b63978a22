"""Chooses the bounded parts of training cases that methods are fitted on."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unet_jax.method import Reference

SPATIAL_PIXELS = 2**20
"""Number of pixels, over all cases, to fit a method that looks at neighbours."""

POINT_PIXELS = 2**22
"""Number of pixels, over all cases, to fit a method that looks at single pixels."""

_MIN_PLANES = 5
"""Smallest number of planes of a piece of a volume."""

_PIECES = 4
"""Number of pieces, where there are fewer volumes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A labelled training case.

    Attributes:
        image: ``(*spatial, channels)`` as stored.
        label: ``(*spatial)`` class index, or IGNORE.
        spacing: pixel size in mm on each axis; None for pictures.
        reference: mean and standard deviation of each channel over the whole scan,
            where the image is only a slab of one.
    """

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, ...] | None = None
    reference: Reference = None


def fitting_pieces(
    samples: Sequence[Sample], *, pixels: int = SPATIAL_PIXELS
) -> list[Sample]:
    """Cut connected pieces out of the training cases, the same on every call.

    Cases are spread over the split. A volume keeps runs of whole planes, around places
    that are spread over its foreground; a large picture keeps the part around the
    middle of its foreground.

    Args:
        pixels: largest number of pixels in all, approximately.

    Returns:
        Smaller cases; those that fit stay whole.
    """
    count = int(np.clip(pixels // samples[0].label.size, 2, 16))
    chosen = _spread(samples, count)
    parts = max(1, _PIECES // len(chosen))
    return [
        piece for sample in chosen for piece in _pieces(sample, pixels, chosen, parts)
    ]


def thinned(samples: Sequence[Sample], *, pixels: int = POINT_PIXELS) -> list[Sample]:
    """Keep every n-th row along the longest axis, for methods that see single pixels.

    Args:
        samples: training cases; at most 64 of them, spread over the split, are kept.

    Returns:
        Smaller cases, or all of every case if they fit.
    """
    chosen = _spread(samples, 64)
    per_case = max(1, pixels // len(chosen))
    kept = []
    for sample in chosen:
        # A tenth more than the limit is accepted: a step of 2 would drop half of them.
        step = max(1, math.ceil(sample.label.size / (1.1 * per_case)))
        axis = int(np.argmax(sample.label.shape))
        every = (slice(None),) * axis + (slice(None, None, step),)
        kept.append(
            dataclasses.replace(
                sample, image=sample.image[every], label=sample.label[every]
            )
        )
    return kept


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose cases at equal distances in the list."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples)))
    return [samples[int(place)] for place in places.round()]


def _pieces(
    sample: Sample, pixels: int, chosen: Sequence[Sample], parts: int
) -> list[Sample]:
    """Cut one case; a small one stays whole."""
    limit = pixels // len(chosen)
    if sample.label.size <= limit:
        return [sample]
    if sample.label.ndim == 3:  # few whole planes rather than parts of many
        plane = sample.label.size // min(sample.label.shape)
        parts = int(np.clip(limit // (_MIN_PLANES * plane), 1, parts))
    else:
        parts = 1
    shape = _piece_shape(sample.label.shape, max(1, limit // parts))
    marked = np.nonzero(sample.label > 0)
    pieces = []
    for part in range(parts):
        box = tuple(
            _stretch(places, size, full, (part + 0.5) / parts)
            for places, size, full in zip(
                marked, shape, sample.label.shape, strict=True
            )
        )
        pieces.append(
            dataclasses.replace(
                sample, image=sample.image[box], label=sample.label[box]
            )
        )
    return pieces


def _piece_shape(shape: Sequence[int], pixels: int) -> list[int]:
    """Shorten a volume's shortest axis first, then, and in pictures, the longest."""
    sizes = list(shape)
    if len(sizes) == 3:
        axis = int(np.argmin(sizes))
        fitting = pixels * sizes[axis] // math.prod(sizes)
        sizes[axis] = min(sizes[axis], max(_MIN_PLANES, fitting))
    while math.prod(sizes) > pixels and max(sizes) > _MIN_PLANES:
        axis = int(np.argmax(sizes))
        fitting = pixels * sizes[axis] // math.prod(sizes)
        # Down to the next longest axis, so that the piece becomes square.
        others = [size for other, size in enumerate(sizes) if other != axis]
        least = max(fitting, _MIN_PLANES, min(max(others), sizes[axis] - 1))
        sizes[axis] = max(_MIN_PLANES, min(least, sizes[axis] - 1))
    return sizes


def _stretch(places: np.ndarray, size: int, full: int, fraction: float) -> slice:
    """Return a run of ``size`` around the place after a fraction of the foreground."""
    if size == full:
        return slice(0, full)
    middle = int(np.quantile(places, fraction)) if len(places) else full // 2
    first = min(max(0, middle - size // 2), full - size)
    return slice(first, first + size)
