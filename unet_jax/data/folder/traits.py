"""Examines a case: reads it once and collects its facts and problems."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.data.case_traits import CaseTraits, ImageTraits
from unet_jax.data.files.dicom import mask_kind
from unet_jax.data.files.nodata import is_class
from unet_jax.data.files.read import check_finite
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.folder.alignment import misplaced
from unet_jax.data.folder.options import ReadOptions
from unet_jax.data.folder.pairing import Pair
from unet_jax.data.folder.read import (
    StoredCase,
    joined,
    read_case_image,
    read_case_label,
)
from unet_jax.data.folder.stated import stated_colors, statements, turned
from unet_jax.data.intensity import nonzero_box, nonzero_statistics
from unet_jax.errors import InputError, InputErrors, SharedProblem, setting


class TiffAxesError(SharedProblem):
    """The pages of a TIFF were read as slices, but seem to be channels."""

    def __init__(self, file: str, axes: str) -> None:
        """Make the message."""
        super().__init__(
            file,
            "read as a stack of slices, but the mask is a picture; expected one size; "
            "if the pages are channels, which the file does not say, give "
            f"{setting('data.tiff_axes', axes)}",
        )


class TurnedError(SharedProblem):
    """An image is turned upright, and its mask has the size of the stored pixels."""

    def __init__(self, image: StoredImage) -> None:
        """Make the message."""
        name = "EXIF" if image.kind == "picture" else "TIFF"
        super().__init__(
            str(image.path),
            f"its {name} orientation {image.orientation} turns it upright, but the "
            "mask has the size of the stored pixels; expected a mask on the image as a "
            "viewer shows it; if all masks lie on the stored pixels, set "
            "--config.data.orientation=stored",
        )


@dataclasses.dataclass(frozen=True)
class Examined:
    """Result of `examine`.

    Attributes:
        image: facts of the image; None if it could not be read or its axes are in
            doubt.
        values: number of pixels of each stored label value; None if no mask could be
            read.
        stated: what the files say about their numbers, see `stated.statements`; {}
            if the image could not be read now.
    """

    traits: CaseTraits | None
    image: ImageTraits | None
    problems: tuple[InputError, ...]
    values: dict[int, int] | None
    pixels: StoredCase | None = None
    stated: Mapping[str, str] = dataclasses.field(default_factory=dict)


def examine(pair: Pair, options: ReadOptions) -> Examined:
    """Read one case once, and collect its facts and all its problems."""
    problems: list[InputError] = []
    image, spacing, stored = _attempt_image(pair, options, problems)
    shape = () if image is None else image.shape[:-1]
    label, masks = _attempt_label(pair, options, shape, stored, problems)
    problems += _grid_problems(pair, image, label, stored, masks, options)
    values = None if label is None else _counted(label)
    stated = {}
    if image is not None:
        stated = statements(stored, masks, shape=image.shape, spacing=spacing)
    doubtful = any(isinstance(problem, TiffAxesError) for problem in problems)
    if image is None or doubtful:
        return Examined(None, None, tuple(problems), values, stated=stated)
    of_image = _image_traits(pair, image, spacing)
    if problems or label is None or values is None:
        return Examined(None, of_image, tuple(problems), values, stated=stated)
    case = joined(
        image,
        label,
        spacing,
        images=stored,
        masks=masks,
        options=options,
        kind=pair.kind,
    )
    if case.missing is not None:
        if case.missing.all():
            problem = InputError(
                f"{pair.images[0]}: every pixel is nodata; expected an image with "
                "data; move it away"
            )
            return Examined(None, of_image, (problem,), values, stated=stated)
        values = _counted(case.label[~case.missing])
    traits = _traits(pair, of_image, case, values)
    traits = dataclasses.replace(traits, **_meaning(stored, masks, traits, options))
    return Examined(traits, of_image, (), values, case, stated)


def _attempt(read: Callable[[], Any], problems: list[InputError]) -> Any:
    """Return what a function reads; None, and its problems, if it fails."""
    try:
        return read()
    except InputErrors as error:
        problems.extend(error.problems)
    except InputError as error:
        problems.append(error)
    return None


def _attempt_image(
    pair: Pair, options: ReadOptions, problems: list[InputError]
) -> tuple[np.ndarray | None, tuple[float, ...] | None, list[StoredImage]]:
    """Read the image of a case, or add to the problems."""
    if not pair.images:
        problems.append(
            SharedProblem(
                str(pair.masks[0]),
                "no image has its name; add the image, or move the mask away",
            )
        )
        return None, None, []
    found = _attempt(
        # An image with NaN is examined too, to find its other problems.
        lambda: read_case_image(pair.images, options, kind=pair.kind, finite=False),
        problems,
    )
    if found is None:
        return None, None, []
    image, spacing, stored = found
    for one in stored:
        check = functools.partial(check_finite, one.image, name=str(one.path))
        _attempt(check, problems)
    return image, spacing, stored


def _attempt_label(
    pair: Pair,
    options: ReadOptions,
    shape: tuple[int, ...],
    images: Sequence[StoredImage],
    problems: list[InputError],
) -> tuple[np.ndarray | None, list[StoredImage]]:
    """Read the label of a case, or add to the problems."""
    if not pair.masks:
        problems.append(
            SharedProblem(
                str(pair.images[0]),
                "no mask has its name; add the mask, move the image away, or list the "
                "cases of the run in data.splits",
            )
        )
        return None, []
    if not images and mask_kind(pair.masks[0]):
        return None, []  # without its image it has no grid
    found = _attempt(
        lambda: read_case_label(
            pair.masks,
            options,
            kind=pair.kind,
            painted=pair.painted,
            shape=shape,
            grid=images[0] if images else None,
        ),
        problems,
    )
    return (None, []) if found is None else found


def _grid_problems(
    pair: Pair,
    image: np.ndarray | None,
    label: np.ndarray | None,
    stored: Sequence[StoredImage],
    masks: Sequence[StoredImage],
    options: ReadOptions,
) -> list[InputError]:
    """Name the files that do not lie on the image's grid."""
    # Slices always lie at different places.
    others = [*stored[1:], *masks[:1]] if stored and pair.kind != "slices" else []
    problems = [
        InputError(problem)
        for other in others
        if (problem := misplaced(stored[0], other))
    ]
    if problems or image is None or label is None or label.shape == image.shape[:-1]:
        return problems
    file, sizes = pair.images[0], stored[0].image.shape[:-1]
    turns = stored[0].orientation >= 5 > masks[0].orientation
    if turns and label.shape == sizes[::-1] and not options.orientation:
        return [TurnedError(stored[0])]
    if stored[0].kind == "tiff" and not options.tiff_axes and len(sizes) == 3:
        for axis, axes in enumerate(("CYX", "YCX", "YXC")):
            if (*sizes[:axis], *sizes[axis + 1 :]) == label.shape:
                return [TiffAxesError(str(file), axes)]
    return [
        InputError(
            f"{pair.masks[0]}: size {label.shape}; expected {image.shape[:-1]} as "
            f"{file.name}; export both on one grid"
        )
    ]


def _image_traits(
    pair: Pair, image: np.ndarray, spacing: tuple[float, ...] | None
) -> ImageTraits:
    """Collect the facts of an image."""
    return ImageTraits(
        id=pair.id,
        patient=pair.patient,
        images=tuple(map(str, pair.images)),
        kind=pair.kind,
        shape=tuple(image.shape[:-1]),
        channels=image.shape[-1],
        dtype=str(image.dtype),
        spacing=spacing,
        digest=_digest(image),
        blank=_is_blank(image),
    )


def _traits(
    pair: Pair,
    of_image: ImageTraits,
    case: StoredCase,
    values: dict[int, int],
) -> CaseTraits:
    """Collect the facts of a case without problems."""
    image, label = case.image, case.label
    seen = image if case.missing is None else image[~case.missing][None]
    box = tuple(stop - start for start, stop in nonzero_box(image))
    return CaseTraits(
        **vars(of_image),
        masks=tuple(map(str, pair.masks)),
        painted=pair.painted,
        values=values,
        labelled=_labelled(label, values),
        lowest=float(image.min()),
        nonzero_fraction=math.prod(box) / math.prod(of_image.shape),
        nonzero_shape=box,
        reference=tuple(
            nonzero_statistics(seen[..., index]) for index in range(image.shape[-1])
        ),
        label_digest=_digest(label),
    )


def _meaning(
    images: Sequence[StoredImage],
    masks: Sequence[StoredImage],
    traits: CaseTraits,
    options: ReadOptions,
) -> dict[str, Any]:
    """Collect what the files state about their numbers, to compare it over the set."""
    nodata = masks[0].nodata
    return {
        "colors": stated_colors(masks, traits.values, traits.kind),
        "nodata": int(nodata) if nodata is not None and is_class(nodata) else None,
        "missing": next(
            (one.nodata for one in images if one.missing is not None), None
        ),
        "turned": turned(images[0], masks[0], options),
    }


def _counted(label: np.ndarray) -> dict[int, int]:
    """Count the pixels of each value."""
    if label.min() >= 0 and label.max() < 2**16:  # counting is faster than sorting
        counts = np.bincount(label.ravel().astype(np.intp, copy=False))
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _labelled(label: np.ndarray, values: dict[int, int]) -> tuple[tuple[int, int], ...]:
    """Find the planes of each axis that have a value other than the commonest."""
    other = label != max(values, key=values.__getitem__)
    ends = []
    for axis, size in enumerate(label.shape):
        along = other.any(tuple(k for k in range(label.ndim) if k != axis))
        planes = np.flatnonzero(along)
        ends.append((int(planes[0]), int(planes[-1]) + 1) if planes.size else (0, size))
    return tuple(ends)


def _is_blank(image: np.ndarray) -> bool:
    """Tell whether each channel has one value only, as outside of the body."""
    first = image[(0,) * (image.ndim - 1)]
    rows = image.reshape(-1, image.shape[-1])
    # Nearly all images differ in the first pixels, which are quickly compared.
    return bool((rows[:64] == first).all() and (rows == first).all())


def _digest(array: np.ndarray) -> str:
    """Hash shape and pixels; equal numbers of another dtype are the same image."""
    if array.dtype.kind == "f" and array.size:
        low, high = array.min(), array.max()  # NaN fails both comparisons
        whole = low >= -(2**31) and high < 2**31 and (np.rint(array) == array).all()
        array = array.astype(np.int32 if whole else np.float32)
    if array.dtype.kind in "iu" and array.size:
        ends = [np.min_scalar_type(value) for value in (array.min(), array.max())]
        array = array.astype(np.result_type(*ends))
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
