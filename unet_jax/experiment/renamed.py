"""Reads the names that config keys had in earlier versions.

Old names are accepted on the command line and in workdirs until version 0.3.
"""

from collections.abc import Sequence
from typing import Any

RENAMED = {
    "data.deviation_key": "data.std_key",
    "data.test_share": "data.test_fraction",
    "data.validation_share": "data.validation_fraction",
    "augment.noise_deviation": "augment.noise_std",
}
"""Old name of a key -> its present name."""


def current_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old names of config keys on a command line.

    Args:
        arguments: the command line, such as ``--config.data.test_share=0.3``.

    Returns:
        The arguments with present names, and one line of advice for each old name.

    >>> current_arguments(["--config.data.test_share=0.3"])[0]
    ['--config.data.test_fraction=0.3']
    """
    current, advice = [], []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        dashes, _, key = flag.partition("config.")
        if dashes in ("-", "--") and key in RENAMED:
            advice.append(
                f"config.{key} is now config.{RENAMED[key]}; the old name works until "
                "version 0.3"
            )
            argument = f"{dashes}config.{RENAMED[key]}{equals}{value}"
        current.append(argument)
    return current, advice


def current_config(config: dict[str, Any]) -> dict[str, Any]:
    """Replace old names of keys in the config of a workdir.

    Args:
        config: nested dicts, as config.json holds them; they are not changed.

    Returns:
        The same values under their present names.

    >>> current_config({"data": {"test_share": 0.3}})
    {'data': {'test_fraction': 0.3}}
    """
    current = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }
    for old, new in RENAMED.items():
        section, _, name = old.rpartition(".")
        values = current.get(section)
        if isinstance(values, dict) and name in values:
            new_section, _, new_name = new.rpartition(".")
            current.setdefault(new_section, {})[new_name] = values.pop(name)
    return current
