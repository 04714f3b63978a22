"""One case read once: what it is like, and all that is wrong with it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unet_jax.data.files.read import check_finite
from unet_jax.data.files.stored import StoredImage
from unet_jax.data.folder.find import Pair
from unet_jax.data.folder.read import ReadOptions, read_case_image, read_case_label
from unet_jax.data.folder.same_place import misplaced
from unet_jax.data.preprocess import nonzero_statistics
from unet_jax.errors import InputError, InputErrors, SharedFault


@dataclasses.dataclass(frozen=True)
class ImageTraits:
    """What is known of the image of a case, whatever its mask is like.

    Attributes:
        id: of the case.
        patient: folder that it lies in; "" for none.
        images: the image, or one file a channel, or one a slice.
        kind: what several files are, one of ``case_files.KINDS``.
        shape: spatial shape on the case's axes (RAS for NIfTI).
        channels: of the image.
        dtype: stored dtype of the image.
        spacing: millimetres a pixel and axis; None if unknown.
        digest: SHA-256 of the image's pixels, in hexadecimal.
    """

    id: str
    patient: str
    images: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    channels: int
    dtype: str
    spacing: tuple[float, ...] | None
    digest: str


@dataclasses.dataclass(frozen=True)
class CaseTraits(ImageTraits):
    """What is known of one sound case without its pixels.

    Attributes:
        masks: its mask, or one a slice, or one a class.
        painted: for "parts" the value that each mask stands for.
        values: pixels of each stored label value.
        labelled: on each axis the first plane that has any but the mask's commonest
            value, and the one after the last such plane; the whole axis where there
            is no other value.
        lowest: smallest value of the image.
        highest: largest one.
        reference: mean and deviation of each channel's non-zero pixels.
        label_digest: SHA-256 of the mask's pixels, in hexadecimal.
    """

    masks: tuple[str, ...]
    painted: tuple[int, ...]
    values: dict[int, int]
    labelled: tuple[tuple[int, int], ...]
    lowest: float
    highest: float
    reference: tuple[tuple[float, float], ...]
    label_digest: str

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CaseTraits":
        """Restore what `dataclasses.asdict` and JSON made of one.

        Args:
            values: of each attribute.

        Returns:
            The traits.
        """
        parts = dict(values)
        for name in ("images", "masks", "painted", "shape"):
            parts[name] = tuple(parts[name])
        parts["spacing"] = None if parts["spacing"] is None else tuple(parts["spacing"])
        parts["reference"] = tuple((pair[0], pair[1]) for pair in parts["reference"])
        parts["labelled"] = tuple((ends[0], ends[1]) for ends in parts["labelled"])
        parts["values"] = {int(key): count for key, count in parts["values"].items()}
        return cls(**parts)


class TiffAxesError(SharedFault):
    """The pages of a TIFF were taken for slices, and seem to be channels.

    Args:
        file: its name.
        axes: what to call its axes.
    """

    def __init__(self, file: str, axes: str) -> None:
        """Say which key says it."""
        super().__init__(
            file,
            "read as a stack of slices, but the mask is a picture; expected one size; "
            "where they are channels, which the file does not say, set "
            f"data.tiff_axes={axes!r}",
        )


@dataclasses.dataclass(frozen=True)
class Examined:
    """What reading a case found.

    Attributes:
        traits: None where the case has problems.
        image: None where the image could not be read, or its axes are in doubt.
        problems: all of them.
        values: pixels of each stored label value; None where no mask could be read.
    """

    traits: CaseTraits | None
    image: ImageTraits | None
    problems: tuple[InputError, ...]
    values: dict[int, int] | None


def examine(pair: Pair, options: ReadOptions) -> Examined:
    """Read one case, and collect all that is wrong with it.

    Args:
        pair: its files.
        options: how to read.

    Returns:
        Its traits, or its problems; what is sound of image and label in any case.
    """
    image = spacing = label = stored_label = None
    stored: list[StoredImage] = []
    problems: list[InputError] = []

    def attempt(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except InputErrors as error:
            problems.extend(error.problems)
        except InputError as error:
            problems.append(error)
        return None

    found = pair.images and attempt(
        # NaN is no reason not to look at the rest.
        lambda: read_case_image(pair.images, options, kind=pair.kind, finite=False)
    )
    if found:
        image, spacing, stored = found
        for one in stored:
            attempt(functools.partial(check_finite, one.image, name=str(one.path)))
    if not pair.images:
        problems.append(
            InputError(
                f"{pair.masks[0]}: has no image of its name; add it, or take the mask "
                "away"
            )
        )
    if not pair.masks:
        problems.append(
            InputError(
                f"{pair.images[0]}: has no mask; expected one of its name; add it or "
                "move the image away"
            )
        )
    else:
        found = attempt(
            lambda: read_case_label(
                pair.masks,
                options,
                kind=pair.kind,
                painted=pair.painted,
                shape=() if image is None else image.shape[:-1],
            )
        )
        if found is not None:
            label, stored_label = found
    problems += _grid_problems(pair, image, label, stored, stored_label, options)
    values = None if label is None else _counted(label)
    doubtful = any(isinstance(problem, TiffAxesError) for problem in problems)
    if image is None or doubtful:
        return Examined(None, None, tuple(problems), values)
    of_image = _image_traits(pair, image, spacing)
    if problems or label is None or values is None:
        return Examined(None, of_image, tuple(problems), values)
    return Examined(_traits(pair, of_image, image, label, values), of_image, (), values)


def _grid_problems(
    pair: Pair,
    image: np.ndarray | None,
    label: np.ndarray | None,
    stored: Sequence[StoredImage],
    stored_label: StoredImage | None,
    options: ReadOptions,
) -> list[InputError]:
    """Name what does not lie on the image's grid."""
    # Slices lie at different places by nature.
    others = [*stored[1:], stored_label] if stored and pair.kind != "slices" else []
    problems = [
        InputError(problem)
        for other in others
        if other is not None and (problem := misplaced(stored[0], other))
    ]
    if problems or image is None or label is None or label.shape == image.shape[:-1]:
        return problems
    file, sizes = pair.images[0], stored[0].image.shape[:-1]
    if stored[0].kind == "tiff" and not options.tiff_axes and len(sizes) == 3:
        for axis, axes in enumerate(("CYX", "YCX", "YXC")):
            if (*sizes[:axis], *sizes[axis + 1 :]) == label.shape:
                return [TiffAxesError(str(file), axes)]
    return [
        InputError(
            f"{pair.masks[0]}: size {label.shape}; expected {image.shape[:-1]} as "
            f"{file.name}; export both from one grid"
        )
    ]


def _image_traits(
    pair: Pair, image: np.ndarray, spacing: tuple[float, ...] | None
) -> ImageTraits:
    """Describe an image that could be read."""
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
    )


def _traits(
    pair: Pair,
    of_image: ImageTraits,
    image: np.ndarray,
    label: np.ndarray,
    values: dict[int, int],
) -> CaseTraits:
    """Describe a sound case."""
    return CaseTraits(
        **vars(of_image),
        masks=tuple(map(str, pair.masks)),
        painted=pair.painted,
        values=values,
        labelled=_labelled(label, values),
        lowest=float(image.min()),
        highest=float(image.max()),
        reference=tuple(
            nonzero_statistics(image[..., index]) for index in range(image.shape[-1])
        ),
        label_digest=_digest(label),
    )


def _counted(label: np.ndarray) -> dict[int, int]:
    """Count the pixels of each value."""
    if label.dtype in (np.uint8, np.uint16):
        counts = np.bincount(label.ravel())
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _labelled(label: np.ndarray, values: dict[int, int]) -> tuple[tuple[int, int], ...]:
    """Where a mask has any but its commonest value: first plane and end, by axis."""
    other = label != max(values, key=values.__getitem__)
    ends = []
    for axis, size in enumerate(label.shape):
        along = other.any(tuple(k for k in range(label.ndim) if k != axis))
        planes = np.flatnonzero(along)
        ends.append((int(planes[0]), int(planes[-1]) + 1) if planes.size else (0, size))
    return tuple(ends)


def _digest(array: np.ndarray) -> str:
    """Hash shape and pixels; equal numbers of another dtype are the same image."""
    if array.dtype.kind == "f" and array.size:
        low, high = array.min(), array.max()  # NaN is none of them
        whole = low >= -(2**31) and high < 2**31 and (np.rint(array) == array).all()
        array = array.astype(np.int32 if whole else np.float32)
    if array.dtype.kind in "iu" and array.size:
        ends = [np.min_scalar_type(value) for value in (array.min(), array.max())]
        array = array.astype(np.result_type(*ends))
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
