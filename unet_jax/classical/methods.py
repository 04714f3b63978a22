"""Fits a classical method, by its name, on training cases."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.classical.clustering import make_kmeans, make_kmeans_position
from unet_jax.classical.discontinuity import make_discontinuity
from unet_jax.classical.edges import make_contours, make_watershed
from unet_jax.classical.given import plan_search
from unet_jax.classical.grids import CUTS, GRIDS
from unet_jax.classical.quadtree import make_split_and_merge
from unet_jax.classical.regions import make_growing
from unet_jax.classical.samples import SPATIAL_PIXELS, Sample, fitting_pieces, thinned
from unet_jax.classical.search import Model, best_model
from unet_jax.classical.thresholds import (
    Field,
    adaptive_field,
    make_leveled,
    make_otsu,
    niblack_field,
    sauvola_field,
)
from unet_jax.errors import InputError
from unet_jax.method import Method, Reference, Spacing

METHODS = tuple(GRIDS)
"""Names of the methods, in the order of the table."""

_BY_PIXEL = ("manual_threshold", "otsu", "kmeans")
"""Methods that look at single pixels and need no connected pieces."""

_PIXELS = {
    "manual_threshold": 8 * SPATIAL_PIXELS,
    "otsu": 8 * SPATIAL_PIXELS,
    "split_and_merge": SPATIAL_PIXELS // 2,
    "kmeans_position": SPATIAL_PIXELS // 2,
}
"""Quick methods are fitted on more, slow ones on fewer pixels than the others."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted method, whose labels are uint8, and its JSON-ready parameters."""

    predict_fn: Method
    chosen: dict[str, Any]


def fit_method(
    name: str,
    samples: Sequence[Sample],
    *,
    num_classes: int,
    seed: int = 0,
    parameters: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit a classical method on training cases.

    The free parameters are chosen from committed grids (`grids`), by mean foreground
    Dice on a bounded part of the training cases (`samples`), the same on every call.

    Args:
        name: one of ``METHODS``.
        samples: labelled training cases, at least one.
        num_classes: number of classes, at least 2.
        seed: seed of k-means.
        parameters: values that are given and not fitted.

    Raises:
        InputError: an unknown method or parameter, or a value out of bounds.

    Example:
        >>> import numpy as np
        >>> image = np.array([[10, 10, 60, 61, 200, 200]], np.uint8)
        >>> sample = Sample(image[..., None], (image > 60).astype(int))
        >>> fitted = fit_method("manual_threshold", [sample], num_classes=2)
        >>> fitted.chosen["thresholds"]
        [60.0]
        >>> fitted.predict_fn(np.array([[[60], [61]]], np.uint8), None)
        array([[0, 1]], dtype=uint8)
    """
    if not samples:
        raise InputError(f"{name}: found no labelled training case, expected one")
    grid, cuts, seeds = plan_search(
        name, samples, num_classes=num_classes, parameters=parameters
    )
    pixels = _PIXELS.get(name, SPATIAL_PIXELS)
    if name in _BY_PIXEL:
        pieces = thinned(samples, pixels=pixels)
    else:
        pieces = fitting_pieces(samples, pixels=pixels)
    make = _maker(
        name, pieces, num_classes=num_classes, seed=seed, cuts=cuts, seeds=seeds
    )
    model = best_model(make, grid, pieces, num_classes)

    def predict_fn(
        image: np.ndarray, spacing: Spacing, *, reference: Reference = None
    ) -> np.ndarray:
        labels = model.predict(image, spacing, reference)
        return labels.astype(np.uint8 if num_classes <= 256 else np.uint16, copy=False)

    return Fitted(Method(predict_fn, wants_reference=True), model.chosen)


def _maker(
    name: str,
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    seed: int,
    cuts: tuple[float, ...] | None,
    seeds: Any,
) -> Callable[..., Model]:
    """Return the function that makes a model of one method from its parameters."""
    base: dict[str, Any] = {"num_classes": num_classes}
    match name:
        case "manual_threshold":

            def manual(*, channel: Any) -> Model:
                return make_leveled(
                    pieces, **base, field=lambda values, _: values, channel=channel,
                    mask="all", name=CUTS[name], cuts=cuts, chosen={"channel": channel},
                )  # fmt: skip

            return manual
        case "adaptive_gaussian" | "adaptive_mean" | "niblack" | "sauvola":
            return functools.partial(_local, name, pieces, cuts, base)
        case "otsu":
            return functools.partial(make_otsu, pieces, **base)
        case "sobel" | "prewitt" | "log" | "canny":
            return functools.partial(make_contours, pieces, **base, operator=name)
        case "watershed":
            return functools.partial(make_watershed, pieces, **base)
        case "discontinuity":
            return functools.partial(make_discontinuity, pieces, **base)
        case "region_growing":
            return functools.partial(make_growing, pieces, **base, seeds=seeds)
        case "split_and_merge":
            return functools.partial(make_split_and_merge, pieces, **base)
        case "kmeans":
            return functools.partial(make_kmeans, pieces, **base, seed=seed)
        case "kmeans_position":
            return functools.partial(make_kmeans_position, pieces, **base, seed=seed)
        case _:
            raise InputError(f"compare.methods: unknown method {name!r}")


def _local(
    name: str,
    pieces: Sequence[Sample],
    cuts: tuple[float, ...] | None,
    base: Mapping[str, Any],
    *,
    window: int,
    mask: str,
    channel: int | str,
) -> Model:
    """Make thresholds that follow the neighbourhood, for one window."""
    chosen: dict[str, Any] = {"window": window, "mask": mask, "channel": channel}
    low = min(float(piece.image.min()) for piece in pieces)
    high = max(float(piece.image.max()) for piece in pieces)
    field: Field
    match name:
        case "adaptive_gaussian" | "adaptive_mean":
            kind = name.removeprefix("adaptive_")
            field = functools.partial(adaptive_field, window=window, method=kind)
        case "niblack":
            field = functools.partial(niblack_field, window=window)
        case _:
            chosen["r"] = (high - low) / 2 or 1.0
            field = functools.partial(
                _sauvola, lowest=min(low, 0.0), window=window, r=chosen["r"]
            )

    return make_leveled(
        pieces, **base, field=field, channel=channel, mask=mask, name=CUTS[name],
        cuts=cuts, sign=-1, chosen=chosen,
    )  # fmt: skip


def _sauvola(
    values: np.ndarray, inside: np.ndarray, *, lowest: float, window: int, r: float
) -> np.ndarray:
    """Return Sauvola's field of values that are shifted to start at zero."""
    return sauvola_field(np.maximum(values - lowest, 0), inside, window=window, r=r)
