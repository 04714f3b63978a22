r"""Shows file names that are not UTF-8, with ``\xfc`` for a byte that is no character.

Python keeps such bytes as lone surrogates, which no stream and no font takes.
"""

import codecs
import io
from typing import TextIO

UNKNOWN_BYTES = "unet_jax.unknown_bytes"
"""Name of the error handler, for ``errors`` of ``open`` and ``str.encode``."""


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Write the characters that cannot be encoded with a backslash."""
    assert isinstance(error, UnicodeEncodeError)
    text = ""
    for character in error.object[error.start : error.end]:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, from ``surrogateescape``
            text += f"\\x{code - 0xDC00:02x}"
        else:
            text += character.encode("ascii", "backslashreplace").decode()
    return text, error.end


codecs.register_error(UNKNOWN_BYTES, _escaped)


def printable(text: str) -> str:
    r"""Return a text that can be encoded, with ``\xfc`` for an unknown byte.

    >>> print(printable("gr\udcfcn.png"))
    gr\xfcn.png
    """
    return text.encode("utf-8", UNKNOWN_BYTES).decode("utf-8")


def let_print(stream: TextIO) -> None:
    """Let a stream print names with unknown bytes; streams of text need no change."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=UNKNOWN_BYTES)
