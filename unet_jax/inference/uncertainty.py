"""Measures how uncertain a prediction is: entropy, and disagreement of its votes.

Votes are the predictions whose mean is taken: of mirrored images, and of networks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import entr

from unet_jax.inference.temperature import Calibration
from unet_jax.losses.targets import Head


def entropy(
    probabilities: Any, *, head: Head = "softmax", entr: Callable[[Any], Any] = entr
) -> Any:
    """Entropy of the class of each pixel as a fraction of the largest possible.

    ``-sum_c p_c log p_c / log(classes)``; for a sigmoid head, whose classes do not
    exclude each other, the mean binary entropy of the classes above 0, over log 2.

    Args:
        probabilities: ``(*pixels, classes)``, of numpy or jax.
        head: how the probabilities were made.
        entr: function ``-x log x`` of the array's package.

    Returns: ``(*pixels)`` in [0, 1]: 0 is certain, 1 is undecided between all classes.
    Source: Shannon 1948, "A mathematical theory of communication".

    Example:
        >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
        [1.0, 0.0]
    """
    if head == "softmax":
        return entr(probabilities).sum(axis=-1) / np.log(probabilities.shape[-1])
    # A mean of sigmoids may round to more than 1.
    others = probabilities[..., 1:].clip(0, 1)
    return (entr(others) + entr(1 - others)).mean(axis=-1) / np.log(2)


def disagreement(mean: Any, votes: Sequence[Any], **options: Any) -> Any:
    """Mutual information of the class and the vote: entropy that is no vote's own.

    ``H(mean of votes) - mean of H(vote)``: 0 where all votes give the same
    probabilities, 1 where each of them is certain, and their mean is undecided.

    Args:
        mean: mean probabilities ``(*pixels, classes)``.
        votes: probabilities of each vote.
        options: ``head`` and ``entr`` of `entropy`.

    Returns: ``(*pixels)`` in [0, 1], up to rounding.
    Source: Houlsby et al. 2011, "Bayesian active learning for classification and
        preference learning" (BALD), eq. 2; Gal et al. 2017.

    Example:
        >>> votes = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
        >>> float(disagreement(sum(votes) / 2, votes))
        1.0
    """
    own = sum(entropy(vote, **options) for vote in votes) / len(votes)
    return entropy(mean, **options) - own


def fill_uncertainty(
    planes: Iterator[tuple[np.ndarray, ...]],
    filled: np.ndarray,
    *,
    num_classes: int,
    head: Head,
    calibration: Calibration | None,
) -> Iterator[np.ndarray]:
    """Fill maps of uncertainty while the planes of the networks pass.

    Args:
        planes: a plane of each network, ``(*rest, classes)``, or with one more channel:
            the disagreement of the network's mirrored images.
        filled: array ``(planes, *rest, 1 or 2)`` to fill: the entropy of the calibrated
            mean; the disagreement of all votes. That is the networks' disagreement plus
            the mean of the disagreement inside of each (the chain rule), before
            calibration, because a temperature belongs to the mean.

    Yields: Mean probabilities of each plane, not calibrated.
    """
    for index, found in enumerate(planes):
        votes = [plane[..., :num_classes] for plane in found]
        mean = votes[0] if len(votes) == 1 else np.mean(votes, axis=0)
        told = mean if calibration is None else calibration(mean)
        filled[index, ..., 0] = entropy(told, head=head)
        if filled.shape[-1] > 1:
            inside = sum(plane[..., num_classes:].sum(axis=-1) for plane in found)
            total = disagreement(mean, votes, head=head) + inside / len(found)
            filled[index, ..., 1] = np.maximum(total, 0)
        yield mean
