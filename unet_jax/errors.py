"""The two exceptions that ``main`` prints as one line, without a traceback."""

from collections.abc import Sequence


class InputError(ValueError):
    """What a user gave cannot be used; the process exits with code 2.

    The message is one line with the file or key, the value found, the value expected
    and the mend. Every exception that is not one of these two is a bug of ours and
    keeps its traceback.

    Args:
        message: that line.
        details: further lines, where there is more than one fault to mend.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        """Keep the details beside the message."""
        super().__init__(message)
        self.details = tuple(details)


class RunError(RuntimeError):
    """A run that began well cannot go on; the process exits with code 1.

    The message is one line that says what happened, at which step, and what is safe.
    """
