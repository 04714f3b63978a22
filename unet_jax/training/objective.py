"""The configured sum of losses, reduced over the global batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from unet_jax.labels import IGNORE
from unet_jax.losses.partial import counted_classes, partial_inputs
from unet_jax.losses.reduction import Kind, loss_kind, mean_over_classes
from unet_jax.losses.terms import LossTerm
from unet_jax.training.nonfinite import finite_rows


def global_totals(labels: Array, *, axis_name: str | None) -> dict[str, Array]:
    """Count what the losses are divided by, over the whole global batch.

    The counts are made once, before the batch is cut into the parts of gradient
    accumulation: a mean of the means of parts would give the pixels of a part with many
    ignored ones too much weight.

    Returns:
        ``pixels`` (not ignored, at least 1) and ``samples``, float32 scalars.
    """
    totals = {
        "pixels": jnp.sum(labels != IGNORE, dtype=jnp.float32),
        "samples": jnp.float32(labels.shape[0]),
    }
    if axis_name is not None:
        totals = jax.lax.psum(totals, axis_name)
    return totals | {"pixels": jnp.maximum(totals["pixels"], 1)}


def supervised_objective(
    terms: Sequence[LossTerm],
    *,
    logits: Sequence[Array],
    targets: Sequence[Array],
    totals: Sequence[Mapping[str, ArrayLike]],
    include_background: bool,
    axis_name: str | None,
    images: Array | None = None,
    reconstruction: Array | None = None,
    labelled: Array | None = None,
) -> tuple[Array, dict[str, Array], Array]:
    """Sum `objective` over the outputs of deep supervision, with halving weights.

    Args:
        terms: terms from ``create_loss_terms``.
        logits: ``(batch, *spatial, classes)`` of each output, the finest first.
        targets: labels for each output, from `targets.targets_of`.
        totals: counts for each output, from `global_totals`.
        include_background: count class 0 in losses with a value for each class.
        axis_name: name of the mapped axis; None for one device.
        images: input of the network, for terms that read it; there is one output then.
        reconstruction: the images as a W-Net makes them again, for terms that read it.
        labelled: ``(batch, classes)`` bool, the classes that were labelled in each
            sample; None for all.

    Returns:
        The results of `objective`; the weights of the outputs (1, 1/2, 1/4, ...) are
        divided by their sum. And ``(batch,)`` bool: False for a sample for which the
        value of a loss is not finite.
    """
    weights = [0.5**index for index in range(len(logits))]
    total: Array = jnp.float32(0)
    sums = {term.name: jnp.float32(0) for term in terms}
    finite = jnp.ones(logits[0].shape[0], bool)
    for weight, output, target, counts in zip(
        weights, logits, targets, totals, strict=True
    ):
        values = _values(
            terms,
            logits=output,
            labels=target,
            include_background=include_background,
            axis_name=axis_name,
            images=images,
            reconstruction=reconstruction,
            labelled=labelled,
        )
        loss, parts = _reduced(terms, values, totals=counts)
        for term, (_, value) in zip(terms, values, strict=True):
            # A value pooled over the batch does not belong to one sample.
            finite &= True if term.pooled else finite_rows(value)
        fraction = weight / sum(weights)
        total = total + fraction * loss
        sums = {name: sums[name] + fraction * parts[name] for name in sums}
    return total, sums, finite


def objective(
    terms: Sequence[LossTerm],
    *,
    logits: Array,
    labels: Array | None,
    totals: Mapping[str, ArrayLike],
    include_background: bool,
    axis_name: str | None,
    images: Array | None = None,
    reconstruction: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Compute what this device adds to the loss of the global batch.

    The results of all devices and accumulation parts *add up* to the loss, and their
    gradients to its gradient. On one device the result equals
    ``unet_jax.losses.reduce``.

    Args:
        terms: terms from ``create_loss_terms``.
        logits: ``(batch, *spatial, classes)``.
        labels: ``(batch, *spatial)``; None where no term reads them.
        totals: counts from `global_totals`.
        include_background: count class 0 in losses with a value for each class.
        axis_name: name of the mapped axis; None for one device.
        images: input of the network, for terms that read it.
        reconstruction: the images as a W-Net makes them again, for terms that read it.

    Returns:
        The weighted sum of the terms, and each term by name without its weight.
    """
    values = _values(
        terms,
        logits=logits,
        labels=labels,
        include_background=include_background,
        axis_name=axis_name,
        images=images,
        reconstruction=reconstruction,
    )
    return _reduced(terms, values, totals=totals)


def _values(
    terms: Sequence[LossTerm],
    *,
    axis_name: str | None,
    labelled: Array | None = None,
    **inputs: Any,
) -> list[tuple[Kind, Array]]:
    """Call the losses: the kind of each and its values without an axis of classes."""
    results = []
    for term in terms:
        options = {"axis_name": axis_name} if term.pooled else {}
        given, counted = {name: inputs[name] for name in term.reads}, None
        if labelled is not None and "labels" in given:
            counted = counted_classes(labelled, term.head)
            given["logits"], given["labels"] = partial_inputs(
                inputs["logits"], inputs["labels"], labelled=labelled, head=term.head
            )
        values = term.function(**options, **given)
        kind = term.kind or loss_kind(values.shape, inputs["logits"].shape[:-1])
        if kind in ("class", "pixel_class"):
            values = mean_over_classes(
                values,
                include_background=inputs["include_background"],
                counted=counted,
            )
        results.append((kind, values))
    return results


def _reduced(
    terms: Sequence[LossTerm],
    values: Sequence[tuple[Kind, Array]],
    *,
    totals: Mapping[str, ArrayLike],
) -> tuple[Array, dict[str, Array]]:
    """Add up what this device adds to the mean of each term, and to their sum."""
    means: dict[str, Array] = {}
    total = jnp.float32(0)
    for term, (kind, value) in zip(terms, values, strict=True):
        per_pixel = kind in ("pixel", "pixel_class")
        mean = jnp.sum(value) / totals["pixels" if per_pixel else "samples"]
        means[term.name] = means.get(term.name, jnp.float32(0)) + mean
        total = total + term.weight * mean
    return total, means
