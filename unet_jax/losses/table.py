"""The table of losses: one row for each loss that a config can name."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array

from unet_jax.losses import (
    binary,
    boundary,
    categorical,
    cl_dice,
    confusion,
    lovasz,
    overlap,
    unsupervised,
)
from unet_jax.losses.parameters import Number, Parameter, PerClass, Switch, WholeNumber
from unet_jax.losses.reduction import Kind
from unet_jax.losses.targets import Head

_INPUTS = ("logits", "labels", "images", "reconstruction", "include_background")
_GIVEN = (*_INPUTS, "head", "axis_name")
"""Arguments of a loss that are not parameters of the config."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """One loss: a row of the table.

    Attributes:
        name: name in the config.
        function: the loss. The names of its arguments say what it reads: ``logits``,
            ``labels``, ``images``, ``reconstruction``; ``head``, ``axis_name`` and
            ``include_background`` are given to a function that has them.
        kind: what the function has one value for; None where its shape tells.
        parameters: accepted values of each parameter.
        head: the only output head that fits; None where both fit.
        instead: what to use with the other head.
        not_pooled_with: name of a parameter that replaces what the function pools.
        sigmoid_kind: kind with the sigmoid head, where it differs.
    """

    name: str
    function: Callable[..., Array]
    kind: Kind | None
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    head: Head | None = None
    instead: str = ""
    not_pooled_with: str = ""
    sigmoid_kind: Kind | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the inputs that the training step gives the function."""
        return tuple(name for name in _INPUTS if name in self._arguments)

    @property
    def takes_head(self) -> bool:
        """Whether the function computes with both heads and has to be told which."""
        return "head" in self._arguments

    @property
    def defaults(self) -> dict[str, Any]:
        """Default of each argument that has one."""
        return {
            name: argument.default
            for name, argument in self._arguments.items()
            if argument.default is not argument.empty
        }

    def kind_with(self, head: Head) -> Kind | None:
        """Return the kind with an output head."""
        if head == "sigmoid" and self.sigmoid_kind is not None:
            return self.sigmoid_kind
        return self.kind

    def pools_with(self, given: Mapping[str, Any]) -> bool:
        """Return whether the function pools over the global batch.

        A function with ``axis_name`` does; one with ``batch_dice`` only where it is
        True.
        """
        if "axis_name" not in self._arguments:
            return False
        if self.not_pooled_with:
            return given.get(self.not_pooled_with) is None
        return {**self.defaults, **given}.get("batch_dice", True) is True

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the arguments that a config gives."""
        return tuple(name for name in self._arguments if name not in _GIVEN)

    @property
    def _arguments(self) -> dict[str, inspect.Parameter]:
        """Arguments that can be given by name."""
        return {
            name: argument
            for name, argument in inspect.signature(self.function).parameters.items()
            if argument.kind in (argument.KEYWORD_ONLY, argument.POSITIONAL_OR_KEYWORD)
        }


_COST = Number(0.0, 1e6)
_FRACTION = Number(0.0, 1.0)
_WIDTH = Number(1e-3, 1e6)
_POSITIVES = Number(
    0.0,
    1e6,
    advice="above 1 for fewer false negatives, below 1 for fewer false positives",
)
_SMOOTH = Number(1e-8, 1e6)  # without it an absent class divides 0 by 0
_WEIGHTED: dict[str, Parameter] = {"class_weights": PerClass()}
_OVERLAP: dict[str, Parameter] = {**_WEIGHTED, "smooth": _SMOOTH}
_POOLED: dict[str, Parameter] = {**_OVERLAP, "batch_dice": Switch()}
_ENTROPY: dict[str, Parameter] = {**_WEIGHTED, "label_smoothing": _FRACTION}

LOSSES = (
    Loss("dice", overlap.dice_loss, "class", {**_POOLED, "squared": Switch()}),
    Loss("jaccard", overlap.jaccard_loss, "class", _POOLED),
    Loss(
        "generalized_dice",
        overlap.generalized_dice_loss,
        "sample",
        {"smooth": _SMOOTH, "batch_dice": Switch()},
    ),
    Loss(
        "tversky",
        overlap.tversky_loss,
        "class",
        {**_POOLED, "alpha": _COST, "beta": _COST},
    ),
    Loss(
        "focal_tversky",
        overlap.focal_tversky_loss,
        "class",
        {**_POOLED, "alpha": _COST, "beta": _COST, "gamma": Number(0.1, 100.0)},
    ),
    Loss(
        "log_cosh_dice",
        overlap.log_cosh_dice_loss,
        "class",
        {**_POOLED, "squared": Switch()},
    ),
    Loss(
        "sensitivity_specificity",
        confusion.sensitivity_specificity_loss,
        "class",
        {**_OVERLAP, "sensitivity_weight": _FRACTION},
    ),
    Loss("mcc", confusion.mcc_loss, "class", _OVERLAP),
    Loss(
        "lovasz_softmax",
        lovasz.lovasz_softmax_loss,
        "class",
        {**_WEIGHTED, "only_present": Switch()},
        head="softmax",
        instead="lovasz_hinge",
    ),
    Loss(
        "lovasz_hinge",
        lovasz.lovasz_hinge_loss,
        "class",
        _WEIGHTED,
        head="sigmoid",
        instead="lovasz_softmax",
    ),
    Loss(
        "cross_entropy",
        categorical.cross_entropy,
        "pixel",
        _ENTROPY,
        head="softmax",
        instead="bce",
    ),
    Loss(
        "top_k_cross_entropy",
        categorical.top_k_cross_entropy,
        "sample",
        {**_ENTROPY, "k": Number(1e-6, 1.0)},
        head="softmax",
        instead="focal",
    ),
    Loss(
        "bce",
        binary.bce,
        "pixel_class",
        _WEIGHTED,
        head="sigmoid",
        instead="cross_entropy",
    ),
    Loss(
        "weighted_bce",
        binary.weighted_bce,
        "pixel_class",
        {**_WEIGHTED, "beta": _POSITIVES},
        head="sigmoid",
        instead="cross_entropy with class_weights",
    ),
    Loss(
        "balanced_bce",
        binary.balanced_bce,
        "pixel_class",
        {**_WEIGHTED, "beta": PerClass(balances=True)},
        head="sigmoid",
        instead="cross_entropy with class_weights='inverse_frequency'",
        not_pooled_with="beta",
    ),
    Loss(
        "focal",
        binary.focal_loss,
        "pixel",
        {**_WEIGHTED, "alpha": PerClass(balances=True), "gamma": Number(0.0, 100.0)},
        sigmoid_kind="pixel_class",
    ),
    Loss(
        "combo",
        binary.combo_loss,
        "class",
        {**_OVERLAP, "alpha": _FRACTION, "beta": _FRACTION},
        head="sigmoid",
        instead="dice and cross_entropy",
    ),
    Loss("boundary", boundary.boundary_loss, "class", _WEIGHTED),
    Loss(
        "hausdorff_dt",
        boundary.hausdorff_dt_loss,
        "class",
        {**_WEIGHTED, "alpha": Number(0.1, 10.0)},
    ),
    Loss(
        "cl_dice",
        cl_dice.cl_dice_loss,
        "class",
        {**_OVERLAP, "iterations": WholeNumber(0, 1000)},
    ),
    Loss(
        "unet_weighted_cross_entropy",
        boundary.unet_weighted_cross_entropy,
        "pixel",
        {**_WEIGHTED, "w0": _COST, "sigma": _WIDTH},
        head="softmax",
        instead="bce",
    ),
    # Losses of images alone: they read no labels.
    Loss(
        "soft_ncut",
        unsupervised.soft_ncut_loss,
        "sample",
        {
            "intensity_sigma": _WIDTH,
            "spatial_sigma": _WIDTH,
            # Below 1.5 a pixel has no neighbour across a corner.
            "radius": Number(1.5, 100.0),
        },
        head="softmax",
        instead="no other loss: clusters exclude each other",
    ),
    Loss("reconstruction", unsupervised.reconstruction_loss, "sample"),
)
"""Every loss that a config can name without a module."""

NAMES = tuple(loss.name for loss in LOSSES if "labels" in loss.reads)
"""Names of the losses that compare with labels."""
