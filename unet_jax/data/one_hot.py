"""Gives an image the prediction of a previous network as one-hot channels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class WithOneHot:
    """An image with further channels, one for each foreground class of some labels.

    A region is made when it is read: the channels of a whole volume would take four
    bytes for each class and voxel.

    Attributes:
        image: array or view ``(*spatial, channels)``.
        labels: class index of every pixel ``(*spatial)``.
        classes: number of classes without the background.

    Example:
        >>> image = WithOneHot(np.full((3, 1), 7.0), np.array([0, 1, 2]), 2)
        >>> image[1:].tolist()
        [[7.0, 1.0, 0.0], [7.0, 0.0, 1.0]]
    """

    image: Any
    labels: np.ndarray
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*spatial, channels + classes)``."""
        *spatial, channels = self.image.shape
        return (*spatial, channels + self.classes)

    @property
    def ndim(self) -> int:
        """Number of axes, including the channel axis."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of what is read."""
        return np.dtype(np.float32)

    def transpose(self, order: Sequence[int]) -> "WithOneHot":
        """Reorder the axes; the channels stay last."""
        labels = self.labels.transpose(order[:-1])
        return WithOneHot(self.image.transpose(order), labels, self.classes)

    def __getitem__(self, region: Any) -> np.ndarray:
        """Read a region, float32, with all channels."""
        image = np.asarray(self.image[region], np.float32)
        classes = np.arange(1, self.classes + 1)
        one_hot = self.labels[region][..., None] == classes
        return np.concatenate([image, one_hot.astype(np.float32)], axis=-1)

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        """Read the whole image."""
        return self[...].astype(dtype or np.float32, copy=False)
