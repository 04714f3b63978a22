"""The cases of a split without what a person drew on them."""

import dataclasses

from unet_jax.data.case import Case, Source, name_of


@dataclasses.dataclass(frozen=True)
class ImagesAlone:
    """A source whose cases have no label; that of the source below is never looked at.

    What trains without labels is given this, so that nothing on the way can read one:
    neither losses nor crops nor validation.

    Attributes:
        source: with or without labels.

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

    def where(self, index: int) -> str:
        """Name one case without reading it."""
        return name_of(self.source, index)

    def __getitem__(self, index: int) -> Case:
        """Return one case, read when it is asked for."""
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
