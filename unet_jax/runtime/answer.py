"""Questions to a disk, which may hang, from a process that has to end."""

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def answer_of(function: Callable[[], T], *, seconds: float = 5.0) -> T | None:
    """Call a function that may not come back.

    Args:
        function: to be called, in another thread.
        seconds: to wait for it.

    Returns:
        What it gave; None where it raised, or did not come back in time.
    """
    answers: list[T] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.append(function())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
