"""What a config may give a loss: names, types, bounds, and shares of classes."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.errors import InputError
from unet_jax.losses.targets import Head

INVERSE_FREQUENCY = "inverse_frequency"
"""Stands for numbers from the class shares of the training split."""

_SWITCHES = ("squared", "batch_dice", "only_present")

_PRICE = (0.0, 1e6, float)
_SHARE = (0.0, 1.0, float)
_WIDTH = (1e-3, 1e6, float)

BOUNDS: dict[str, tuple[float, float, type]] = {
    # Without any smoothing a class that is absent would divide 0 by 0.
    "smooth": (1e-8, 1e6, float),
    "label_smoothing": _SHARE,
    "sensitivity_weight": _SHARE,
    "k": (1e-6, 1.0, float),
    "iterations": (0, 1000, int),
    "w0": _PRICE,
    "sigma": _WIDTH,
    "intensity_sigma": _WIDTH,
    "spatial_sigma": _WIDTH,
    "radius": (1.5, 100.0, float),  # below it a pixel has no neighbour at a corner
    "tversky alpha": _PRICE,
    "tversky beta": _PRICE,
    "focal_tversky alpha": _PRICE,
    "focal_tversky beta": _PRICE,
    "focal_tversky gamma": (0.1, 100.0, float),
    "focal gamma": (0.0, 100.0, float),
    "weighted_bce beta": _PRICE,
    "combo alpha": _SHARE,
    "combo beta": _SHARE,
    "hausdorff_dt alpha": (0.1, 10.0, float),
}
"""Least and largest number that a config may give, and its type: of a parameter, or,
where the same word means something else, of a loss and its parameter."""

_BY_CLASS = {"class_weights", "focal alpha", "balanced_bce beta"}
"""Parameters with a number a class, which can come from the training split."""

_LARGEST_WEIGHT = 1e6


def checked_parameters(
    name: str,
    parameters: Mapping[str, Any],
    options: Collection[str],
    *,
    head: Head,
    num_classes: int | None,
) -> dict[str, Any]:
    """Refuse what a loss does not have, cannot do without, or cannot compute with.

    Args:
        name: of the loss.
        parameters: from the config.
        options: parameters that the loss has.
        head: of the network.
        num_classes: of the data; None before it is known.

    Returns:
        The parameters, with a tuple of floats for each sequence.

    Raises:
        InputError: an unknown parameter, a missing one, a value of another type, out of
            bounds, or not one a class.
    """
    unknown = sorted(set(parameters) - set(options))
    if unknown:
        raise InputError(
            f"loss: {name!r} has no parameter {unknown[0]!r}; "
            f"expected any of {sorted(options) or 'none'}"
        )
    if name == "weighted_bce" and not _is_number(parameters.get("beta")):
        raise InputError(
            "loss: 'weighted_bce' needs its parameter 'beta', a number: above 1 for "
            "fewer false negatives, below 1 for fewer false positives"
        )
    return {
        key: _checked(name, key, value, head, num_classes)
        for key, value in parameters.items()
    }


def _checked(
    name: str, key: str, value: Any, head: Head, num_classes: int | None
) -> Any:
    """One value, if it is one that the loss can compute with."""
    if key in _BY_CLASS or f"{name} {key}" in _BY_CLASS:
        return _checked_by_class(name, key, value, head, num_classes)
    if key in _SWITCHES:
        fits, expected = isinstance(value, bool), "True or False"
    else:
        low, high, kind = BOUNDS.get(f"{name} {key}") or BOUNDS[key]
        fits = _is_number(value) and low <= value <= high
        fits = fits and (kind is float or isinstance(value, int))
        expected = f"a {'whole ' if kind is int else ''}number from {low} to {high}"
    if not fits:
        raise InputError(
            f"loss: {key!r} of {name!r}: found {value!r}, expected {expected}"
        )
    return value


def _checked_by_class(
    name: str, key: str, value: Any, head: Head, num_classes: int | None
) -> Any:
    """Numbers of classes, or what stands for them."""
    if value is None or (isinstance(value, str) and value == INVERSE_FREQUENCY):
        return value
    # One alpha or beta is for the positives of each class; 1 - it for the negatives.
    share = key == "beta" or (key == "alpha" and head == "sigmoid")
    high = 1.0 if share else _LARGEST_WEIGHT
    if share and _is_number(value) and 0 <= value <= high:
        return value
    if (
        isinstance(value, tuple | list)
        and num_classes in (None, len(value))
        and all(_is_number(one) and 0 <= one <= high for one in value)
        and any(value)
    ):
        return tuple(float(one) for one in value)
    count = "a" if num_classes is None else f"{num_classes}, a"
    raise InputError(
        f"loss: {key!r} of {name!r}: found {value!r}, expected "
        f"{f'a number from 0 to {high}, ' if share else ''}"
        f"a tuple of numbers from 0 to {high}, not all 0 ({count} number for each "
        f"class), or {INVERSE_FREQUENCY!r}"
    )


def _is_number(value: Any) -> bool:
    """A finite number of Python, as the record of a run can hold."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def with_shares(
    name: str,
    parameters: Mapping[str, Any],
    shares: Sequence[float] | None,
    *,
    head: Head,
) -> dict[str, Any]:
    """Put numbers for "inverse_frequency".

    Args:
        name: of the loss.
        parameters: from `checked_parameters`.
        shares: share of each class in the pixels of the training split; None leaves the
            word where it stands.
        head: of the network.

    Returns:
        The parameters. Weights are in proportion to 1 / share and add up to 1. What
        weighs the positives of a class against its negatives (beta, and alpha of the
        sigmoid head) is the share of its negatives; of two classes the weights are the
        same.

    Raises:
        InputError: a class that no training case has.
    """
    given = dict(parameters)
    if shares is None or INVERSE_FREQUENCY not in given.values():
        return given
    absent = [index for index, share in enumerate(shares) if share <= 0]
    if absent:
        raise InputError(
            f"loss: {INVERSE_FREQUENCY!r} of {name!r}: no training case has class "
            f"{absent[0]}; give the numbers"
        )
    inverse = 1 / np.asarray(shares, np.float64)
    weights = tuple((inverse / inverse.sum()).tolist())
    negatives = tuple(1 - share for share in shares)
    for key, value in given.items():
        if value == INVERSE_FREQUENCY:
            against = key == "beta" or (key == "alpha" and head == "sigmoid")
            given[key] = negatives if against else weights
    return given
