"""Calibrates probabilities by one temperature that labelled pixels decide.

A network that is trained long is too certain. One number T, fitted on cases that it was
not trained on, corrects most of that and changes no label (Guo et al. 2017). T divides
the logits of the mean probability, after mirrored images and networks are averaged.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from unet_jax.labels import IGNORE
from unet_jax.losses.targets import Head

LOWEST, HIGHEST = 0.05, 20.0
"""Limits of a temperature."""

_TINY = 1e-300
"""Stands for a probability of 0, whose logarithm is not finite."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature for probabilities.

    Attributes:
        temperature: T, from `LOWEST` to `HIGHEST`; above 1 it makes probabilities less
            certain.
        head: "softmax" for probabilities that add up to 1; "sigmoid" where each class
            has its own.

    Example:
        >>> Calibration(2.0)(np.array([0.8, 0.2])).round(4).tolist()
        [0.6667, 0.3333]
    """

    temperature: float
    head: Head = "softmax"

    def __call__(
        self, probabilities: Float[np.ndarray, "*pixels classes"]
    ) -> Float[np.ndarray, "*pixels classes"]:
        """Return calibrated probabilities; the order of the classes stays.

        With softmax they are ``softmax(log p / T)``, with sigmoid ``sigmoid(logit(p) /
        T)`` for each class and the background, so that 1/2 stays 1/2. Both leave 0 and
        1 as they are.
        """
        power = 1 / self.temperature
        if self.head == "softmax":
            largest = probabilities.max(axis=-1, keepdims=True)
            scaled = (probabilities / largest) ** power
            return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))
        # A mean of sigmoids may round to more than 1, of which no power is a number.
        bounded = np.clip(probabilities, 0, 1)
        yes, no = bounded**power, (1 - bounded) ** power
        return np.asarray(yes / (yes + no))

    def apply_to(self, probabilities: np.ndarray) -> None:
        """Calibrate an array ``(*spatial, classes)`` in place, plane by plane."""
        for plane in probabilities:
            plane[...] = self(plane)


class Fit(NamedTuple):
    """A fitted temperature, and the mean negative log-likelihood of both.

    Attributes:
        temperature: the optimum.
        nll_uncalibrated: mean negative log-likelihood at a temperature of 1.
        nll: mean negative log-likelihood at the optimum.
    """

    temperature: float
    nll_uncalibrated: float
    nll: float


def fit_temperature(
    *,
    probabilities: Float[np.ndarray, "pixels classes"],
    labels: Integer[np.ndarray, " pixels"],
    head: Head = "softmax",
    members: Bool[np.ndarray, "labels classes"] | None = None,
) -> Fit:
    """Find the temperature of the smallest mean negative log-likelihood.

    The likelihood is convex in 1/T; Newton's method is kept inside of a bracket. A
    label of probability 0 has no likelihood at any temperature and is left out.

    Args:
        probabilities: probabilities of pixels, of a mean over networks and mirrors.
        labels: class index of each pixel; IGNORE pixels are left out.
        head: "softmax": the categorical likelihood. "sigmoid": the binary one of each
            class above 0.
        members: regions, the probabilities' classes, that each label is in; None where
            the classes are those of the labels. For "sigmoid".

    Returns: The temperature, from `LOWEST` to `HIGHEST`; 1 where the likeliest class is
        the label of every pixel, for then there is no finite optimum.
    Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2.

    Example:
        >>> fit_temperature(
        ...     probabilities=np.tile([0.9, 0.1], (4, 1)), labels=np.array([0, 0, 0, 1])
        ... ).temperature  # log(9) / log(3): three of four are right
        2.0
    """
    gaps = _gaps(probabilities, labels, head, members)
    if not (gaps > 0).any():
        nll = _likelihood(gaps, 1.0)[0]
        return Fit(1.0, nll, nll)
    low, high, power = 1 / HIGHEST, 1 / LOWEST, 1.0
    for _ in range(100):
        _, slope, curvature = _likelihood(gaps, power)
        low, high = (low, power) if slope > 0 else (power, high)
        following = power - slope / curvature if curvature > 0 else low
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - power) <= 1e-12 * power:
            break
        power = following
    nll_uncalibrated, nll = (_likelihood(gaps, one)[0] for one in (1.0, power))
    return Fit(round(1 / power, 6), nll_uncalibrated, nll)


def _gaps(
    probabilities: np.ndarray,
    labels: np.ndarray,
    head: Head,
    members: np.ndarray | None,
) -> np.ndarray:
    """Return the log-probability of each class minus the label's, ``(rows, classes)``.

    With sigmoid a row is a pixel and class, and has two entries: no and yes.
    """
    valid = labels != IGNORE
    rows, target = probabilities[valid].astype(np.float64), labels[valid].astype(int)
    if head == "sigmoid":
        if members is None:
            members = np.eye(rows.shape[-1], dtype=bool)
        target = members[target, 1:].astype(int).ravel()
        yes = rows[:, 1:].ravel()
        rows = np.stack([1 - yes, yes], axis=-1)
    labelled = np.take_along_axis(rows, target[:, None], axis=-1)
    seen = labelled[:, 0] > 0
    gaps = np.log(np.maximum(rows[seen], _TINY)) - np.log(labelled[seen])
    return np.asarray(gaps)


def _likelihood(gaps: np.ndarray, power: float) -> tuple[float, float, float]:
    """Return the mean NLL at 1/T = power, and its first and second derivative."""
    if not len(gaps):
        return 0.0, 0.0, 0.0
    largest = power * gaps.max(axis=-1, keepdims=True)
    weights = np.exp(power * gaps - largest)
    total = weights.sum(axis=-1, keepdims=True)
    weights /= total
    mean = (weights * gaps).sum(axis=-1)
    variance = (weights * gaps**2).sum(axis=-1) - mean**2
    nll = np.log(total) + largest
    return float(nll.mean()), float(mean.mean()), float(variance.mean())


Sample = tuple[np.ndarray, np.ndarray]
"""Probabilities ``(pixels, classes)`` float32 and labels ``(pixels)`` of a case."""


def drawn_pixels(
    labels: Integer[np.ndarray, "planes *rest"], *, count: int, seed: int
) -> Bool[np.ndarray, "planes *rest"]:
    """Draw pixels of a case, each with the same chance.

    Args:
        labels: class index of every pixel; IGNORE pixels are not drawn.
        count: number of pixels to draw, fewer where the case has fewer.
        seed: seed of the draw.
    """
    rng = np.random.default_rng(seed)
    valid = int(np.count_nonzero(labels != IGNORE))
    ranks = rng.choice(valid, min(count, valid), replace=False, shuffle=False)
    ranks.sort()
    drawn = np.zeros(labels.shape, bool)
    passed = 0
    for label, plane in zip(labels, drawn, strict=True):
        places = np.flatnonzero(label != IGNORE)
        first, last = np.searchsorted(ranks, (passed, passed + len(places)))
        plane.flat[places[ranks[first:last] - passed]] = True
        passed += len(places)
    return drawn
