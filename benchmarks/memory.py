"""The largest memory of this process during some work, as Linux counts it."""

import contextlib
import pathlib
import re
from collections.abc import Iterator

_PROCESS = pathlib.Path("/proc/self")


@contextlib.contextmanager
def peak_of() -> Iterator[dict[str, float]]:
    """Measure what the process holds at most.

    Yields:
        A dict that has afterwards ``peak_memory_mib``, libraries and weights included,
        and ``added_memory_mib``, what the work took beyond what was held before it.
    """
    found: dict[str, float] = {}
    (_PROCESS / "clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    yield found
    peak = _status("VmHWM")
    found["peak_memory_mib"] = peak
    found["added_memory_mib"] = max(peak - before, 0.0)


def _status(name: str) -> float:
    """Read a line of the status, in MiB."""
    line = re.search(rf"{name}:\s+(\d+) kB", (_PROCESS / "status").read_text())
    if line is None:
        raise OSError(f"/proc/self/status: found no {name}; expected Linux")
    return int(line[1]) / 1024
