"""The configured sum of losses, reduced over the global batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from unet_jax.labels import IGNORE
from unet_jax.losses.terms import LossTerm
from unet_jax.training.nonfinite import finite_rows


def global_totals(labels: Array, *, axis_name: str | None) -> dict[str, Array]:
    """Count what the losses are divided by, over the whole global batch.

    They are counted once for the batch, before it is cut into the parts of gradient
    accumulation: a mean of means would weigh pixels by how their part was filled.

    Args:
        labels: ``(batch, *spatial)``, the part of this device.
        axis_name: the mapped axis; None for one device.

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


def targets_of(labels: Array, sizes: Sequence[Sequence[int]]) -> tuple[Array, ...]:
    """Bring labels to the sizes of a network's outputs.

    Args:
        labels: ``(batch, *spatial)``.
        sizes: spatial size of each output, finest first. The first is the labels' own,
            or smaller for a network without padding: then their centre is taken.

    Returns:
        Labels of each size; a coarser one has the finer label nearest to its centre.
    """
    finest = sizes[0]
    for axis, size in enumerate(finest, start=1):
        start = (labels.shape[axis] - size) // 2
        labels = jax.lax.slice_in_dim(labels, start, start + size, axis=axis)
    targets = [labels]
    for coarse in sizes[1:]:
        target = labels
        for axis, (size, old) in enumerate(zip(coarse, finest, strict=True), start=1):
            nearest = (2 * np.arange(size) + 1) * old // (2 * size)
            target = jnp.take(target, nearest, axis=axis)
        targets.append(target)
    return tuple(targets)


def supervised_objective(
    terms: Sequence[LossTerm],
    *,
    logits: Sequence[Array],
    targets: Sequence[Array],
    totals: Sequence[dict[str, Array]],
    include_background: bool,
    axis_name: str | None,
    images: Array | None = None,
    reconstruction: Array | None = None,
) -> tuple[Array, dict[str, Array], Array]:
    """Sum `objective` over the outputs of deep supervision, with halving weights.

    Args:
        terms: from ``create_loss_terms``.
        logits: of each output, finest first.
        targets: the label of each, from `targets_of`.
        totals: of each target, from `global_totals`.
        include_background: whether overlap losses count class 0.
        axis_name: the mapped axis; None for one device.
        images: of the size of the one output, for terms that read them.
        reconstruction: of the images, for a term that reads it.

    Returns:
        As `objective`; the weights of the outputs (1, 1/2, 1/4, ...) are divided by
        their sum. Beside them ``(batch,)`` bool, False for a sample of which a loss has
        a value of its own that is not finite.
    """
    weights = [0.5**index for index in range(len(logits))]
    total: Array = jnp.float32(0)
    shares = {term.name: jnp.float32(0) for term in terms}
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
        )
        loss, parts = _reduced(terms, values, totals=counts)
        for term, value in zip(terms, values, strict=True):
            # What is pooled over the batch has no value of one sample.
            finite &= True if term.pooled else finite_rows(value)
        share = weight / sum(weights)
        total = total + share * loss
        shares = {name: shares[name] + share * parts[name] for name in shares}
    return total, shares, finite


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
    """Compute this device's share of the loss of the global batch.

    The shares of all devices and accumulation parts *add up* to the loss, and so do
    their gradients.

    Args:
        terms: from ``create_loss_terms``.
        logits: ``(batch, *spatial, classes)``.
        labels: ``(batch, *spatial)``; None where no term reads them.
        totals: from `global_totals`.
        include_background: whether overlap losses count class 0.
        axis_name: the mapped axis; None for one device.
        images: what the network saw, for terms that read them.
        reconstruction: what a W-Net made of them, likewise.

    Returns:
        The share of the weighted sum, and of each term by name (unweighted).
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
    include_background: bool,
    axis_name: str | None,
    **arguments: Array | None,
) -> list[Array]:
    """Call the losses: for each term ``(batch, ...)`` with no axis of classes."""
    results = []
    for term in terms:
        options: dict[str, Any] = {"axis_name": axis_name} if term.pooled else {}
        if term.name == "generalized_dice":
            options["include_background"] = include_background
        options |= {name: arguments[name] for name in term.reads}
        values = term.function(**options)
        if term.kind in ("class", "pixel_class"):
            counted = values if include_background else values[..., 1:]
            values = jnp.mean(counted, axis=-1)
        results.append(values)
    return results


def _reduced(
    terms: Sequence[LossTerm],
    values: Sequence[Array],
    *,
    totals: Mapping[str, ArrayLike],
) -> tuple[Array, dict[str, Array]]:
    """Add up this device's shares of the means, of each term and of their sum."""
    shares: dict[str, Array] = {}
    total = jnp.float32(0)
    for term, value in zip(terms, values, strict=True):
        per_pixel = term.kind in ("pixel", "pixel_class")
        share = jnp.sum(value) / totals["pixels" if per_pixel else "samples"]
        shares[term.name] = shares.get(term.name, jnp.float32(0)) + share
        total = total + term.weight * share
    return total, shares
