"""Holds the facts that reading a case once gives: sizes, values, digests."""

import dataclasses
from typing import Any

from unet_jax.data.files.stored import Color


@dataclasses.dataclass(frozen=True)
class ImageTraits:
    """Facts of the image of a case, independent of its mask.

    Attributes:
        shape: spatial shape on the case's axes (RAS for NIfTI).
        spacing: millimetres per pixel and axis; None if unknown.
        digest: SHA-256 of the image's pixels, in hexadecimal.
        blank: whether each channel has one value only.
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
    blank: bool


@dataclasses.dataclass(frozen=True)
class CaseTraits(ImageTraits):
    """Facts of one case without problems.

    Attributes:
        values: number of pixels of each stored label value.
        labelled: on each axis, the first plane with a value other than the mask's
            commonest one, and the plane after the last such plane; the whole axis if
            the mask has one value only.
        lowest: smallest value of the image.
        nonzero_fraction: fraction of the image in the box of its non-zero pixels.
        nonzero_shape: size of this box; None in facts that an earlier version kept.
        reference: mean and standard deviation of each channel's non-zero pixels.
        label_digest: SHA-256 of the mask's pixels, in hexadecimal.
        colors: value, colour and mask for each value of which a mask states the colour.
        nodata: value of the mask that it declares as missing; None for none.
        missing: value of pixels that the image declares as missing; None for none.
        turned: what sizes say about an image that is turned upright and its mask, see
            `stated.turned`.
    """

    masks: tuple[str, ...]
    painted: tuple[int, ...]
    values: dict[int, int]
    labelled: tuple[tuple[int, int], ...]
    lowest: float
    nonzero_fraction: float
    reference: tuple[tuple[float, float], ...]
    label_digest: str
    colors: tuple[tuple[int, Color, str], ...] = ()
    nodata: int | None = None
    missing: float | None = None
    turned: str = ""
    nonzero_shape: tuple[int, ...] | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CaseTraits":
        """Restore facts that `dataclasses.asdict` and JSON converted."""
        parts = dict(values)
        parts.pop("highest", None)  # version 0.1 wrote it
        for name in ("images", "masks", "painted", "shape"):
            parts[name] = tuple(parts[name])
        parts["spacing"] = None if parts["spacing"] is None else tuple(parts["spacing"])
        parts["reference"] = tuple((pair[0], pair[1]) for pair in parts["reference"])
        parts["labelled"] = tuple((ends[0], ends[1]) for ends in parts["labelled"])
        parts["colors"] = tuple(
            (value, (color[0], color[1], color[2]), mask)
            for value, color, mask in parts["colors"]
        )
        if box := parts.get("nonzero_shape"):
            parts["nonzero_shape"] = tuple(box)
        parts["values"] = {int(key): count for key, count in parts["values"].items()}
        return cls(**parts)
