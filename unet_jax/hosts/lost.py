"""What tells that another process of the run is gone, and the way out then."""

import contextlib
import re
from collections.abc import Callable, Iterator

import jax

from unet_jax.errors import InputError
from unet_jax.runtime.stop import Stop

_STATUS = re.compile(
    r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED): "
)
"""How jax begins an error of the network; it raises some of them as ValueError."""


def is_lost_peer(error: BaseException) -> bool:
    """Say whether an error is what a collective gives when another process is gone.

    Args:
        error: that was raised.

    Returns:
        False for any error where there is one process.
    """
    if jax.process_count() == 1 or isinstance(error, InputError):
        return False
    if isinstance(error, jax.errors.JaxRuntimeError):
        return True
    return isinstance(error, ValueError) and _STATUS.match(str(error)) is not None


@contextlib.contextmanager
def leaving_when_lost(stop: Stop, *, safe: Callable[[], str]) -> Iterator[None]:
    """Leave when another process is gone, to be queued again.

    Not by an exception: on its way out Orbax and jax would wait for the others.

    Args:
        stop: ends the process.
        safe: says in words what a restart finds.
    """
    try:
        yield
    except Exception as error:
        if not is_lost_peer(error):
            raise
        reason = " ".join(str(error).split())[:200]
        stop.leave(f"another process is gone ({reason}); {safe()}")
