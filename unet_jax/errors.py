"""The two exceptions that ``main`` prints as one line, without a traceback."""


class InputError(ValueError):
    """What a user gave cannot be used; the process exits with code 2.

    The message is one line with the file or key, the value found, the value expected
    and the mend. Every exception that is not one of these two is a bug of ours and
    keeps its traceback.
    """


class RunError(RuntimeError):
    """A run that began well cannot go on; the process exits with code 1.

    The message is one line that says what happened, at which step, and what is safe.
    """
