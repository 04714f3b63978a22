"""Losses that compare the predicted and the true class of each pixel."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer


def cross_entropy(
    *,
    logits: Float[ArrayLike, "batch *spatial classes"],
    labels: Integer[ArrayLike, "batch *spatial"],
) -> Float[Array, "batch *spatial"]:
    r"""Categorical cross-entropy of each pixel.

    .. math:: L_i = -\log p_{i y_i} = \log\sum_c e^{z_{ic}} - z_{i y_i}

    with :math:`z` the logits, :math:`p` their softmax and :math:`y_i` the class of
    pixel :math:`i`.

    Args:
        logits: unnormalised class scores.
        labels: class index of every pixel; IGNORE (-1) pixels have the loss 0.

    Returns:
        One value a pixel, at least 0, float32. The caller divides the sum by the
        number of pixels that are not ignored.

    Source:
        Bishop: Pattern Recognition and Machine Learning (2006), eq. 4.108.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.zeros((1, 2, 4))
        >>> cross_entropy(logits=logits, labels=jnp.array([[3, -1]])).round(4)
        Array([[1.3863, 0.    ]], dtype=float32)
    """
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_probabilities = jax.nn.log_softmax(logits, axis=-1)
    # A one-hot product, not a gather: its gradient is dense and fast everywhere, and
    # an ignored pixel (-1) is a row of zeros.
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.sum(target * -log_probabilities, axis=-1)
