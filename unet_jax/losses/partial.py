"""Lets the losses of a sample read only the classes that were labelled in it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from unet_jax.labels import IGNORE
from unet_jax.losses.targets import Head, at_least_float32

_ABSENT = -1e4
"""Logit of a class that is not labelled: its softmax is 0, in value and gradient."""


def counted_classes(
    labelled: Bool[Array, "batch classes"], head: Head
) -> Bool[Array, "batch classes"]:
    """Return the classes of each sample whose loss counts.

    Args:
        labelled: whether a class was labelled in a sample.
        head: with "softmax" the background stands for itself and all classes that were
            not labelled, and counts. With "sigmoid" it is unknown, and counts only
            where all classes were labelled.

    Example:
        >>> labelled = jnp.array([[True, True, False]])
        >>> [counted_classes(labelled, head)[0, 0].item() for head in
        ...  ("softmax", "sigmoid")]
        [True, False]
    """
    all_labelled = jnp.all(labelled[:, 1:], axis=-1)
    return labelled.at[:, 0].set(all_labelled if head == "sigmoid" else True)


def partial_inputs(
    logits: Float[Array, "batch *spatial classes"],
    labels: Integer[Array, "batch *spatial"],
    *,
    labelled: Bool[Array, "batch classes"],
    head: Head,
) -> tuple[Array, Array]:
    r"""Change logits and labels so that a loss reads only what was labelled.

    With the softmax head the probability of the background becomes that of the
    background and all classes that were not labelled (the marginal loss): in the
    labels, both have the value 0. In logits,

    .. math:: z'_0 = \log\Big(e^{z_0} + \sum_{c \notin L} e^{z_c}\Big)

    with :math:`L` the labelled classes of the sample. With the sigmoid head the classes
    that were not labelled are ignored.

    Args:
        logits: unnormalised class scores.
        labels: class index of every pixel, or IGNORE; classes that were not labelled
            are background.
        labelled: whether a class was labelled in a sample.
        head: output head of the network.

    Returns: Logits in float32 and labels for a loss; with the sigmoid head the labels
        are those of regions, ``(batch, *spatial, classes)``.
    Source: Shi, Xiao, Chen, Zhou: Marginal loss and exclusion loss for partially
        supervised multi-organ segmentation (Medical Image Analysis 2021), eq. 3 to 5.

    Example:
        >>> logits = jnp.log(jnp.array([[[0.2, 0.5, 0.3]]]))
        >>> merged, _ = partial_inputs(logits, jnp.array([[0]]), head="softmax",
        ...     labelled=jnp.array([[True, True, False]]))
        >>> jax.nn.softmax(merged).round(3)
        Array([[[0.5, 0.5, 0. ]]], dtype=float32)
    """
    pixels = (1,) * (logits.ndim - 2)
    counted = counted_classes(labelled, head)
    counted = counted.reshape(len(counted), *pixels, counted.shape[-1])
    if head == "sigmoid":
        target = labels[..., None] == jnp.arange(logits.shape[-1])
        valid = counted & (labels != IGNORE)[..., None]
        return logits, jnp.where(valid, target, IGNORE)
    logits = at_least_float32(logits)
    merged = (~counted).at[..., 0].set(True)
    background = jax.nn.logsumexp(logits, axis=-1, keepdims=True, where=merged)
    others = jnp.where(counted, logits, _ABSENT)[..., 1:]
    return jnp.concatenate([background, others], axis=-1), labels
