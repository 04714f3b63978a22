"""Summarises a data set in numbers, and chooses settings for it.

The rules follow nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): medians
decide, the fine stages do not mix thick slices, and the patch is as large as a memory
budget allows.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unet_jax.data.case_traits import CaseTraits

THICK = 3.0
"""Slices count as thick from this ratio of their distance to the pixels' size."""

_MOSTLY_USED = 0.75  # of an image, from which empty pixels are intensities, as nnU-Net
_STAGES_2D, _STAGES_3D = 6, 5
_COARSEST = 4  # pixels that the coarsest stage keeps on an axis
_BYTES = 4  # float32
_COPIES = 6  # copies of a stage's output in training: both sides, gradients, norms
_REFERENCE_2D, _REFERENCE_3D = 4, 2


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """A data set in numbers.

    Attributes:
        shape: median size of each axis, in pixels of the median spacing.
        spacing: median millimetres per pixel on each axis; None if unknown.
        lowest: smallest value of all images.
        nonzero_fraction: median fraction of an image in the box of its non-zero pixels.
    """

    cases: int
    axes: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    channels: int
    dtypes: tuple[str, ...]
    lowest: float
    nonzero_fraction: float = 1.0

    @property
    def thick_axis(self) -> int | None:
        """Axis across thick slices; None if there are none."""
        if self.axes != 3:
            return None
        sizes = self.spacing or (1.0, 1.0, 1.0)
        axis = int(np.argmax(sizes))
        others = [size for other, size in enumerate(sizes) if other != axis]
        return axis if sizes[axis] >= THICK * max(others) else None


def fingerprint(traits: Sequence[CaseTraits]) -> Fingerprint:
    """Summarise the cases of a data set."""
    spacings = [case.spacing for case in traits if case.spacing is not None]
    shapes = np.array([case.shape for case in traits], np.float64)
    middle = np.median(np.array(spacings), axis=0).tolist() if spacings else None
    if middle is not None and len(spacings) == len(traits):
        # On the common grid, as training will see them.
        shapes = shapes * np.array(spacings) / np.array(middle)
    return Fingerprint(
        cases=len(traits),
        axes=len(traits[0].shape),
        shape=tuple(round(float(size)) for size in np.median(shapes, axis=0)),
        spacing=None if middle is None else tuple(middle),
        channels=traits[0].channels,
        dtypes=tuple(sorted({case.dtype for case in traits})),
        lowest=min(case.lowest for case in traits),
        nonzero_fraction=float(np.median([case.nonzero_fraction for case in traits])),
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings for a data set, with the names of the config."""

    dims: int
    slice_axis: int
    intensity: str
    crop_nonzero: bool
    zero_outside: bool
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    flip_axes: tuple[int, ...]
    rotation_degrees: tuple[float, float]


def suggest(
    data: Fingerprint,
    *,
    dims: int | None,
    slice_axis: int | None,
    base_features: int,
    max_features: int,
    batch_size: int | None,
    patch_size: tuple[int, ...] | None,
    max_patch: int,
    memory_bytes: float,
    accelerated: bool,
    devices: int,
) -> Settings:
    """Choose settings for a data set.

    Patch and stages follow from the data and from the memory at a reference batch. A
    given batch changes neither.

    Args:
        dims: 2 or 3; None chooses 2 for pictures, for thick slices and without an
            accelerator, else 3.
        slice_axis: axis across the slices; None chooses the thickest, or 2.
        base_features: number of channels of the finest stage; each coarser stage has
            twice as many.
        batch_size: number of crops per update; None chooses what the budget allows.
        patch_size: pixels of a crop on each axis; None chooses what the budget allows.
        max_patch: largest size of an axis of a 2-D patch.
        memory_bytes: memory for the activations of a training step, in bytes.
        accelerated: whether there is a GPU or TPU. 3-D steps are so slow on a CPU that
            a network learns more from slices in the same time.
        devices: number of devices; a chosen batch size is a multiple of it.
    """
    thick = data.thick_axis
    if dims is None:
        dims = 3 if data.axes == 3 and thick is None and accelerated else 2
    if slice_axis is None:
        slice_axis = 2 if thick is None else thick
    shape, sizes = list(data.shape), list(data.spacing or (1.0,) * data.axes)
    if dims == 2 and data.axes == 3:
        del shape[slice_axis], sizes[slice_axis]
    limit = max_patch if dims == 2 else 128
    budget = memory_bytes / (_COPIES * _BYTES)
    reference = _REFERENCE_2D if dims == 2 else _REFERENCE_3D
    chosen = patch_size or _largest_patch(
        shape, sizes, limit, budget / reference, base_features, max_features
    )
    kernels, strides = _topology(chosen, sizes)
    features = _features(len(kernels), base_features, max_features)
    if patch_size is None:
        chosen = _to_multiples(chosen, strides)
    cost = _activations(chosen, strides, features)
    flip_axes, rotation_degrees = _augmentation(data, dims)
    return Settings(
        dims=dims,
        slice_axis=slice_axis,
        intensity=_intensity(data),
        crop_nonzero=data.axes == 3,
        zero_outside=data.nonzero_fraction < _MOSTLY_USED,
        patch_size=chosen,
        batch_size=batch_size
        or _divisible(budget / cost, least=reference, most=16, by=devices),
        features=features,
        kernel_sizes=kernels,
        strides=strides,
        flip_axes=flip_axes,
        rotation_degrees=rotation_degrees,
    )


def _augmentation(
    data: Fingerprint, dims: int
) -> tuple[tuple[int, ...], tuple[float, float]]:
    """Choose the axes to mirror and the angles to rotate by."""
    # Photographs have an up and a down; microscope images do not.
    photographs = data.axes == 2 and data.channels == 3
    upright = photographs or data.axes == 3
    flip_axes = (1,) if photographs else tuple(range(dims))
    return flip_axes, (-30.0, 30.0) if upright else (-180.0, 180.0)


def _intensity(data: Fingerprint) -> str:
    """Choose the scheme: absolute if values have a fixed meaning, else per image."""
    if data.axes == 3 and data.lowest <= -500:
        return "percentile"  # Hounsfield units
    if data.channels == 3 and data.dtypes == ("uint8",):
        return "full_range"
    return "zscore"


def suggested_intensity(traits: Sequence[CaseTraits]) -> str:
    """Choose the normalisation of a data set."""
    return _intensity(fingerprint(traits))


def _divisible(value: float, *, least: int, most: int, by: int) -> int:
    """Round to an even number within limits, and up to a multiple of the devices."""
    even = min(max(int(value) // 2 * 2, least), most)
    return -(-even // by) * by


def _features(stages: int, base: int, most: int) -> tuple[int, ...]:
    """Double from stage to stage, up to a maximum."""
    return tuple(min(base * 2**stage, most) for stage in range(stages))


def _topology(
    patch: Sequence[int], sizes: Sequence[float]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Choose kernel sizes and strides: halve fine axes until all axes are small.

    An axis whose pixels are at least twice as far apart as those of the finest axis is
    neither halved nor mixed by the kernel until the other axes are as coarse.
    """
    extent, size = list(patch), list(sizes)
    kernels: list[tuple[int, ...]] = []
    strides: list[tuple[int, ...]] = []
    mixed = [False] * len(extent)
    while True:
        finest = min(size)
        mixed = [m or s < 2 * finest for m, s in zip(mixed, size, strict=True)]
        kernels.append(tuple(3 if m else 1 for m in mixed))
        halved = [
            n >= 2 * _COARSEST and s < 2 * finest
            for n, s in zip(extent, size, strict=True)
        ]
        if not any(halved) or len(kernels) == (_STAGES_2D, _STAGES_3D)[len(extent) - 2]:
            return tuple(kernels), tuple(strides)
        step = tuple(2 if half else 1 for half in halved)
        strides.append(step)
        extent = [-(-n // k) for n, k in zip(extent, step, strict=True)]
        size = [s * k for s, k in zip(size, step, strict=True)]


def _largest_patch(
    shape: Sequence[int],
    sizes: Sequence[float],
    limit: int,
    budget: float,
    base: int,
    most: int,
) -> tuple[int, ...]:
    """Shrink the image's shape, longest extent first, until it fits the budget."""
    patch = [min(size, limit) for size in shape]
    while True:
        kernels, strides = _topology(patch, sizes)
        features = _features(len(kernels), base, most)
        if _activations(patch, strides, features) <= budget:
            return tuple(patch)
        longest = int(np.argmax([n * s for n, s in zip(patch, sizes, strict=True)]))
        if patch[longest] <= 2 * _COARSEST:
            return tuple(patch)
        patch[longest] = max(2 * _COARSEST, math.floor(patch[longest] * 0.93))


def _to_multiples(
    patch: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    """Round each axis to a multiple of its total stride."""
    totals = [math.prod(axis) for axis in zip(*strides, strict=True)]
    totals = totals or [1] * len(patch)
    return tuple(
        max(round(size / total), 1) * total
        for size, total in zip(patch, totals, strict=True)
    )


def _activations(
    patch: Sequence[int], strides: Sequence[Sequence[int]], features: Sequence[int]
) -> float:
    """Count the values of all stages of one crop, with two convolutions each."""
    size, count = list(patch), 0.0
    for stage, width in enumerate(features):
        if stage:
            size = [-(-n // k) for n, k in zip(size, strides[stage - 1], strict=True)]
        count += 2 * math.prod(size) * width
    return count
