"""Chooses free parameters from a grid by the mean Dice on the training cases."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.classical.samples import Sample

ROUNDS = 2
"""Number of times that each parameter is tried while the others are held."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A method ``(image, spacing, reference) -> labels`` with its parameters."""

    predict: Callable[..., np.ndarray]
    chosen: dict[str, Any]


def confusion(
    classes: np.ndarray, label: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Count the pixels of each cluster and class; ignored ones are left out.

    Args:
        classes: index of the cluster or predicted class of each pixel.
        label: class index of each pixel; negative is ignored.
        shape: number of clusters and of classes.

    Returns:
        Counts of that shape, int64.

    Example:
        >>> confusion(np.array([1, 1, 0]), np.array([0, 0, 1]), (2, 2)).tolist()
        [[0, 1], [2, 0]]
    """
    valid = label >= 0
    pairs = classes[valid].astype(np.int64) * shape[1] + label[valid]
    return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)


def mean_foreground_dice(counts: np.ndarray) -> float | np.ndarray:
    """Compute Dice by case and class, averaged over cases, then classes above 0.

    A class that is in neither label nor prediction of a case is left out of its mean.

    Args:
        counts: ``(..., cases, classes, classes)``: pixels of each case by predicted
            and true class.

    Returns:
        The mean ``(...)``; 0 where no class above 0 is present anywhere.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)[..., 1:]
    sizes = (counts.sum(axis=-1) + counts.sum(axis=-2))[..., 1:]
    return mean_dice(hits, sizes)


def mean_dice(hits: np.ndarray, sizes: np.ndarray) -> float | np.ndarray:
    """Average Dice over cases, then classes.

    Args:
        hits: ``(..., cases, classes)`` number of correct pixels.
        sizes: sum of predicted and true pixels of each class.

    Returns:
        The mean ``(...)`` over what is present.
    """
    present = sizes > 0
    dice = np.where(present, 2 * hits / np.maximum(sizes, 1), 0)
    cases = present.sum(axis=-2)
    of_class = dice.sum(axis=-2) / np.maximum(cases, 1)
    return of_class.sum(axis=-1) / np.maximum((cases > 0).sum(axis=-1), 1)


def name_clusters(counts: np.ndarray) -> np.ndarray:
    """Name each cluster after the class it overlaps most in training.

    The overlap is the number of common pixels, or the Dice score with the class, which
    does not drown a small class in a large one; the better naming is taken.

    Args:
        counts: ``(cases, clusters, classes)`` pixels.

    Returns:
        ``(clusters)`` class indices.
    """
    total = counts.sum(axis=0).astype(np.float64)
    sizes = total.sum(axis=1, keepdims=True) + total.sum(axis=0, keepdims=True)
    namings = [total.argmax(axis=1), (total / np.maximum(sizes, 1)).argmax(axis=1)]
    classes = counts.shape[2]
    scores = [
        mean_foreground_dice(
            np.einsum("kc,nkd->ncd", np.eye(classes, dtype=np.int64)[names], counts)
        )
        for names in namings
    ]
    return namings[int(np.argmax(np.array(scores)))]


def training_dice(model: Model, pieces: Sequence[Sample], num_classes: int) -> float:
    """Score a model on training cases."""
    counts = np.stack(
        [
            confusion(
                model.predict(piece.image, piece.spacing, piece.reference),
                piece.label,
                (num_classes, num_classes),
            )
            for piece in pieces
        ]
    )
    return float(mean_foreground_dice(counts))


def best_model(
    make: Callable[..., Model],
    grid: Mapping[str, Sequence[Any]],
    pieces: Sequence[Sample],
    num_classes: int,
) -> Model:
    """Fit a method's parameters one after another on training cases.

    Each parameter in turn takes the value with the best mean foreground Dice while the
    others are held; two rounds, beginning with the first value of each. The first of
    equally good values is taken.

    Returns:
        The model of the chosen values, with these and ``training_dice`` in ``chosen``.
    """
    current = {key: values[0] for key, values in grid.items()}
    scores: dict[tuple[Any, ...], float] = {}
    best: tuple[float, Model | None] = (-1.0, None)

    def score(values: Mapping[str, Any]) -> float:
        nonlocal best
        key = tuple(values.values())
        if key not in scores:
            model = make(**values)
            scores[key] = training_dice(model, pieces, num_classes)
            if scores[key] > best[0]:
                best = (scores[key], model)
        return scores[key]

    score(current)
    for _ in range(ROUNDS):
        before = dict(current)
        for key, values in grid.items():
            if len(values) > 1:
                tried = [score({**current, key: value}) for value in values]
                current[key] = values[int(np.argmax(tried))]
        if current == before:
            break
    dice, model = best
    assert model is not None
    chosen = {**model.chosen, "training_dice": round(dice, 4)}
    return dataclasses.replace(model, chosen=chosen)
