"""Fits what images a network knows, and measures how far a new image is from them."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from unet_jax.data.adjacent_slices import AdjacentSlices
from unet_jax.data.case import Source
from unet_jax.data.grids import with_prediction
from unet_jax.data.preprocess import Preprocessing
from unet_jax.inference.distance import Distance, Familiar, intensity_statistics
from unet_jax.inference.features import Features
from unet_jax.inference.member import Previous, stack_axis
from unet_jax.inference.sample_windows import sample_windows
from unet_jax.method import Reference, Spacing
from unet_jax.runtime.atomic import atomic_path

DISTANCE = "distance.npz"
"""File of a workdir with the distributions of what the network learnt from."""

_OF_AN_IMAGE = (4, 16, 2**20)
_OF_A_SPLIT = (32, 256, 2**22)
"""Fewest and most windows, and their pixels: a large window takes its time."""

_OF_A_BATCH = 2**17
"""Pixels of the windows in one call of the network."""

_CASES = 64
"""Most cases of a split that windows are taken from."""


@dataclasses.dataclass(frozen=True, eq=False)
class Describer:
    """Describes windows of images by a network's features.

    Attributes:
        features: compiled network, from `make_features`.
        variables: parameters and statistics of the network.
        preprocessing: preprocessing of the network.
        window: size of a window along each axis of the network.
        familiar: distributions of training; None where none were fitted.
        previous: network whose labels this one takes as channels; or None.
    """

    features: Features
    variables: dict[str, Any]
    preprocessing: Preprocessing
    window: tuple[int, ...]
    familiar: Familiar | None = None
    previous: Previous | None = None

    @property
    def count(self) -> int:
        """Most windows of an image that its distance is the mean of."""
        return self._count(_OF_AN_IMAGE)

    def distance(
        self, image: np.ndarray, spacing: Spacing, *, reference: Reference = None
    ) -> Distance | None:
        """Return the distance of an image from training; None if none was fitted."""
        if self.familiar is None:
            return None
        windows = self._windows(image, spacing, reference, self.count)
        return self.familiar.distance(self._rows(windows))

    def fit(
        self, path: pathlib.Path, sources: Mapping[str, Source], *, step: int | None
    ) -> "Describer":
        """Fit the distributions to windows of cases, and write them to a file.

        Args:
            path: file to write.
            sources: cases of the splits "train" and "validation".
            step: step of the checkpoint.
        """
        familiar = Familiar.of(
            *(self._rows_of(sources[split]) for split in ("train", "validation"))
        )
        with atomic_path(path) as temporary:
            familiar.save(temporary, step=step)
        return dataclasses.replace(self, familiar=familiar)

    def _rows_of(self, source: Source) -> dict[str, np.ndarray]:
        """Describe windows of cases that are spread evenly over a split."""
        chosen = np.linspace(0, len(source) - 1, min(_CASES, len(source))).astype(int)
        count = math.ceil(self._count(_OF_A_SPLIT) / len(chosen))
        cases = (source[int(index)] for index in chosen)
        return self._rows(
            np.concatenate(
                [
                    self._windows(case.image, case.spacing, case.reference, count)
                    for case in cases
                ]
            )
        )

    def _count(self, limits: tuple[int, int, int]) -> int:
        """Return the number of windows within fewest, most and pixels."""
        fewest, most, pixels = limits
        return min(most, max(fewest, pixels // math.prod(self.window)))

    def _windows(
        self, image: np.ndarray, spacing: Spacing, reference: Reference, count: int
    ) -> np.ndarray:
        """Return windows of the prepared image, ``(n, *window, channels)``."""
        prepared: Any
        prepared, inverse = self.preprocessing.view(image, spacing, reference=reference)
        if self.previous is not None:
            labels = self.previous(image, spacing, reference=reference)
            classes = self.previous.classes
            prepared = with_prediction(prepared, labels, inverse, classes=classes)
        size = self.window
        axis = stack_axis(self.preprocessing, len(prepared.shape) - 1)
        if axis is None:
            return sample_windows(prepared, window=size, count=count)
        size = (*size[:axis], 1, *size[axis:])
        slices = AdjacentSlices(prepared, axis, self.preprocessing.adjacent_slices)
        return sample_windows(slices, window=size, count=count).squeeze(1 + axis)

    def _rows(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """Describe windows, in batches of one size so that one program suffices."""
        size = max(1, _OF_A_BATCH // math.prod(self.window))
        found = []
        for first in range(0, len(windows), size):
            batch = windows[first : first + size]
            index = np.minimum(np.arange(size), len(batch) - 1)  # repeats the last
            made = self.features(self.variables, batch[index])
            found.append({name: one[: len(batch)] for name, one in made.items()})
        rows = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        first = self.preprocessing.adjacent_slices * self.preprocessing.channels
        own = windows[..., first : first + self.preprocessing.channels]
        return rows | {"intensities": intensity_statistics(own)}
