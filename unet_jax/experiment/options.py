"""Reads the options of the network from a command line.

They are fields of the network and no keys of configs/base.py, so ml_collections knows
neither their names nor their types.
"""

import ast
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from unet_jax.errors import InputError

_OPTION = re.compile(r"--?config\.model\.options\.([^=]*)=(.*)", re.DOTALL)


def split_options(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separate changes of config keys from changes of network options.

    Args:
        arguments: changes such as ``--config.model.options.attention=True``.

    Returns:
        The other arguments, and the value of each option: a Python literal, or text
        where it is none.

    Raises:
        InputError: the name of an option is not one.

    >>> split_options(["--config.seed=1", "--config.model.options.norm=batch"])
    (['--config.seed=1'], {'norm': 'batch'})
    """
    rest: list[str] = []
    options: dict[str, Any] = {}
    for argument in arguments:
        found = _OPTION.fullmatch(argument)
        if found is None:
            rest.append(argument)
            continue
        name, text = found[1], found[2]
        if not name.isidentifier():
            raise InputError(
                f"{argument}: found the option {name!r}, expected one name such as "
                "--config.model.options.norm=batch"
            )
        options[name] = _value(text)
    return rest, options


def _value(text: str) -> Any:
    """Read the value of an option."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        # As the flags of other keys: ml_collections takes these spellings too.
        return {"true": True, "false": False}.get(text.lower(), text)


def given_options(config: ConfigDict) -> dict[str, Any]:
    """Return the options of the network that a config gives, which are not None."""
    options = config.model.options.to_dict()
    return {key: _hashable(one) for key, one in options.items() if one is not None}


def _hashable(value: Any) -> Any:
    """Turn lists into tuples: modules of Flax compare and cache by their fields."""
    if isinstance(value, list | tuple):
        return tuple(_hashable(one) for one in value)
    return value
