"""Expands the home folder in paths that a user gives."""

import os

from unet_jax.errors import InputError


def expanded(path: str | os.PathLike[str]) -> str:
    """Replace ``~`` or ``~user`` at the start of a path by the home folder.

    A shell does so for a word of its own, but not in ``--workdir=~/runs``.

    Raises:
        InputError: the home folder is not known.

    >>> expanded("gs://bucket/run")
    'gs://bucket/run'
    """
    text = os.fspath(path)
    home = os.path.expanduser(text)
    if home == text and text.startswith("~"):
        raise InputError(
            f"{text}: the home folder of {text.partition('/')[0]} is not known; give "
            f"the whole path, or ./{text} for a folder of that name"
        )
    return home
