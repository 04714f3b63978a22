"""Names paths as the user knows them: the copy of a workdir by its bucket."""

import contextlib
import os
from collections.abc import Iterator

_NAMES: dict[str, str] = {}
"""Folder of this machine -> the name that the user gave."""


@contextlib.contextmanager
def shown_as(folder: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Have `shown` name a folder otherwise, such as ``gs://a/run``, within a block."""
    _NAMES[os.fspath(folder)] = name
    try:
        yield
    finally:
        del _NAMES[os.fspath(folder)]


def shown(text: object) -> str:
    """Return a path, or a message with paths, as the user knows them.

    >>> with shown_as("/tmp/copy", "gs://bucket/run"):
    ...     shown("scores: /tmp/copy/test_metrics.json")
    'scores: gs://bucket/run/test_metrics.json'
    >>> shown("/tmp/copy")
    '/tmp/copy'
    """
    message = str(text)
    for folder, name in _NAMES.items():
        message = message.replace(folder, name)
    return message
