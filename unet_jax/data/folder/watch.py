"""Follows how a folder is opened: what was read so far, and what was found."""

import dataclasses
from collections.abc import Callable, Mapping

from unet_jax.data.folder.pairing import Pair
from unet_jax.data.folder.splits import Splits
from unet_jax.data.folder.traits import Examined


@dataclasses.dataclass
class Watch:
    """What is known while a folder is opened, also if its problems end that.

    Attributes:
        step: function that is called after each case with the number of cases read
            and the number of all.
        found: files of each case that was read, and what was found in them.
        groups: group of each id, once it is known.
        splits: the splits, once they are known.
        labelled: names of the labelled classes of cases that have not all.
    """

    step: Callable[[int, int], None] = lambda done, total: None
    found: list[tuple[Pair, Examined]] = dataclasses.field(default_factory=list)
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    splits: Splits | None = None
    labelled: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def add(self, pair: Pair, examined: Examined, total: int) -> None:
        """Take what was found in a case, one of ``total``."""
        self.found.append((pair, examined))
        self.step(len(self.found), total)
