"""Gives some of the cases of a source."""

import dataclasses
from typing import Any

from unet_jax.data.case import Case, Source

_OPTIONAL = ("where", "facts", "content", "class_counts", "labelled_classes", "release")


@dataclasses.dataclass(frozen=True)
class Subset:
    """The cases of a source with the given indices, in their order.

    Example:
        >>> Subset(["a", "b", "c"], (2, 0))[0]
        'c'
    """

    source: Source
    indices: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Case:
        """Return one case, read on demand."""
        return self.source[self.indices[index]]

    def __getattr__(self, name: str) -> Any:
        """Return an optional method of the source that takes the index of a case."""
        if name not in _OPTIONAL:
            raise AttributeError(name)
        method = getattr(self.source, name)
        return lambda index: method(self.indices[index])
