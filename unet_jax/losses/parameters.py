"""Checks the parameters that a config gives a loss."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.errors import InputError
from unet_jax.losses.targets import Head

INVERSE_FREQUENCY = "inverse_frequency"
"""Stands for numbers from the class fractions of the training split."""

_LARGEST_WEIGHT = 1e6


@dataclasses.dataclass(frozen=True)
class Number:
    """A parameter that is a number.

    Attributes:
        low: least number.
        high: largest number.
        advice: what larger and smaller numbers do; "" for nothing to say.
    """

    low: float
    high: float
    advice: str = ""

    def __str__(self) -> str:
        """Describe the accepted values."""
        advice = f" ({self.advice})" if self.advice else ""
        return f"a number from {self.low} to {self.high}{advice}"


@dataclasses.dataclass(frozen=True)
class WholeNumber:
    """A parameter that is a whole number from low to high."""

    low: int
    high: int

    def __str__(self) -> str:
        """Describe the accepted values."""
        return f"a whole number from {self.low} to {self.high}"


@dataclasses.dataclass(frozen=True)
class Switch:
    """A parameter that is True or False."""

    def __str__(self) -> str:
        """Describe the accepted values."""
        return "True or False"


@dataclasses.dataclass(frozen=True)
class PerClass:
    """A parameter with a number for each class, or "inverse_frequency".

    Attributes:
        balances: with the sigmoid head each number is the weight in [0, 1] of the
            positives of a class, 1 minus it that of the negatives, and one number may
            stand for all classes. Otherwise the numbers are weights of classes.
    """

    balances: bool = False


@dataclasses.dataclass(frozen=True)
class Anything:
    """A parameter of a user's own function: any value that config.json can hold."""

    def __str__(self) -> str:
        """Describe the accepted values."""
        return "a number, a string, True, False, None, or a tuple of these"


Parameter = Number | WholeNumber | Switch | PerClass | Anything


def checked_parameters(
    name: str,
    given: Mapping[str, Any],
    *,
    parameters: Mapping[str, Parameter],
    required: Sequence[str],
    head: Head,
    num_classes: int | None,
) -> dict[str, Any]:
    """Refuse unknown and missing parameters, and values that cannot be computed with.

    Args:
        name: name of the loss.
        given: parameters from the config.
        parameters: the parameters that the loss has.
        required: names of those without a default.
        head: output head of the network.
        num_classes: number of classes; None before it is known.

    Returns: The parameters, with a tuple of floats for each number per class.
    Raises: InputError: an unknown parameter, a missing one, a value of another type,
        out of bounds, or a wrong number of values.
    """
    for key in given:
        if key not in parameters:
            near = difflib.get_close_matches(str(key), parameters, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"loss: {name!r} has no parameter {key!r}; "
                f"expected any of {sorted(parameters) or 'none'}{hint}"
            )
    for key in required:
        if key not in given:
            expected = _expected(parameters[key], head, num_classes)
            raise InputError(
                f"loss: {name!r} needs its parameter {key!r}, {expected}; "
                f'write ("{name}", weight, {{"{key}": value}})'
            )
    return {
        key: _checked(name, key, value, parameters[key], head, num_classes)
        for key, value in given.items()
    }


def with_class_fractions(
    name: str,
    given: Mapping[str, Any],
    class_fractions: Sequence[float] | None,
    *,
    parameters: Mapping[str, Parameter],
    head: Head,
) -> dict[str, Any]:
    """Replace "inverse_frequency" by numbers.

    Args:
        name: name of the loss.
        given: parameters from `checked_parameters`.
        class_fractions: fraction of each class in the pixels of the training split;
            None leaves the word in place.
        parameters: the parameters that the loss has.
        head: output head of the network.

    Returns: The parameters. Weights of classes are proportional to 1 / fraction and sum
        to 1. A weight of positives is the fraction of negatives; for two classes these
        are the same numbers.
    Raises: InputError: no training case has one of the classes.
    """
    given = dict(given)
    words = [key for key, value in given.items() if _is_inverse_frequency(value)]
    if class_fractions is None or not words:
        return given
    for index, fraction in enumerate(class_fractions):
        if fraction <= 0:
            raise InputError(
                f"loss: {INVERSE_FREQUENCY!r} of {name!r}: no training case has class "
                f"{index}; give the numbers"
            )
    inverse = 1 / np.asarray(class_fractions, np.float64)
    weights = tuple((inverse / inverse.sum()).tolist())
    negatives = tuple(1 - fraction for fraction in class_fractions)
    for key in words:
        given[key] = negatives if _balances(parameters[key], head) else weights
    return given


def _checked(
    name: str,
    key: str,
    value: Any,
    parameter: Parameter,
    head: Head,
    num_classes: int | None,
) -> Any:
    """Return the value if the loss can compute with it."""
    match parameter:
        case Number() | WholeNumber():
            fits = _is_number(value) and parameter.low <= value <= parameter.high
            if isinstance(parameter, WholeNumber):
                fits = fits and isinstance(value, int)
        case Switch():
            fits = isinstance(value, bool)
        case PerClass():
            fits = _fits_classes(value, num_classes, _balances(parameter, head))
            if isinstance(value, tuple | list) and fits:
                return tuple(float(one) for one in value)
        case Anything():
            fits = _is_plain(value)
    if not fits:
        raise InputError(
            f"loss: {key!r} of {name!r}: found {value!r}, expected "
            f"{_expected(parameter, head, num_classes)}"
        )
    return value


def _fits_classes(value: Any, num_classes: int | None, balances: bool) -> bool:
    """Whether a value is a number for each class, or stands for them."""
    high = 1.0 if balances else _LARGEST_WEIGHT
    if isinstance(value, tuple | list):
        return (
            num_classes in (None, len(value))
            and all(_is_number(one) and 0 <= one <= high for one in value)
            and any(value)
        )
    one_for_all = balances and _is_number(value) and 0 <= value <= high
    return value is None or _is_inverse_frequency(value) or one_for_all


def _expected(parameter: Parameter, head: Head, num_classes: int | None) -> str:
    """Describe the values that a parameter accepts."""
    if not isinstance(parameter, PerClass):
        return str(parameter)
    balances = _balances(parameter, head)
    high = 1.0 if balances else _LARGEST_WEIGHT
    count = "a" if num_classes is None else f"{num_classes}, a"
    return (
        f"{f'a number from 0 to {high}, ' if balances else ''}"
        f"a tuple of numbers from 0 to {high}, not all 0 ({count} number for each "
        f"class), or {INVERSE_FREQUENCY!r}"
    )


def _balances(parameter: Parameter, head: Head) -> bool:
    """Whether numbers weigh the positives of a class against its negatives."""
    return isinstance(parameter, PerClass) and parameter.balances and head == "sigmoid"


def _is_inverse_frequency(value: Any) -> bool:
    """Whether a value stands for numbers from the training split."""
    return isinstance(value, str) and value == INVERSE_FREQUENCY


def _is_number(value: Any) -> bool:
    """Whether a value is a finite Python number, which config.json can hold."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _is_plain(value: Any) -> bool:
    """Whether config.json can hold a value."""
    if isinstance(value, tuple | list):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | str) or _is_number(value)
