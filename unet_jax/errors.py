"""The exceptions that ``main`` prints as one line, without a traceback."""

from collections.abc import Sequence


class InputError(ValueError):
    """What a user gave cannot be used; the process exits with code 2.

    The message is one line with the file or key, the value found, the value expected
    and the fix. Every exception that is none of these is a bug of ours and
    keeps its traceback.

    Args:
        message: that line.
        details: further lines, where there is more than one problem to fix.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        """Keep the details beside the message."""
        super().__init__(message)
        self.details = tuple(details)


class SharedFault(InputError):
    """A file cannot be used as the config says; others may have the same problem.

    Args:
        file: its name.
        text: what is wrong, and the key that fixes it for all of them.
    """

    def __init__(self, file: str, text: str) -> None:
        """Make the message."""
        super().__init__(f"{file}: {text}")
        self.file, self.text = file, text


class InputErrors(InputError):
    """Several things that a user gave cannot be used.

    Args:
        problems: one at least; the first is the message, the others are its details.
    """

    def __init__(self, problems: Sequence[InputError]) -> None:
        """Keep the problems as they are."""
        super().__init__(str(problems[0]), [str(problem) for problem in problems[1:]])
        self.problems = tuple(problems)


def raise_all(problems: Sequence[InputError]) -> None:
    """Raise problems, if there are any.

    Args:
        problems: found so far.

    Raises:
        InputErrors: with all of them.
    """
    if problems:
        raise InputErrors(problems)


def named_files(files: Sequence[str], what: str = "more") -> str:
    """Write a few file names, and how many more there are.

    Args:
        files: their names.
        what: the others are called.

    Returns:
        Three names at most.
    """
    more = f" and {len(files) - 3} {what}" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more


class RunError(RuntimeError):
    """A run that began well cannot go on; the process exits with code 1.

    The message is one line that says what happened, at which step, and what is safe.
    """


class Stopped(Exception):
    """A run was asked to stop, by a signal, and has saved what it could.

    Args:
        reason: the signal's name.
        code: that the process exits with.
        saved: what was saved, in words; "" for nothing.
    """

    def __init__(self, reason: str, *, code: int, saved: str = "") -> None:
        """Make the message."""
        super().__init__(f"stopped by {reason}" + (f": {saved}" if saved else ""))
        self.reason = reason
        self.code = code
