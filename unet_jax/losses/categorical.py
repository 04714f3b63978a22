"""Losses that compare the predicted and the true class of each pixel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from unet_jax.labels import IGNORE
from unet_jax.losses.targets import at_least_float32, checked_weights


def cross_entropy(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *spatial"],
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, "batch *spatial"]:
    r"""Categorical cross-entropy of each pixel.

    .. math:: L_i = -w_{y_i} \log p_{i y_i}, \quad
        -\log p_{i y_i} = \log\sum_c e^{z_{ic}} - z_{i y_i}

    with :math:`z` the logits, :math:`p` their softmax, :math:`y_i` the class of
    pixel :math:`i` and :math:`w` the class weights. With label smoothing
    :math:`\epsilon` the target is :math:`(1-\epsilon) y + \epsilon / C`, whose entries
    are weighted class by class.

    Args:
        logits: unnormalised class scores.
        labels: class index of every pixel; IGNORE (-1) pixels have the loss 0.
        label_smoothing: fraction of the target that is spread over all C classes.
        class_weights: weight of each class; None for ones.

    Returns: One value for each pixel, at least 0, float32. `reduce` gives the mean over
        the pixels that are not ignored.
    Source: Bishop: Pattern Recognition and Machine Learning (2006), eq. 4.108;
        smoothing: Szegedy et al.: Rethinking the Inception architecture (CVPR 2016),
        section 7.

    Example:
        >>> logits = jnp.zeros((1, 2, 4))
        >>> cross_entropy(logits=logits, labels=jnp.array([[3, -1]])).round(4)
        Array([[1.3863, 0.    ]], dtype=float32)
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    classes = logits.shape[-1]
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    # A one-hot product, not a gather: its gradient is dense and fast on every
    # platform, and the target of an ignored pixel (-1) is a row of zeros.
    target = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
    if label_smoothing:
        spread = label_smoothing / classes * (labels != IGNORE)[..., None]
        target = (1 - label_smoothing) * target + spread
    if class_weights is not None:
        target = target * checked_weights(class_weights, classes)
    return jnp.sum(target * -log_probabilities, axis=-1)


def top_k_cross_entropy(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *spatial"],
    k: float = 0.1,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Float[Array, " batch"]:
    """Mean cross-entropy of the worst pixels of each sample.

    Args:
        logits, labels, label_smoothing, class_weights: as for `cross_entropy`.
        k: fraction in (0, 1] of the pixels that are not ignored; their number is
            rounded up.

    Returns: A value for each sample, float32; 0 where all pixels are ignored.
    Raises: ValueError: k is out of range.
    Source: Wu, Shen, van den Hengel: Bridging category-level and instance-level
        semantic image segmentation (arXiv:1605.06885), eq. 2, with a fraction instead
        of a threshold, as in nnU-Net.

    Example:
        >>> logits = jnp.array([[[2.0, 0.0], [0.0, 0.0]]])
        >>> labels = jnp.array([[0, 0]])
        >>> top_k_cross_entropy(logits=logits, labels=labels, k=0.5).round(4)
        Array([0.6931], dtype=float32)
    """
    if not 0 < k <= 1:
        raise ValueError(f"k: found {k}, expected a fraction in (0, 1]")
    values = cross_entropy(
        logits=logits,
        labels=labels,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
    )
    batch = values.shape[0]
    values = values.reshape(batch, -1)
    valid = (jnp.asarray(labels) != IGNORE).reshape(batch, -1)
    # Ignored pixels go to the end of the order.
    ordered = -jnp.sort(jnp.where(valid, -values, jnp.inf), axis=-1)
    count = jnp.ceil(k * jnp.sum(valid, axis=-1, keepdims=True))
    chosen = jnp.arange(values.shape[-1]) < count
    total = jnp.sum(jnp.where(chosen, ordered, 0), axis=-1)
    return total / jnp.maximum(count[:, 0], 1)
