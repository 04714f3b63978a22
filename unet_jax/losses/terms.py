"""Makes the terms of the training loss from the entries of a config."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array

from unet_jax.errors import InputError, setting
from unet_jax.losses.parameters import (
    INVERSE_FREQUENCY,
    checked_parameters,
    with_class_fractions,
)
from unet_jax.losses.reduction import Kind
from unet_jax.losses.table import LOSSES, Loss
from unet_jax.losses.targets import Head
from unet_jax.losses.user_loss import found_kind, user_loss
from unet_jax.runtime.user_code import is_user_code, load_function


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One summand of the training loss.

    Attributes:
        name: name in the config and in metrics.jsonl.
        weight: factor in the sum.
        function: the loss with its parameters.
        kind: what the loss has one value for; None where the shape tells.
        pooled: the function pools over the global batch and needs the axis name.
        reads: names of the inputs that the function is given.
        head: output head of the network.
    """

    name: str
    weight: float
    function: Callable[..., Array]
    kind: Kind | None
    pooled: bool
    reads: tuple[str, ...] = ("logits", "labels")
    head: Head = "softmax"


def create_loss_terms(
    spec: Sequence[Any],
    *,
    head: Head = "softmax",
    class_fractions: Sequence[float] | None = None,
    num_classes: int | None = None,
    patch_size: Sequence[int] | None = None,
) -> tuple[LossTerm, ...]:
    """Turn ``(("dice", 1.0, {}), ...)`` of a config into loss functions.

    Args:
        spec: entries ``(name, weight, parameters)``, one for each term.
        head: output head of the network.
        class_fractions: fraction of each class in the pixels of the training split,
            for "inverse_frequency"; None before it is known: the terms can then be
            checked, not called.
        num_classes: number of classes, for parameters with a number for each class;
            None before it is known.
        patch_size: spatial size of the training crops, with which a function of the
            user's own module is tried; None before it is known.

    Returns: The terms, in order.
    Raises: InputError: an unknown name or parameter, a missing parameter, a value that
        the loss cannot compute with, a loss that the head does not have, an entry of
        another form, or no entry.
    """
    if not spec:
        raise InputError('loss: found (), expected e.g. (("dice", 1.0, {}),)')
    if num_classes is None and class_fractions is not None:
        num_classes = len(class_fractions)
    size = None if patch_size is None else tuple(patch_size)
    return tuple(
        _create_term(entry, head, class_fractions, num_classes, size) for entry in spec
    )


def needs_class_fractions(spec: Sequence[tuple[str, float, dict[str, Any]]]) -> bool:
    """Return whether a loss is weighted by the class fractions of the training split.

    Args:
        spec: name, weight and parameters of each term.
    """
    return any(
        isinstance(value, str) and value == INVERSE_FREQUENCY
        for _, _, parameters in spec
        for value in parameters.values()
    )


def reads_labels(spec: Sequence[tuple[str, float, dict[str, Any]]]) -> bool:
    """Return whether any loss of a config reads a label; not so for images alone.

    Args:
        spec: name, weight and parameters of each term.
    """
    return any("labels" in find_loss(name).reads for name, _, _ in spec)


def find_loss(name: str) -> Loss:
    """Return the row of a loss.

    Args:
        name: a name of the table, or ``"package.module:function"``.

    Raises: InputError: an unknown name, or a function that is no loss.

    Example:
        >>> find_loss("dice").kind
        'class'
    """
    if isinstance(name, str) and is_user_code(name):
        try:
            function = load_function(name)
        except InputError as error:
            raise InputError(f"loss: {error}") from error
        return user_loss(name, function)
    known = {loss.name: loss for loss in LOSSES}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"loss: unknown loss {name!r}; expected one of "
        f"{', '.join(map(repr, known))}, or 'package.module:function'{hint}"
    )


def _create_term(
    entry: Any,
    head: Head,
    class_fractions: Sequence[float] | None,
    num_classes: int | None,
    patch_size: tuple[int, ...] | None,
) -> LossTerm:
    """Build one term; check its name and parameters against its row."""
    try:
        name, weight, given = entry
        weight, given = float(weight), dict(given)
    except (TypeError, ValueError):
        raise InputError(
            f"loss: found the entry {entry!r}, expected (name, weight, parameters) "
            f'such as ("dice", 1.0, {{}})'
        ) from None
    if not 0 <= weight < math.inf:
        raise InputError(
            f"loss: weight of {name!r}: found {weight}, expected a number from 0 on"
        )
    loss = find_loss(name)
    if loss.head not in (None, head):
        raise InputError(
            f"loss: {name!r} needs another model.head than {head!r}; give "
            f"{setting('model.head', loss.head)}, or use {loss.instead}"
        )
    accepted = loss.parameters
    required = [key for key in loss.options if key not in loss.defaults]
    given = checked_parameters(
        name,
        given,
        parameters=accepted,
        required=required,
        head=head,
        num_classes=num_classes,
    )
    given = with_class_fractions(
        name, given, class_fractions, parameters=accepted, head=head
    )
    pooled = loss.pools_with(given)
    if loss.takes_head:
        given["head"] = head
    function = functools.partial(loss.function, **given)
    kind = loss.kind_with(head)
    if kind is None and num_classes is not None and patch_size is not None:
        kind = found_kind(
            loss, function, patch_size=patch_size, num_classes=num_classes
        )
    return LossTerm(name, weight, function, kind, pooled, loss.reads, head)
