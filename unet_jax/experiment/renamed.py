"""Reads the names that config keys had in earlier versions.

Old names are accepted on the command line and in workdirs until version 0.3.
"""

import copy
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

RENAMED = {
    "data.deviation_key": "data.std_key",
    "data.test_share": "data.test_fraction",
    "data.validation_share": "data.validation_fraction",
    "augment.noise_deviation": "augment.noise_std",
    "augment.spatial_axes_flip": "augment.flip_axes",
    **{
        f"model.{name}": f"model.options.{name}"
        for name in (
            *("features", "convolutions_per_stage", "decoder_convolutions", "strides"),
            *("kernel_sizes", "block", "downsample", "attention", "deep_supervision"),
            *("dropout", "padding", "norm", "norm_groups", "activation", "upsample"),
        )
    },
}
"""Old name of a key -> its present name."""


def current_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old names of config keys on a command line.

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
            advice.append(_advice(key))
            argument = f"{dashes}config.{RENAMED[key]}{equals}{value}"
        current.append(argument)
    return current, advice


def current_config(config: dict[str, Any]) -> dict[str, Any]:
    """Replace old names of keys in the config of a workdir.

    Args:
        config: nested dicts, as config.json holds them; they are not changed.

    >>> current_config({"data": {"test_share": 0.3}})
    {'data': {'test_fraction': 0.3}}
    """
    current = copy.deepcopy(config)
    _rename(current)
    return current


def rename_keys(config: ConfigDict) -> list[str]:
    """Replace old names of keys in a config file; return a line of advice for each."""
    with config.unlocked():
        return [_advice(key) for key in _rename(config)]


def _advice(key: str) -> str:
    """Name the present key of an old one."""
    return (
        f"config.{key} is now config.{RENAMED[key]}; the old name works until version "
        "0.3"
    )


def _rename(config: Any) -> list[str]:
    """Move values to their present keys; return the old ones."""
    found = []
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        values = config.get(section)
        if not isinstance(values, dict | ConfigDict) or name not in values:
            continue
        found.append(old)
        value = values[name]
        del values[name]
        target = config
        *path, last = new.split(".")
        for part in path:
            if part not in target:
                target[part] = {}
            target = target[part]
        # None was: the network's own, which an option that is not there is too.
        if value is not None or len(path) == 1:
            target[last] = value
    return found
