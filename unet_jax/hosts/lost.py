"""Ends this process when another process of the run is gone."""

import contextlib
import re
from collections.abc import Callable, Iterator

import jax

from unet_jax.errors import InputError
from unet_jax.runtime.stop import Stop

_STATUS = re.compile(
    r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED): "
)
"""Start of an error of the network in jax, which raises some as ValueError."""


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error means that another process is gone.

    It never does with a single process.
    """
    if jax.process_count() == 1 or isinstance(error, InputError):
        return False
    if isinstance(error, jax.errors.JaxRuntimeError):
        return True
    return isinstance(error, ValueError) and _STATUS.match(str(error)) is not None


@contextlib.contextmanager
def leaving_when_lost(stop: Stop, *, safe: Callable[[], str]) -> Iterator[None]:
    """End the process if another one is gone, so that the job is queued again.

    Not by an exception: before it left, Orbax and jax would wait for the others.
    ``safe`` says what a restart finds.
    """
    try:
        yield
    except Exception as error:
        if not is_lost_peer(error):
            raise
        reason = " ".join(str(error).split())[:200]
        stop.leave(f"another process is gone ({reason}); {safe()}")
