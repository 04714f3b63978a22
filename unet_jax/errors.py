"""Defines the exceptions that ``main`` prints as one line, without a traceback."""

import shlex
from collections.abc import Sequence


class InputError(ValueError):
    """Input of the user that cannot be used; the process exits with code 2.

    The message is one line with the file or key, the value found, the value expected
    and the fix. Any exception outside this module is a bug in this package and keeps
    its traceback.

    Args:
        message: one line of text.
        details: further lines, one for each further problem.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        """Store the details beside the message."""
        super().__init__(message)
        self.details = tuple(details)


class SharedProblem(InputError):
    """A problem of one file that other files may have too, with one fix for all.

    Args:
        file: name of the file.
        text: description of the problem, and the config key that fixes it.
    """

    def __init__(self, file: str, text: str) -> None:
        """Compose the message."""
        super().__init__(f"{file}: {text}")
        self.file, self.text = file, text


class InputErrors(InputError):
    """Several problems of the user's input.

    Args:
        problems: at least one; the first is the message, the others are its details.
    """

    def __init__(self, problems: Sequence[InputError]) -> None:
        """Store the problems."""
        super().__init__(str(problems[0]), [str(problem) for problem in problems[1:]])
        self.problems = tuple(problems)


def raise_all(problems: Sequence[InputError]) -> None:
    """Raise all problems as one exception, if there are any.

    Args:
        problems: problems found so far.

    Raises:
        InputErrors: the list is not empty.
    """
    if problems:
        raise InputErrors(problems)


def setting(key: str, value: object) -> str:
    """Write a setting of a config key as a shell takes it.

    Messages propose settings in no other form, so that they can be pasted.

    Args:
        key: dotted name of the key.
        value: value of plain Python types, which a literal describes.

    Example:
        >>> print(setting("data.class_names", ("background", "cell")))
        --config.data.class_names='("background", "cell")'
    """
    text = value if isinstance(value, str) else repr(value)
    if not isinstance(value, str) and '"' not in text:
        text = text.replace("'", '"')  # no quotes inside of the shell's
    return f"--config.{key}={shlex.quote(text)}"


MOST_LINES = 20
"""Largest number of lines of a listing; a further line has the count of the others."""


def listed_lines(lines: Sequence[str]) -> list[str]:
    """Return the first 20 lines of a listing, and the number of further ones.

    Args:
        lines: one line for each of any number of things.
    """
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"and {more} more"] if more > 0 else [])]


def named_files(files: Sequence[str], what: str = "more") -> str:
    """List at most three file names, and the number of further ones.

    Args:
        files: file names.
        what: noun for the further files.

    Returns:
        Text such as ``"a.png, b.png, c.png and 4 more"``.
    """
    more = f" and {len(files) - 3} {what}" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more


class RunError(RuntimeError):
    """A run that had started cannot continue; the process exits with code 1.

    The message is one line: what happened, at which step, and which data are safe.
    """


class Stopped(Exception):
    """A signal asked the run to stop, and the run has saved its state.

    Args:
        reason: name of the signal.
        code: exit code of the process.
        saved: description of what was saved; "" for nothing.
    """

    def __init__(self, reason: str, *, code: int, saved: str = "") -> None:
        """Compose the message."""
        super().__init__(f"stopped by {reason}" + (f": {saved}" if saved else ""))
        self.reason = reason
        self.code = code
