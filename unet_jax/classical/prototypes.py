"""Names the segments of an image by the nearest class prototype."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from unet_jax.classical.channels import scaled, to_color_space
from unet_jax.classical.samples import Reference, Sample

TEXTURE_WINDOW = 5
"""Window of a local standard deviation, in pixels of each axis."""


def local_std(image: np.ndarray, window: int = TEXTURE_WINDOW) -> np.ndarray:
    """Measure the standard deviation around each pixel, the simplest texture.

    Args:
        image: ``(*spatial, channels)``.

    Returns:
        ``(*spatial, channels)`` float32.

    Source:
        Gonzalez and Woods: Digital Image Processing (4th ed., 2018), 11.3, statistical
        approaches to texture.
    """
    values = image.astype(np.float64)
    # Of differences from the mean: of large values the squares would lose all digits.
    values -= values.mean(axis=tuple(range(values.ndim - 1)))
    size = (window,) * (values.ndim - 1) + (1,)
    mean = ndimage.uniform_filter(values, size)
    square = ndimage.uniform_filter(values**2, size)
    return np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Features:
    """Features by which segments are distinguished.

    Attributes:
        scale: "stored" or "image", see `scaled`.
        texture: whether the local std of each channel is a feature, too.
    """

    scale: str = "stored"
    texture: bool = False
    space: str = "rgb"

    def __call__(self, image: np.ndarray, reference: Reference) -> np.ndarray:
        """Return ``(*spatial, features)`` float32."""
        colored = to_color_space(image, self.space)
        # The moments of a scan are those of its stored channels.
        moments = None if self.space != "rgb" else reference
        values = scaled(colored, moments, self.scale)
        if not self.texture:
            return values
        return np.concatenate([values, local_std(values)], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Prototypes:
    """The mean of each class in the space of features.

    Attributes:
        means: ``(classes, features)``; infinite for a class that training lacks.
        spread: ``(features)`` std within the classes, the unit of distance.
    """

    means: np.ndarray
    spread: np.ndarray
    features: Features

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Square the distances ``(..., classes)`` of ``(..., features)`` from means."""
        scaled_means = self.means / self.spread
        return np.stack(
            [
                np.square(values / self.spread - mean).sum(axis=-1)
                for mean in scaled_means
            ],
            axis=-1,
        )

    def name(
        self, segments: np.ndarray, image: np.ndarray, reference: Reference
    ) -> np.ndarray:
        """Give each segment the class whose prototype its mean is nearest to.

        Args:
            segments: ``(*spatial)`` index of a segment, from 0.
            image: ``(*spatial, channels)``.

        Returns:
            ``(*spatial)`` uint8 class indices.
        """
        means = segment_means(segments, self.features(image, reference))
        return self.distances(means).argmin(axis=-1).astype(np.uint8)[segments]


def segment_means(segments: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average values over each segment.

    Args:
        segments: ``(*spatial)`` index of a segment, from 0.
        values: ``(*spatial, features)``.

    Returns:
        ``(segments, features)`` float64; 0 for an index that does not occur.

    Example:
        >>> segment_means(np.array([0, 0, 1]), np.array([[1], [3], [9]])).tolist()
        [[2.0], [9.0]]
    """
    flat = segments.ravel()
    sizes = np.maximum(np.bincount(flat), 1)
    columns = values.reshape(len(flat), -1).T
    return np.stack([np.bincount(flat, column) / sizes for column in columns], axis=-1)


def fit_prototypes(
    pieces: Sequence[Sample], features: Features, num_classes: int
) -> Prototypes:
    """Learn the mean of each class from labelled pixels.

    Source:
        The nearest-mean classifier: Duda, Hart and Stork, Pattern Classification
        (2nd ed., 2001), 2.6.1.
    """
    rows, classes = [], []
    for piece in pieces:
        valid = piece.label >= 0
        rows.append(features(piece.image, piece.reference)[valid].astype(np.float64))
        classes.append(piece.label[valid])
    values, label = np.concatenate(rows), np.concatenate(classes)
    means = np.full((num_classes, values.shape[1]), np.inf)
    within = []
    for index in np.unique(label):
        own = values[label == index]
        means[index] = own.mean(axis=0)
        within.append(own.var(axis=0))
    spread = np.sqrt(np.mean(within, axis=0)) if within else np.ones(values.shape[1])
    return Prototypes(means, np.where(spread > 0, spread, 1), features)
