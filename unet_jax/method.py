"""Defines what a segmentation method takes and gives: a threshold and a U-Net alike."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

Spacing = tuple[float, ...] | None
"""Millimetres of a pixel along each spatial axis; None where it is not known."""

Reference = tuple[tuple[float, float], ...] | None
"""Mean and standard deviation of each channel of a whole scan, see ``Case``."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A segmentation function with the keywords that it takes.

    A plain function ``(image, spacing) -> labels`` needs no `Method` to be scored.

    Attributes:
        function: called with an image ``(*spatial, channels)`` and its `Spacing`;
            returns the class index of every pixel ``(*spatial)``.
        gives_probabilities: the function takes a keyword ``probabilities``: None, or
            an array ``(*spatial, classes)`` that it fills.
        wants_reference: the function takes a keyword ``reference``: the `Reference`
            of the scan that a slab was cut from, or None.
        calibrate: function that calibrates the filled probabilities in place; None
            where they are as the method means them.

    Example:
        >>> threshold = Method(lambda image, spacing: image[..., 0] > 10)
        >>> threshold(np.array([[[9], [11]]]), None, reference=((8.0, 1.0),))
        array([[False,  True]])
    """

    function: Callable[..., Any]
    gives_probabilities: bool = False
    wants_reference: bool = False
    calibrate: Callable[[np.ndarray], None] | None = None

    def __call__(
        self,
        image: np.ndarray,
        spacing: Spacing,
        *,
        reference: Reference = None,
        probabilities: np.ndarray | None = None,
    ) -> np.ndarray:
        """Segment an image; the function gets only the keywords that it takes."""
        options: dict[str, Any] = {}
        if self.wants_reference:
            options["reference"] = reference
        if self.gives_probabilities:
            options["probabilities"] = probabilities
        return np.asarray(self.function(image, spacing, **options))
