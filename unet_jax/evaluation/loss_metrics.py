"""Makes metrics of losses: a loss scored on cases that training has not seen."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unet_jax.errors import InputError
from unet_jax.evaluation.metric_table import LOSS_PREFIX, Metric
from unet_jax.losses.table import NAMES
from unet_jax.losses.targets import Head
from unet_jax.losses.terms import LossTerm, create_loss_terms, find_loss
from unet_jax.runtime.user_code import is_user_code

_LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1, where a logit would be infinite."""


def held_out_spec(
    metrics: Sequence[str], loss: Sequence[tuple[str, float, dict[str, Any]]]
) -> tuple[tuple[str, float, dict[str, Any]], ...]:
    """Find the losses among the metrics of a config.

    Args:
        metrics: ``eval.metrics``.
        loss: ``loss`` of the config. A loss that is trained with keeps its parameters;
            any other has its defaults.

    Returns: An entry for `create_loss_terms` for each metric "loss/<name>".
    Raises: InputError: an unknown loss, or one that reads no labels.
    """
    trained = {name: parameters for name, _, parameters in reversed(list(loss))}
    names = [m.removeprefix(LOSS_PREFIX) for m in metrics if m.startswith(LOSS_PREFIX)]
    for name in names:
        if not is_user_code(name) and name not in NAMES:
            raise InputError(
                f"eval.metrics: unknown loss {LOSS_PREFIX + name!r}; expected "
                f"{LOSS_PREFIX!r} with one of {', '.join(NAMES)}"
            )
        if not {"logits", "labels"} <= set(find_loss(name).reads):
            raise InputError(
                f"eval.metrics: {LOSS_PREFIX + name!r} does not read logits and "
                "labels; a metric compares them"
            )
    return tuple((name, 1.0, dict(trained.get(name, {}))) for name in names)


def create_held_out_losses(
    spec: Sequence[tuple[str, float, dict[str, Any]]],
    *,
    head: Head,
    class_fractions: Sequence[float] | None = None,
    include_background: bool = False,
    num_classes: int | None = None,
    patch_size: Sequence[int] | None = None,
) -> dict[str, Metric]:
    """Turn losses into metrics of a case.

    Args:
        spec: entries from `held_out_spec`.
        head: output head of the network.
        class_fractions: fraction of each class in the training split, for
            "inverse_frequency"; None before it is known: the losses can then be
            checked, not called.
        include_background: count class 0 in a loss over all classes at once, as
            training does.
        num_classes: number of classes; None before it is known.
        patch_size: spatial size of the training crops; None before it is known. It and
            ``num_classes`` are needed to call a loss of a user's own module.

    Returns: The losses by name with prefix. A loss with a value for each pixel becomes
        its mean over the pixels that are not ignored, for the case or for each class.
    Raises: InputError: a parameter that is missing or out of bounds, or a loss that the
        head does not have.
    """
    if not spec:
        return {}
    terms = create_loss_terms(
        spec,
        head=head,
        class_fractions=class_fractions,
        num_classes=num_classes,
        patch_size=patch_size,
    )
    return {
        f"{LOSS_PREFIX}{term.name}": _held_out(term, head, include_background)
        for term in terms
    }


def _held_out(term: LossTerm, head: Head, include_background: bool) -> Metric:
    """Make a loss of logits a function of the probabilities of one case."""
    background = {"include_background": include_background}
    options = background if "include_background" in term.reads else {}

    @jax.jit
    def values(probabilities: Array, labels: Array) -> Array:
        p = jnp.clip(probabilities, _LEAST, 1 - _LEAST)
        # The softmax of log p is p again, the sigmoid of log p / (1 - p) too.
        logits = jnp.log(p) - (jnp.log1p(-p) if head == "sigmoid" else 0)
        loss = term.function(logits=logits[None], labels=labels[None], **options)[0]
        if term.kind in ("class", "sample"):
            return loss
        pixels = jnp.maximum(jnp.sum(labels >= 0), 1)
        spatial = tuple(range(labels.ndim))
        return jnp.sum(loss, axis=spatial) / pixels

    def function(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.asarray(values(probabilities, labels.astype(np.int32)))

    return Metric(
        title=f"{LOSS_PREFIX}{term.name}",
        reads="probabilities",
        compute=function,
        of_case=term.kind not in ("class", "pixel_class"),
    )
