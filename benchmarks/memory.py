"""Measures the peak memory of this process during some work, on Linux."""

import contextlib
import pathlib
import re
from collections.abc import Iterator

_PROCESS = pathlib.Path("/proc/self")


@contextlib.contextmanager
def peak_of() -> Iterator[dict[str, float]]:
    """Measure the peak memory of the process.

    Yields:
        A dict that afterwards holds ``peak_memory_mib``, including libraries and
        weights, and ``added_memory_mib``, the peak minus the memory before the work.
    """
    found: dict[str, float] = {}
    (_PROCESS / "clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    yield found
    peak = _status("VmHWM")
    found["peak_memory_mib"] = peak
    found["added_memory_mib"] = max(peak - before, 0.0)


def _status(name: str) -> float:
    """Read a value of the process status in MiB."""
    line = re.search(rf"{name}:\s+(\d+) kB", (_PROCESS / "status").read_text())
    if line is None:
        raise OSError(f"/proc/self/status: found no {name}; expected Linux")
    return int(line[1]) / 1024
