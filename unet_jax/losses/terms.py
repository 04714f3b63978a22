"""The losses that a config can name, and how one is made of its entry."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Array

from unet_jax.errors import InputError
from unet_jax.losses import (
    binary,
    boundary,
    cl_dice,
    cross_entropy,
    lovasz,
    overlap,
    unsupervised,
)
from unet_jax.losses.parameters import (
    INVERSE_FREQUENCY,
    checked_parameters,
    with_shares,
)
from unet_jax.losses.targets import Head

Kind = Literal["pixel", "pixel_class", "class", "sample"]
"""What a loss has a value for: a pixel, a pixel and class, a sample and class, a
sample."""

NAMES = (
    "dice",
    "jaccard",
    "generalized_dice",
    "tversky",
    "focal_tversky",
    "log_cosh_dice",
    "sensitivity_specificity",
    "mcc",
    "lovasz_softmax",
    "lovasz_hinge",
    "cross_entropy",
    "top_k_cross_entropy",
    "bce",
    "weighted_bce",
    "balanced_bce",
    "focal",
    "combo",
    "boundary",
    "hausdorff_dt",
    "cl_dice",
    "unet_weighted_cross_entropy",
)
"""Every loss of labels that a config can name."""

WITHOUT_LABELS = ("soft_ncut", "reconstruction")
"""Every loss of images alone that a config can name."""

_READ = ("logits", "labels", "images", "reconstruction")
_GIVEN = {*_READ, "head", "axis_name", "include_background"}
"""Arguments that are not the config's to give."""

_SIGMOID_ONLY = {
    "lovasz_hinge": "lovasz_softmax",
    "bce": "cross_entropy",
    "weighted_bce": "cross_entropy with class_weights",
    "balanced_bce": "cross_entropy with class_weights='inverse_frequency'",
    "combo": "dice and cross_entropy",
}
_SOFTMAX_ONLY = {
    "lovasz_softmax": "lovasz_hinge",
    "cross_entropy": "bce",
    "top_k_cross_entropy": "focal",
    "unet_weighted_cross_entropy": "bce",
    "soft_ncut": "nothing in its place: clusters exclude each other",
}
"""Losses of one head, and what to take with the other."""


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One summand of the objective.

    Attributes:
        name: the name in the config, and in metrics.jsonl.
        weight: its factor in the sum.
        function: called with what it reads.
        kind: what it has a value for.
        pooled: True if the function pools over the batch and needs the axis name.
        reads: names of its arguments: "logits" and "labels", or "images" instead of
            labels, and of a W-Net the "reconstruction".
    """

    name: str
    weight: float
    function: Callable[..., Array]
    kind: Kind
    pooled: bool
    reads: tuple[str, ...] = ("logits", "labels")


def create_loss_terms(
    spec: Sequence[tuple[str, float, dict[str, Any]]],
    *,
    head: Head = "softmax",
    shares: Sequence[float] | None = None,
    num_classes: int | None = None,
) -> tuple[LossTerm, ...]:
    """Turn ``(("dice", 1.0, {}), ...)`` of the config into loss functions.

    Args:
        spec: name, weight and parameters of each summand.
        head: of the network.
        shares: share of each class in the pixels of the training split, for
            "inverse_frequency"; None before they are known: the terms can then be
            checked, not called.
        num_classes: of the data, for parameters with a number a class; None before it
            is known.

    Returns:
        The terms, in order.

    Raises:
        InputError: an unknown name or parameter, a value that the loss cannot compute
            with, a loss that the head does not have, an entry of another form, or no
            entry.
    """
    if not spec:
        raise InputError('loss: found (), expected e.g. (("dice", 1.0, {}),)')
    if num_classes is None and shares is not None:
        num_classes = len(shares)
    return tuple(_create_term(entry, head, shares, num_classes) for entry in spec)


def needs_class_fractions(spec: Sequence[tuple[str, float, dict[str, Any]]]) -> bool:
    """Say whether a loss of the config is weighted by the training split's classes.

    Args:
        spec: name, weight and parameters of each summand.

    Returns:
        True if one has a parameter "inverse_frequency".
    """
    return any(
        isinstance(value, str) and value == INVERSE_FREQUENCY
        for _, _, parameters in spec
        for value in parameters.values()
    )


def reads_labels(spec: Sequence[tuple[str, float, dict[str, Any]]]) -> bool:
    """Say whether any loss of the config reads a label.

    Args:
        spec: name, weight and parameters of each summand.

    Returns:
        False for a run on images alone.
    """
    return any(name not in WITHOUT_LABELS for name, _, _ in spec)


def loss_function(name: str) -> tuple[Callable[..., Array], Kind]:
    """Return the function of a name, and what it has a value for.

    Args:
        name: one of ``NAMES`` or ``WITHOUT_LABELS``.

    Returns:
        Both; "focal" has a value a pixel, and with the sigmoid head a pixel and class.

    Raises:
        InputError: an unknown name.
    """
    match name:
        case "dice":
            return overlap.dice_loss, "class"
        case "jaccard":
            return overlap.jaccard_loss, "class"
        case "generalized_dice":
            return overlap.generalized_dice_loss, "sample"
        case "tversky":
            return overlap.tversky_loss, "class"
        case "focal_tversky":
            return overlap.focal_tversky_loss, "class"
        case "log_cosh_dice":
            return overlap.log_cosh_dice_loss, "class"
        case "sensitivity_specificity":
            return overlap.sensitivity_specificity_loss, "class"
        case "mcc":
            return overlap.mcc_loss, "class"
        case "lovasz_softmax":
            return lovasz.lovasz_softmax_loss, "class"
        case "lovasz_hinge":
            return lovasz.lovasz_hinge_loss, "class"
        case "cross_entropy":
            return cross_entropy.cross_entropy, "pixel"
        case "top_k_cross_entropy":
            return cross_entropy.top_k_cross_entropy, "sample"
        case "bce":
            return binary.bce, "pixel_class"
        case "weighted_bce":
            return binary.weighted_bce, "pixel_class"
        case "balanced_bce":
            return binary.balanced_bce, "pixel_class"
        case "focal":
            return binary.focal_loss, "pixel"
        case "combo":
            return binary.combo_loss, "class"
        case "boundary":
            return boundary.boundary_loss, "class"
        case "hausdorff_dt":
            return boundary.hausdorff_dt_loss, "class"
        case "cl_dice":
            return cl_dice.cl_dice_loss, "class"
        case "unet_weighted_cross_entropy":
            return boundary.unet_weighted_cross_entropy, "pixel"
        case "soft_ncut":
            return unsupervised.soft_ncut_loss, "sample"
        case "reconstruction":
            return unsupervised.reconstruction_loss, "sample"
    raise InputError(
        f"loss: unknown loss {name!r}; expected one of "
        f"{', '.join(repr(known) for known in (*NAMES, *WITHOUT_LABELS))}"
    )


def _create_term(
    entry: Any, head: Head, shares: Sequence[float] | None, num_classes: int | None
) -> LossTerm:
    """Build one term, checking its name and parameters against the function."""
    try:
        name, weight, parameters = entry
        weight, parameters = float(weight), dict(parameters)
    except (TypeError, ValueError):
        raise InputError(
            f"loss: found the entry {entry!r}, expected (name, weight, parameters) "
            f'such as ("dice", 1.0, {{}})'
        ) from None
    if not 0 <= weight < math.inf:
        raise InputError(
            f"loss: weight of {name!r}: found {weight}, expected a number from 0 on"
        )
    function, kind = loss_function(name)
    _check_head(name, head)
    known = set(inspect.signature(function).parameters)
    parameters = checked_parameters(
        name, parameters, known - _GIVEN, head=head, num_classes=num_classes
    )
    parameters = with_shares(name, parameters, shares, head=head)
    if "head" in known:
        parameters["head"] = head
    if name == "focal" and head == "sigmoid":
        kind = "pixel_class"
    pools = parameters.get("batch_dice", name == "balanced_bce")
    if name == "balanced_bce" and parameters.get("beta") is not None:
        pools = False
    return LossTerm(
        name=name,
        weight=weight,
        function=functools.partial(function, **parameters),
        kind=kind,
        pooled=bool(pools),
        reads=tuple(argument for argument in _READ if argument in known),
    )


def _check_head(name: str, head: Head) -> None:
    """Refuse a loss of the other head, and say what to do."""
    for wrong, losses, other in (
        ("softmax", _SIGMOID_ONLY, "sigmoid"),
        ("sigmoid", _SOFTMAX_ONLY, "softmax"),
    ):
        if head == wrong and name in losses:
            raise InputError(
                f"loss: {name!r} needs model.head={other!r}, found {head!r}; set it, "
                f"or take {losses[name]}"
            )
