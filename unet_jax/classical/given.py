"""Checks the parameters that a config gives, and takes them out of the search."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from unet_jax.classical.grids import BOUNDS, CUTS, GRIDS, RENAMED, grid_of
from unet_jax.classical.samples import Sample
from unet_jax.errors import InputError

Seeds = list[tuple[int, tuple[int, ...]]] | None
"""Class and position of each seed of region growing; None where they are found."""


def plan_search(
    name: str,
    samples: Sequence[Sample],
    *,
    num_classes: int,
    parameters: Mapping[str, Any] | None,
) -> tuple[dict[str, tuple[Any, ...]], tuple[float, ...] | None, Seeds]:
    """Separate what is searched from what is given.

    Returns:
        The grid, in which given parameters have one value, the given cuts and the given
        seeds.

    Raises:
        InputError: an unknown method or parameter, or a value out of bounds.
    """
    if name not in GRIDS:
        raise InputError(
            f"compare.methods: unknown method {name!r}; expected one of "
            f"{', '.join(GRIDS)}"
        )
    channels = samples[0].image.shape[-1]
    references = {sample.reference for sample in samples}
    grid = grid_of(
        name,
        num_classes=num_classes,
        channels=channels,
        one_scale=len(references) == 1 and None not in references,
    )
    given = _current(name, parameters or {})
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


def _current(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Replace former names of parameters and values, with a line of advice for each."""
    renamed, current = RENAMED.get(name, {}), dict[str, Any]()
    for key, value in parameters.items():
        words = [word for word in (key, value) if isinstance(word, str)]
        for old in renamed.keys() & words:
            print(
                f"compare.parameters: {name}: {old!r} is now {renamed[old]!r}; the old "
                "name works until version 0.3"
            )
        is_word = isinstance(value, str)
        current[renamed.get(key, key)] = renamed.get(value, value) if is_word else value
    return current


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


def _given_seeds(
    name: str, given: dict[str, Any], axes: int, num_classes: int
) -> Seeds:
    """Take given seeds out of the parameters."""
    if name != "region_growing" or "seeds" not in given:
        return None
    value = given.pop("seeds")
    try:
        seeds = [(index, tuple(position)) for index, position in value]
        fits = all(
            index in range(num_classes)
            and len(position) == axes
            and all(isinstance(p, numbers.Integral) and int(p) >= 0 for p in position)
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
        elif not low <= float(value) <= high:
            problem = f"{low} to {high}"
        elif key == "window" and value % 2 == 0:
            problem = "an odd number of pixels"
        elif key == "min_size" and int(value) & (int(value) - 1):
            problem = "a power of 2"
    elif isinstance(value, bool) != isinstance(tried[0], bool) or value not in tried:
        problem = f"one of {', '.join(repr(one) for one in tried)}"
    if problem:
        raise InputError(
            f"compare.parameters: {name}: {key}: found {value!r}, expected {problem}"
        )


def _is_number(value: Any) -> bool:
    """Tell whether a value is a finite number and no bool."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
