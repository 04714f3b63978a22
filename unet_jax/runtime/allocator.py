"""What the C library does with memory that this process has freed."""

import ctypes
import os
import sys

# Names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1

_SET_BY_USER = ("GLIBC_TUNABLES", "MALLOC_")


def keep_freed_memory() -> bool:
    """Have freed memory used again, instead of given back to the system and asked for.

    XLA on a CPU takes the memory of a step as one block and frees it after the step.
    glibc maps so large a block anew each time, and the kernel fills every page of it
    with zeros: a tenth of a step (docs/performance.md). To be called before threads
    begin, and for training: what one volume leaves behind is not what the next needs,
    and the peak of memory is some 100 MiB higher.

    Returns:
        Whether glibc was told; not where there is none (macOS, musl), nor where the
        user has chosen, by GLIBC_TUNABLES or a MALLOC_ variable.
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
