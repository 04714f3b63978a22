"""Declares config keys: default, meaning, limits, and whether a key may change."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
        default: value that the key has unless a config or the command line sets it.
        meaning: what the key decides, with its unit.
        low: smallest accepted number.
        high: largest accepted number.
        choices: accepted values; () for any.
        may_change: whether a run may be resumed with another value.
        from_data: whether None is accepted until the data of a folder give the value.
        changes_scores: whether another value may change a score of the run. Finished
            runs that differ only in their seed and in keys without this are one method.
        kind: type of the value, where the default's type does not say it: ``object``
            accepts any type, and with a default of None any other kind accepts None.
    """

    default: Any
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Any, ...] = ()
    may_change: bool = False
    from_data: bool = False
    changes_scores: bool = True
    kind: type | None = None

    @property
    def has_limits(self) -> bool:
        """Whether the key accepts numbers alone, within limits."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def limits(self) -> str:
        """The accepted numbers in words.

        >>> Key(0.5, "a fraction", low=0, high=1).limits
        '0 to 1'
        """
        if self.high < math.inf:
            return f"{self.low} to {self.high}"
        return f"at least {self.low}"


def create_config(keys: Mapping[str, Key]) -> ConfigDict:
    """Build a config that holds the default of every key.

    Args:
        keys: keys by dotted name, such as ``"train.steps"``.

    Returns:
        A config with a section for each first part of the names.

    >>> create_config({"train.steps": Key(1000, "updates")}).train.steps
    1000
    """
    config = ConfigDict()
    for name, key in keys.items():
        section, _, leaf = name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        place = config[section] if section else config
        if key.kind is None:
            place[leaf] = key.default
        elif key.default is None:
            place[leaf] = config_dict.placeholder(key.kind)
        else:
            place[leaf] = config_dict.FieldReference(key.default, key.kind)
    return config
