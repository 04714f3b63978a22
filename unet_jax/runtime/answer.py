"""Calls a function that may never return, such as one that reads a disk that hangs."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def answer_of(function: Callable[[], T], *, seconds: float = 5.0) -> T | None:
    """Call a function in another thread, and wait for some seconds.

    Returns:
        The function's result; None if it raised, or did not return in time.
    """
    future: Future[T] = Future()

    def ask() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    # A daemon, unlike the threads of an executor: the process ends without it.
    threading.Thread(target=ask, daemon=True).start()
    with contextlib.suppress(Exception):
        return future.result(seconds)
    return None
