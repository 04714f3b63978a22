"""Losses as metrics of cases that no step has seen."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from unet_jax.errors import InputError
from unet_jax.evaluation.metric_table import LOSS_PREFIX, Metric
from unet_jax.losses.targets import Head
from unet_jax.losses.terms import NAMES, LossTerm, create_loss_terms

_LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1, where a logit would be infinite."""


def held_out_spec(
    metrics: Sequence[str], loss: Sequence[tuple[str, float, dict[str, Any]]]
) -> tuple[tuple[str, float, dict[str, Any]], ...]:
    """Find the losses among the metrics of a config.

    Args:
        metrics: ``eval.metrics``.
        loss: ``loss`` of the config: one that is trained with has its parameters there,
            any other its defaults.

    Returns:
        An entry for `create_loss_terms` a metric "loss/<name>".

    Raises:
        InputError: an unknown loss.
    """
    trained = {name: parameters for name, _, parameters in reversed(list(loss))}
    names = [m.removeprefix(LOSS_PREFIX) for m in metrics if m.startswith(LOSS_PREFIX)]
    for name in names:
        if name not in NAMES:
            raise InputError(
                f"eval.metrics: unknown loss {LOSS_PREFIX + name!r}; expected "
                f"{LOSS_PREFIX!r} with one of {', '.join(NAMES)}"
            )
    return tuple((name, 1.0, dict(trained.get(name, {}))) for name in names)


def create_held_out_losses(
    spec: Sequence[tuple[str, float, dict[str, Any]]],
    *,
    head: Head,
    shares: Sequence[float] | None = None,
    include_background: bool = False,
    num_classes: int | None = None,
) -> dict[str, Metric]:
    """Turn losses into metrics of a case.

    Args:
        spec: from `held_out_spec`.
        head: of the network.
        shares: share of each class in the training split, for "inverse_frequency"; None
            before they are known: the losses can then be checked, not called.
        include_background: whether a loss over all classes at once counts class 0, as
            in training.
        num_classes: of the data; None before it is known.

    Returns:
        By name with prefix. A loss of pixels is the mean over those that are not
        ignored, of the case or of each class.

    Raises:
        InputError: a parameter that is missing or out of bounds, or a loss that the
            head does not have.
    """
    if not spec:
        return {}
    terms = create_loss_terms(spec, head=head, shares=shares, num_classes=num_classes)
    return {
        f"{LOSS_PREFIX}{term.name}": _held_out(term, head, include_background)
        for term in terms
    }


def _held_out(term: LossTerm, head: Head, include_background: bool) -> Metric:
    """Bind one loss to what turns probabilities back into scores."""
    options: dict[str, Any] = {}
    if term.name == "generalized_dice":
        options["include_background"] = include_background

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
