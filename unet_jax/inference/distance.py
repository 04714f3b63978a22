"""Measures how far an image is from those that a network learnt from.

Three vectors describe a window of the prepared image: the network's coarsest features,
its finest (both averaged over the window), and statistics of the intensities. Each has
its Mahalanobis distance from the training windows, and a limit within which nearly all
windows of training and of validation lie. An image whose mean distance is above a limit
is unlike training, and its labels should not be trusted.

Source: Lee et al. 2018, "A simple unified framework for detecting out-of-distribution
    samples and adversarial attacks"; Gonzalez et al. 2022, "Distance-based detection of
    out-of-distribution silent failures for Covid-19 lung lesion segmentation"; several
    depths: Anthony and Kamnitsas 2023, "On the use of Mahalanobis distance for
    out-of-distribution detection with neural networks for medical imaging".
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

PARTS = ("coarse", "fine", "intensities")
"""Names of what describes a window."""

KEPT = 0.995
"""Fraction of the windows of training, and of validation, that lie within the limit."""

Rows = Mapping[str, Float[np.ndarray, "windows _"]]
"""Description of some windows for each of `PARTS`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution with a limit on the distance from it.

    Attributes:
        mean: mean of each feature.
        whitening: matrix ``(features, features)`` that makes the covariance of
            ``rows - mean`` the identity.
        limit: distance that counts as 1.
    """

    mean: Float[np.ndarray, " features"]
    whitening: Float[np.ndarray, "features features"]
    limit: float = 1.0

    def __call__(
        self, rows: Float[np.ndarray, "windows features"]
    ) -> Float[np.ndarray, " windows"]:
        """Return the Mahalanobis distance of each row, in limits."""
        away = (rows.astype(np.float64) - self.mean) @ self.whitening
        return np.asarray(np.linalg.norm(away, axis=-1) / self.limit)

    @classmethod
    def of(cls, rows: Float[np.ndarray, "windows features"]) -> "Gaussian":
        """Fit mean and covariance, which is shrunk as few windows demand.

        Features are scaled to a variance of 1 before that; one that is constant gets a
        hundredth of the mean standard deviation.
        """
        rows = rows.astype(np.float64)
        mean, std = rows.mean(axis=0), rows.std(axis=0)
        std = np.maximum(std, max(0.01 * float(std.mean()), 1e-6))
        values, vectors = np.linalg.eigh(shrunk_covariance((rows - mean) / std))
        inverse = vectors / np.sqrt(np.maximum(values, 1e-6))
        return cls(mean, inverse / std[:, None])


def shrunk_covariance(
    rows: Float[np.ndarray, "windows features"],
) -> Float[np.ndarray, "features features"]:
    """Estimate the covariance of rows whose mean is 0, shrunk towards a sphere.

    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional
        covariance matrices". scikit-learn has it, but takes a second to import.
    """
    count, size = rows.shape
    sample = rows.T @ rows / count
    sphere = np.trace(sample) / size * np.eye(size)
    spread = ((sample - sphere) ** 2).sum()
    error = ((rows**2).sum(axis=1) ** 2).sum() / count**2 - (sample**2).sum() / count
    weight = min(error / spread, 1.0) if spread > 0 else 1.0
    return np.asarray(weight * sphere + (1 - weight) * sample)


class Distance(NamedTuple):
    """Distance of an image from training; 1 is the limit.

    Attributes:
        features: mean distance of the network's features, the coarsest or the finest,
            whichever are farther.
        intensities: mean distance of the statistics of the intensities.
    """

    features: float
    intensities: float

    @property
    def is_beyond(self) -> bool:
        """Whether the image is unlike training: one of the two exceeds the limit."""
        return not (self.features <= 1 and self.intensities <= 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Familiar:
    """Distributions of what a network learnt from, for each of `PARTS`."""

    parts: Mapping[str, Gaussian]

    @classmethod
    def of(cls, training: Rows, validation: Rows) -> "Familiar":
        """Fit the distributions to training windows, and the limits to both splits."""
        found = {}
        for part in PARTS:
            one = Gaussian.of(training[part])
            away = (
                np.quantile(one(rows[part]), KEPT) for rows in (training, validation)
            )
            found[part] = dataclasses.replace(one, limit=max(1e-6, *map(float, away)))
        return cls(found)

    def distance(self, rows: Rows) -> Distance:
        """Return the mean distance of the windows of an image."""
        mean = {part: float(one(rows[part]).mean()) for part, one in self.parts.items()}
        return Distance(
            float(np.maximum(mean["coarse"], mean["fine"])), mean["intensities"]
        )

    def save(self, path: str | os.PathLike[str], *, step: int | None) -> None:
        """Write an npz file for the checkpoint of a step."""
        arrays: dict[str, Any] = {
            f"{part}.{name}": np.asarray(value, np.float64)
            for part, one in self.parts.items()
            for name, value in vars(one).items()
        }
        with open(path, "wb") as stream:
            np.savez(stream, checkpoint_step=str(step), **arrays)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, step: int | None
    ) -> "Familiar | None":
        """Read the file; None where another checkpoint has it.

        Raises:
            OSError, ValueError, KeyError: the file cannot be read.
        """
        # numpy leaves a file open that it cannot read.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as found:
            if found["checkpoint_step"] != str(step):
                return None
            names = [field.name for field in dataclasses.fields(Gaussian)]
            return cls(
                {
                    part: Gaussian(*(found[f"{part}.{name}"] for name in names))
                    for part in PARTS
                }
            )


def intensity_statistics(
    windows: Float[np.ndarray, "windows *window channels"],
) -> Float[np.ndarray, "windows statistics"]:
    """Describe the intensities of windows, channel by channel.

    They are mean, standard deviation, skewness (its logarithm, with the sign), the
    5th, 25th, 50th, 75th and 95th percentile, the fraction of pixels that have the
    smallest value (empty ones), and the mean absolute difference of neighbours.
    """
    count, channels = windows.shape[0], windows.shape[-1]
    windows = windows.astype(np.float64)
    flat = windows.reshape(count, -1, channels)
    mean, std = flat.mean(axis=1), flat.std(axis=1)
    cubes = ((flat - mean[:, None]) ** 3).mean(axis=1)
    skewness = cubes / np.maximum(std, 1e-6) ** 3
    axes = tuple(range(1, windows.ndim - 1))
    steps = [
        np.abs(np.diff(windows, axis=axis)).mean(axis=axes)
        for axis in axes
        if windows.shape[axis] > 1
    ]
    parts = [
        mean,
        std,
        np.sign(skewness) * np.log1p(np.abs(skewness)),
        *np.percentile(flat, (5, 25, 50, 75, 95), axis=1),
        (flat == flat.min(axis=1, keepdims=True)).mean(axis=1),
        np.mean(steps, axis=0),
    ]
    return np.concatenate(parts, axis=-1)
