"""Wraps a source so that its cases have no labels."""

import dataclasses

from unet_jax.data.case import Case, CaseFacts, Source, facts_of, name_of, release_case


@dataclasses.dataclass(frozen=True)
class ImagesAlone:
    """Removes the label of every case.

    Training without labels is given such a source, so that neither losses nor crops nor
    validation can read a label.

    Attributes:
        source: cases with or without labels.

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

    def facts(self, index: int) -> CaseFacts:
        """Describe one case; facts contain nothing of its label."""
        return facts_of(self.source, index)

    def class_counts(self, index: int) -> None:
        """Return None: there is no label to count."""

    def release(self, index: int) -> None:
        """Free a case that the source holds in memory."""
        release_case(self.source, index)

    @property
    def held_bytes(self) -> int:
        """Bytes of the cases that the source holds in memory."""
        held: int = getattr(self.source, "held_bytes", 0)
        return held

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
