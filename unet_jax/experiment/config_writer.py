"""Writes a config as a Python file that a person reads and edits."""

import importlib
import pprint

from ml_collections import ConfigDict

from unet_jax.experiment.record import flat_config

_WIDTH = 88


def config_text(config: ConfigDict, *, base: str, about: str) -> str:
    """Write a config as the differences from a shipped one.

    Args:
        config: the config.
        base: name of the shipped config, such as ``"folder"``.
        about: docstring of the file.

    Returns:
        Python code with ``get_config()``, which gives an equal config.
    """
    module = importlib.import_module(f"unet_jax.configs.{base}")
    before = flat_config(module.get_config().to_dict())
    found = flat_config(config.to_dict())
    about = about.replace("\\", "\\\\").replace('"', "'")
    lines = [
        _assignment(key, value)
        for key, value in found.items()
        if key not in before or value != before[key]
    ]
    return "\n".join(
        [
            f'"""{about}\n"""',
            "",
            "from ml_collections import ConfigDict",
            "",
            f"from unet_jax.configs import {base}",
            "",
            "",
            "def get_config() -> ConfigDict:",
            '    """Return the config."""',
            f"    config = {base}.get_config()",
            *lines,
            "    return config",
            "",
        ]
    )


def _assignment(key: str, value: object) -> str:
    """Write one line, or several for a long value."""
    start = f"    config.{key} = "
    text = pprint.pformat(value, width=_WIDTH - len(start), compact=True)
    return start + text.replace("\n", "\n" + " " * len(start))
