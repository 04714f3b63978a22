"""Changes the prediction of a previous network in training crops.

On new cases that prediction has errors that it lacks on the cases it learnt from. A
network that sees it changed does not learn to copy it.
"""

import dataclasses

import numpy as np
from scipy import ndimage

_RADIUS = 8  # largest radius of the ball, in pixels
_LARGE = 0.15  # fraction of a crop from which a component is not removed
_CLASS = 0.5  # probability of each class, where a change happens


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviousChanges:
    """Grows, shrinks, opens or closes classes, and removes components.

    Attributes:
        classes: number of one-hot channels, the last ones of a crop.
        operator_probability: fraction of crops in which half of the classes are
            dilated, eroded, closed or opened with a ball of 1 to 8 pixels.
        removal_probability: fraction of crops in which half of the classes lose one of
            their connected components, if it covers less than 15 % of the crop.

    Source: ``ApplyRandomBinaryOperatorTransform`` and
        ``RemoveRandomConnectedComponentFromOneHotEncodingTransform`` of nnU-Net 2.8.1,
        with its numbers.
    """

    classes: int
    operator_probability: float
    removal_probability: float

    def __call__(self, crop: np.ndarray, rng: np.random.Generator) -> None:
        """Change a crop ``(*spatial, channels)`` in place."""
        one_hot = np.moveaxis(crop[..., crop.shape[-1] - self.classes :], -1, 0)
        if rng.random() < self.operator_probability:
            for index in self._drawn(rng):
                self._operate(one_hot, index, rng)
        if rng.random() < self.removal_probability:
            for index in self._drawn(rng):
                _remove_component(one_hot[index], rng)

    def _drawn(self, rng: np.random.Generator) -> list[int]:
        """Draw classes, in random order: a class that grows takes from the others."""
        order = rng.permutation(self.classes)
        return [int(index) for index in order if rng.random() < _CLASS]

    def _operate(
        self, one_hot: np.ndarray, index: int, rng: np.random.Generator
    ) -> None:
        """Apply one operator to one class."""
        radius, kind = int(rng.integers(1, _RADIUS + 1)), int(rng.integers(4))
        before = one_hot[index] > 0
        after = before
        # Dilation, erosion, closing, opening.
        for grow in ((True,), (False,), (True, False), (False, True))[kind]:
            after = dilated(after, radius) if grow else ~dilated(~after, radius)
        one_hot[:, after & ~before] = 0
        one_hot[index] = after


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate a mask ``(*spatial)`` by a ball of a radius in pixels."""
    if not mask.any():
        return mask
    grown: np.ndarray = ndimage.distance_transform_edt(~mask) <= radius
    return grown


def _remove_component(channel: np.ndarray, rng: np.random.Generator) -> None:
    """Set one component of a class to 0; all are equally likely."""
    components, count = ndimage.label(channel > 0)
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < _LARGE * channel.size)
    if len(small):
        channel[components == 1 + rng.choice(small)] = 0
