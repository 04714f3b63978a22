"""Our default loss in PyTorch: soft Dice with squares, and cross-entropy."""

from collections.abc import Sequence

import torch
from torch.nn import functional

SMOOTH = 1e-5


def loss(
    logits: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Mean Dice loss of the foreground plus mean cross-entropy.

    Args:
        logits: logits of each output, finest first, channels first.
        labels: class of every pixel for each output, int64.

    Returns:
        The mean over the outputs, each half as heavy as the one before.
    """
    weights = [0.5**index for index in range(len(logits))]
    parts = [
        weight * _loss(output, target)
        for weight, output, target in zip(weights, logits, labels, strict=True)
    ]
    return torch.stack(parts).sum() / sum(weights)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of one output."""
    probabilities = torch.softmax(logits, dim=1)
    target = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)
    axes = tuple(range(2, logits.ndim))
    intersection = (probabilities * target).sum(axes)
    total = probabilities.square().sum(axes) + target.sum(axes)
    dice = 1 - (2 * intersection + SMOOTH) / (total + SMOOTH)
    return dice[:, 1:].mean() + functional.cross_entropy(logits, labels)
