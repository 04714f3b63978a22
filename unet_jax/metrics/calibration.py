"""Measures calibration: calibration error, Brier score and reliability curve.

Everything is computed on the host in float64, chunk by chunk: float32 sums over a
volume are not exact to the reported digits, and a copy of all probabilities may not fit
in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from unet_jax.labels import IGNORE

NUM_BINS = 15
"""Number of bins of a reliability curve, as in Guo et al. 2017."""

_CHUNK = 2**18
"""Pixels in memory at once."""


class Reliability(NamedTuple):
    """Sums over the pixels of each bin of confidence, ``(*leading, bins)`` float64.

    Sums of several cases are added before they are divided.

    Attributes:
        pixels: number of pixels.
        confidence: sum of the confidences of these pixels.
        correct: number of correct pixels.
    """

    pixels: Float[np.ndarray, "*leading bins"]
    confidence: Float[np.ndarray, "*leading bins"]
    correct: Float[np.ndarray, "*leading bins"]


def reliability(
    *,
    probabilities: Float[np.ndarray, "*spatial classes"],
    labels: Integer[np.ndarray, "*spatial"],
    num_bins: int = NUM_BINS,
) -> Reliability:
    """Sort the pixels of a case into bins by the confidence in their likeliest class.

    Bin m of M holds confidences in ``((m - 1) / M, m / M]``; the first bin holds 0 too.

    Args:
        probabilities: probability of each class, in [0, 1].
        labels: class index of every pixel; IGNORE pixels are left out.
        num_bins: number M of bins.

    Returns: Sums ``(bins)`` of pixels, confidences and correct pixels.
    Source: Guo et al. 2017, "On calibration of modern neural networks", section 2.

    Example:
        >>> sums = reliability(
        ...     probabilities=np.array([[0.9, 0.1], [0.4, 0.6]]),
        ...     labels=np.array([0, 0]),
        ...     num_bins=2,
        ... )
        >>> sums.pixels.tolist(), sums.confidence.tolist(), sums.correct.tolist()
        ([0.0, 2.0], [0.0, 1.5], [0.0, 1.0])
    """
    total = np.zeros((3, num_bins))
    for p, y in _chunks(probabilities, labels):
        best = p.argmax(axis=-1)
        confidence = np.take_along_axis(p, best[:, None], axis=-1)[:, 0]
        total += _binned(confidence, best == y, num_bins)
    return Reliability(*total)


def class_reliability(
    *,
    probabilities: Float[np.ndarray, "*spatial classes"],
    labels: Integer[np.ndarray, "*spatial"],
    num_bins: int = NUM_BINS,
) -> Reliability:
    """Sort the pixels of a case into bins by the probability of each class.

    Args:
        probabilities, labels, num_bins: as for `reliability`.

    Returns: Sums ``(classes, bins)``; a pixel is correct where it is labelled as the
        class.
    Source: Nixon et al. 2019, "Measuring calibration in deep learning", static
        calibration error.

    Example:
        >>> sums = class_reliability(
        ...     probabilities=np.array([[0.9, 0.1]]), labels=np.array([0]), num_bins=2
        ... )
        >>> sums.correct.tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    classes = probabilities.shape[-1]
    total = np.zeros((3, classes, num_bins))
    for p, y in _chunks(probabilities, labels):
        for index in range(classes):
            total[:, index] += _binned(p[:, index], y == index, num_bins)
    return Reliability(*total)


def expected_calibration_error(sums: Reliability) -> Float[np.ndarray, "*leading"]:
    """Expected calibration error: mean gap of confidence and accuracy over the bins.

    ``sum_m n_m / n |correct_m / n_m - confidence_m / n_m|`` with n_m pixels in bin m.

    Args:
        sums: sums from `reliability`, or from `class_reliability` for each class.

    Returns: Values in [0, 1], 0 where confidence equals accuracy; NaN without pixels.
    Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian
        binning"; Guo et al. 2017, eq. 3.

    Example:
        >>> sums = Reliability(np.array([2.0]), np.array([1.5]), np.array([1.0]))
        >>> expected_calibration_error(sums).item()
        0.25
    """
    gaps = np.abs(sums.correct - sums.confidence).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(gaps / sums.pixels.sum(axis=-1))


def reliability_curve(sums: Reliability) -> list[dict[str, float | int | None]]:
    """Mean confidence and accuracy of each bin: the points of a reliability diagram.

    Args:
        sums: sums from `reliability`, for one case or added over cases.

    Returns: A dict for each bin: its limits ``low`` and ``high``, the number of
        ``pixels``, and ``confidence`` and ``accuracy``, which are None for a bin
        without pixels.
    Source: DeGroot and Fienberg 1983, "The comparison and evaluation of forecasters".

    Example:
        >>> sums = Reliability(np.array([2.0]), np.array([1.5]), np.array([1.0]))
        >>> reliability_curve(sums)
        [{'low': 0.0, 'high': 1.0, 'pixels': 2, 'confidence': 0.75, 'accuracy': 0.5}]
    """
    count = len(sums.pixels)
    return [
        {
            "low": index / count,
            "high": (index + 1) / count,
            "pixels": int(pixels),
            "confidence": float(confidence / pixels) if pixels else None,
            "accuracy": float(correct / pixels) if pixels else None,
        }
        for index, (pixels, confidence, correct) in enumerate(zip(*sums, strict=True))
    ]


def brier_score(
    *,
    probabilities: Float[np.ndarray, "*spatial classes"],
    labels: Integer[np.ndarray, "*spatial"],
) -> float:
    """Mean squared error of the probabilities of all classes.

    ``1/n sum_i sum_c (p_ic - y_ic)^2`` with y 1 for the labelled class.

    Args:
        probabilities, labels: as for `reliability`.

    Returns: A value from 0 (certain and correct) to 2 (certain and wrong); NaN without
        pixels.
    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".

    Example:
        >>> brier_score(
        ...     probabilities=np.array([[0.75, 0.25]]), labels=np.array([0])
        ... )
        0.125
    """
    total, pixels = 0.0, 0
    for p, y in _chunks(probabilities, labels):
        wrong = p.copy()
        wrong[np.arange(len(y)), y] -= 1
        total += float(np.sum(wrong**2))
        pixels += len(y)
    return total / pixels if pixels else float("nan")


def _chunks(
    probabilities: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield float64 probabilities and labels of the valid pixels, chunk by chunk."""
    flat = labels.reshape(-1)
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    for start in range(0, len(flat), _CHUNK):
        y = flat[start : start + _CHUNK]
        valid = y != IGNORE
        p = rows[start : start + _CHUNK][valid].astype(np.float64)
        yield p, y[valid].astype(np.int64)


def _binned(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> np.ndarray:
    """Count pixels, confidences and correct pixels of each bin, ``(3, bins)``."""
    places = np.ceil(confidence * num_bins).astype(np.int64) - 1
    places = np.clip(places, 0, num_bins - 1)
    return np.stack(
        [
            np.bincount(places, weights, num_bins).astype(np.float64)
            for weights in (None, confidence, correct)
        ]
    )
