"""The one exception that means: the user can mend this."""


class InputError(ValueError):
    """What a user gave cannot be used.

    The message is one line with the file or key, the value found, the value expected
    and the mend. ``main`` prints it without a traceback and exits with code 2; every
    other exception is a bug of ours and keeps its traceback.
    """
