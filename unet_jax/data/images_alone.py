"""Wraps a source so that its cases have no labels."""

import dataclasses
from typing import Any

from unet_jax.data.case import Case, Source


@dataclasses.dataclass(frozen=True)
class ImagesAlone:
    """Removes the label of every case.

    Training without labels is given such a source, so that neither losses nor crops nor
    validation can read a label.

    Example:
        >>> import numpy as np
        >>> case = Case("a", np.zeros((2, 2, 1)), np.ones((2, 2), int), None, "a")
        >>> ImagesAlone([case])[0].label is None
        True
    """

    source: Source

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.source)

    def class_counts(self, index: int) -> None:
        """Return None: there is no label to count."""

    def __getattr__(self, name: str) -> Any:
        """Return the source's optional methods, which reveal nothing of its labels."""
        if name in ("where", "facts", "content", "extent", "release", "held_bytes"):
            return getattr(self.source, name)
        raise AttributeError(name)

    def __getitem__(self, index: int) -> Case:
        """Return one case, read on demand."""
        case = self.source[index]
        # Not dataclasses.replace: attribute by attribute, all but the label.
        return Case(
            id=case.id,
            image=case.image,
            label=None,
            spacing=case.spacing,
            group=case.group,
            reference=case.reference,
        )
