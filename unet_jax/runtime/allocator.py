"""Tells the C library to keep freed memory for the next training step."""

import ctypes
import os
import sys

# Names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1

_SET_BY_USER = ("GLIBC_TUNABLES", "MALLOC_")


def keep_freed_memory() -> bool:
    """Keep freed memory in the process instead of returning it to the system.

    XLA on a CPU allocates the memory of a step as one block and frees it after the
    step. glibc maps such a block again for each step, and the kernel fills every page
    with zeros: a tenth of the time of a step (docs/performance.md). Call this before
    threads start, and only for training: volumes of different sizes do not reuse each
    other's blocks, and the peak of memory grows by about 100 MiB.

    Returns:
        True if glibc accepted the settings; False without glibc (macOS, musl), or where
        the user has set GLIBC_TUNABLES or a MALLOC_ variable.
    """
    if sys.platform != "linux" or any(
        name.startswith(_SET_BY_USER) for name in os.environ
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1))
    return all([mallopt(name, value) == 1 for name, value in settings])
