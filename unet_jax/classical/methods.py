"""Every classical method by its name, fitted on training cases."""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.classical.clustering import make_kmeans, make_kmeans_position
from unet_jax.classical.discontinuity import make_discontinuity
from unet_jax.classical.edges import make_contours, make_watershed
from unet_jax.classical.grids import BOUNDS, CUTS, GRIDS, grid_of
from unet_jax.classical.quadtree import make_split_and_merge
from unet_jax.classical.regions import make_growing
from unet_jax.classical.samples import (
    SPATIAL_PIXELS,
    Reference,
    Sample,
    fitting_pieces,
    thinned,
)
from unet_jax.classical.search import Model, best_model
from unet_jax.classical.thresholds import (
    adaptive_field,
    make_leveled,
    make_otsu,
    niblack_field,
    sauvola_field,
)
from unet_jax.errors import InputError

METHODS = tuple(GRIDS)
"""Names of the methods, in the order of the table."""

_BY_PIXEL = ("manual_threshold", "otsu", "kmeans")
"""Methods that see each pixel by itself: they need no connected pieces."""

_PIXELS = {
    "manual_threshold": 4 * SPATIAL_PIXELS,
    "otsu": 4 * SPATIAL_PIXELS,
    "split_and_merge": SPATIAL_PIXELS // 2,
    "kmeans_position": SPATIAL_PIXELS // 2,
}
"""Quick methods are fitted on more, slow ones on fewer pixels than the others."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted method.

    Attributes:
        predict_fn: ``(image (*spatial, channels), spacing, *, reference=None) -> labels
            (*spatial)`` uint8 class indices.
        chosen: what was fitted, JSON-ready.
    """

    predict_fn: Callable[..., np.ndarray]
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

    The parameters that are free are chosen from committed grids (`grids`), by mean
    foreground Dice on a bounded part of the training cases (`samples`), the same on
    every call.

    Args:
        name: one of ``METHODS``.
        samples: labelled training cases, at least one.
        num_classes: number of classes, at least 2.
        seed: of k-means.
        parameters: values that are given, and so not fitted.

    Returns:
        The method as a ``predict_fn``, and what was chosen.

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
    grid, cuts, seeds = _plan(name, samples, num_classes, parameters)
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
        image: np.ndarray,
        spacing: tuple[float, ...] | None,
        *,
        reference: Reference = None,
    ) -> np.ndarray:
        labels = model.predict(image, spacing, reference)
        return labels.astype(np.uint8 if num_classes <= 256 else np.uint16, copy=False)

    return Fitted(predict_fn, model.chosen)


def check_parameters(
    name: str,
    samples: Sequence[Sample],
    *,
    num_classes: int,
    parameters: Mapping[str, Any] | None,
) -> None:
    """Refuse what `fit_method` would refuse, before any work.

    Args:
        name: one of ``METHODS``.
        samples: labelled training cases, at least one.
        num_classes: number of classes.
        parameters: values that are given.

    Raises:
        InputError: an unknown method or parameter, or a value out of bounds.
    """
    _plan(name, samples, num_classes, parameters)


def _plan(
    name: str,
    samples: Sequence[Sample],
    num_classes: int,
    parameters: Mapping[str, Any] | None,
) -> tuple[dict[str, tuple[Any, ...]], tuple[float, ...] | None, Any]:
    """Return the grid that is searched, and cuts and seeds where they are given."""
    if name not in METHODS:
        raise InputError(
            f"compare.methods: unknown method {name!r}; expected one of "
            f"{', '.join(METHODS)}"
        )
    if not samples:
        raise InputError(f"{name}: found no labelled training case, expected one")
    channels = samples[0].image.shape[-1]
    references = {sample.reference for sample in samples}
    grid = grid_of(
        name,
        num_classes=num_classes,
        channels=channels,
        one_scale=len(references) == 1 and None not in references,
    )
    given = dict(parameters or {})
    cuts = _given_cuts(name, given)
    seeds = _given_seeds(name, given, samples[0].label.ndim, num_classes)
    for key, value in given.items():
        if key not in grid:
            known = [*grid, *([CUTS[name]] if name in CUTS else [])]
            known += ["seeds"] if name == "region_growing" else []
            raise InputError(
                f"compare.parameters: {name} has no parameter {key!r}; expected any "
                f"of {', '.join(known)}"
            )
        _check(name, key, value, grid[key])
        grid[key] = (value,)
    return grid, cuts, seeds


def _maker(
    name: str,
    pieces: Sequence[Sample],
    *,
    num_classes: int,
    seed: int,
    cuts: tuple[float, ...] | None,
    seeds: Any,
) -> Callable[..., Model]:
    """Return what makes a model of one method from its parameters."""
    base: dict[str, Any] = {"num_classes": num_classes}
    match name:
        case "manual_threshold":

            def manual(*, channel: Any) -> Model:
                return make_leveled(
                    pieces, **base, field=_itself, channel=channel, mask="all",
                    name=CUTS[name], cuts=cuts, chosen={"channel": channel},
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

            def discontinuous(*, feature: str, **values: Any) -> Model:
                return make_discontinuity(
                    pieces, **base, feature_name=feature, **values
                )

            return discontinuous
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


def _itself(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The field of fixed thresholds."""
    del inside
    return values


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
    """Thresholds that follow the neighbourhood, at one window."""
    chosen: dict[str, Any] = {"window": window, "mask": mask, "channel": channel}
    low, high = _value_range(pieces)
    match name:
        case "adaptive_gaussian" | "adaptive_mean":
            kind = name.removeprefix("adaptive_")
            field = functools.partial(adaptive_field, window=window, method=kind)
        case "niblack":
            field = functools.partial(niblack_field, window=window)
        case _:
            # The rule is for values from zero up, as those of a page are.
            chosen["r"] = (high - low) / 2 or 1.0

            def field(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
                shifted = np.maximum(values - min(low, 0.0), 0)
                return sauvola_field(shifted, inside, window=window, r=chosen["r"])

    return make_leveled(
        pieces, **base, field=field, channel=channel, mask=mask, name=CUTS[name],
        cuts=cuts, sign=-1, chosen=chosen,
    )  # fmt: skip


def _value_range(pieces: Sequence[Sample]) -> tuple[float, float]:
    """Smallest and largest value of training."""
    return (
        min(float(piece.image.min()) for piece in pieces),
        max(float(piece.image.max()) for piece in pieces),
    )


# ---- what a config gives -------------------------------------------------------------


def _given_cuts(name: str, given: dict[str, Any]) -> tuple[float, ...] | None:
    """Take given thresholds, offsets or k out of the parameters."""
    key = CUTS.get(name)
    if key is None or key not in given:
        return None
    value = given.pop(key)
    cuts = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not cuts or not all(_is_number(cut) for cut in cuts):
        raise InputError(
            f"compare.parameters: {name}: {key}: found {value!r}, expected numbers "
            "such as (60,)"
        )
    return tuple(float(cut) for cut in cuts)


def _given_seeds(name: str, given: dict[str, Any], axes: int, num_classes: int) -> Any:
    """Take given seeds out of the parameters."""
    if name != "region_growing" or "seeds" not in given:
        return None
    value = given.pop("seeds")
    try:
        seeds = [(index, tuple(position)) for index, position in value]
        fits = all(
            index in range(num_classes)
            and len(position) == axes
            and all(isinstance(p, numbers.Integral) and p >= 0 for p in position)
            for index, position in seeds
        )
    except (TypeError, ValueError):
        seeds, fits = [], False
    if not seeds or not fits:
        place = ", ".join(("12", "40", "7")[:axes])
        raise InputError(
            f"compare.parameters: region_growing: seeds: found {value!r}, expected "
            f"pairs of a class below {num_classes} and a pixel, such as "
            f"((1, ({place})),)"
        )
    return seeds


def _check(name: str, key: str, value: Any, tried: Sequence[Any]) -> None:
    """Refuse a value that the method cannot use."""
    problem = ""
    if key in BOUNDS:
        low, high, kind = BOUNDS[key]
        whole = kind is int
        if not _is_number(value) or (whole and not isinstance(value, numbers.Integral)):
            problem = f"a {'whole ' if whole else ''}number from {low} to {high}"
        elif not low <= value <= high:
            problem = f"{low} to {high}"
        elif key == "window" and value % 2 == 0:
            problem = "an odd number of pixels"
        elif key == "min_size" and value & (value - 1):
            problem = "a power of 2"
    elif isinstance(value, bool) != isinstance(tried[0], bool) or value not in tried:
        problem = f"one of {', '.join(repr(one) for one in tried)}"
    if problem:
        raise InputError(
            f"compare.parameters: {name}: {key}: found {value!r}, expected {problem}"
        )


def _is_number(value: Any) -> bool:
    """A finite number that is no truth value."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )
