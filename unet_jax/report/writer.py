"""Writes the log of a run: metrics.jsonl, timing.jsonl and TensorBoard events."""

import json
import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet_jax.report.events import EventFile
from unet_jax.runtime.atomic import atomic_path

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class MetricWriter:
    """Appends numbers to the log of a run; equal runs write equal metrics.jsonl.

    Each line is an object ``{"step": int, "split": str, name: number, ...}`` with null
    for a number that is not finite. Times are written to timing.jsonl only.
    TensorBoard gets each number under the tag ``split/name``, with the line itself.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        resume_step: int | None = None,
        resume_size: int | None = None,
    ) -> None:
        """Open the files of a workdir.

        Args:
            workdir: folder of the run; it is created if it is missing.
            resume_step: step that training resumes from (0 without a checkpoint);
                later lines are removed. None for a new run.
            resume_size: bytes of metrics.jsonl up to that step, from `size`; None if
                unknown.
        """
        self._workdir = Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        first_step = None
        if resume_step is not None:
            trim(self._workdir, resume_step, size=resume_size)
            first_step = resume_step + 1
        # With line buffering, a killed run loses at most the line it was writing.
        self._files = {
            name: (self._workdir / name).open("a", buffering=1, encoding="utf-8")
            for name in (METRICS_FILE, TIMING_FILE)
        }
        self._events = EventFile(self._workdir, first_step=first_step)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and the scalars to TensorBoard.

        Args:
            step: training step of the values.
            split: ``train``, ``val`` or ``test``.
            values: numbers by name (Python, NumPy or jax scalars).
        """
        self._append(METRICS_FILE, {"step": step, "split": split}, values, split)

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to timing.jsonl and the scalars to TensorBoard.

        Args:
            step: training step of the values.
            values: times, images a second, bytes and similar numbers, by name.
        """
        self._append(TIMING_FILE, {"step": step}, values, "timing")

    def flush(self) -> None:
        """Write everything to disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def size(self) -> int:
        """Return the number of bytes in metrics.jsonl."""
        file = self._files[METRICS_FILE]
        file.flush()
        return os.fstat(file.fileno()).st_size

    def close(self) -> None:
        """Flush and close; the writer cannot be used afterwards."""
        self.flush()
        for file in self._files.values():
            file.close()
        self._events.close()

    def _append(
        self, file: str, head: dict[str, Any], values: Mapping[str, Any], prefix: str
    ) -> None:
        """Write one line and its TensorBoard scalars."""
        numbers_by_name = {name: _json_number(value) for name, value in values.items()}
        line = json.dumps({**head, **numbers_by_name}, allow_nan=False)
        self._files[file].write(line + "\n")
        known = {n: value for n, value in numbers_by_name.items() if value is not None}
        self._events.write(
            head["step"], {f"{prefix}/{name}": value for name, value in known.items()}
        )


class NoWriter:
    """Discards what a process other than the first would write."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def size(self) -> int:
        """Return 0; only the first process knows the size."""
        return 0

    def close(self) -> None:
        """Do nothing."""


def trim(
    workdir: str | os.PathLike[str], step: int, *, size: int | None = None
) -> None:
    """Remove the lines after a step, and lines that were only partly written.

    Each file is replaced in one move, or left unchanged.

    Args:
        workdir: folder of the run.
        step: last step to keep in metrics.jsonl and timing.jsonl.
        size: largest number of bytes of metrics.jsonl to keep; None for no limit.
    """
    for name in (METRICS_FILE, TIMING_FILE):
        path = Path(workdir) / name
        if not path.exists():
            continue
        # Read as bytes: a killed run may leave a partial UTF-8 character.
        content = path.read_bytes()
        kept = content[:size] if name == METRICS_FILE else content
        lines = kept.splitlines(keepends=True)
        kept = b"".join(line for line in lines if _belongs(line, step))
        if kept != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(kept)


def _belongs(line: bytes, step: int) -> bool:
    """Whether a line is complete and belongs to a step to keep."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    # Without a newline, the next line would be appended to it.
    return line.endswith(b"\n") and entry["step"] <= step


def _json_number(value: Any) -> int | float | None:
    """Turn a scalar of any library into a JSON number; None where it is not finite."""
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
