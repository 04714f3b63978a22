"""What a run writes down as it goes: metrics.jsonl, timing.jsonl, TensorBoard."""

import json
import math
import numbers
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.runtime.atomic import atomic_path

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


class MetricWriter:
    """Appends the numbers of a run; equal runs give an equal metrics.jsonl.

    One object a line: ``{"step": int, "split": str, name: number, ...}``, null for a
    number that is not finite. Times go to timing.jsonl and never to metrics.jsonl.
    TensorBoard gets the same under the tag ``split/name``.
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
            workdir: folder of the run; made where missing.
            resume_step: the step that training resumes from (0 if no checkpoint was
                made); what was written after it is cut. None for a new run.
            resume_size: bytes of metrics.jsonl that belong to that step, from `size`;
                None where they are not known.
        """
        from tensorboardX import SummaryWriter

        self._workdir = Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        purge_step = None
        if resume_step is not None:
            trim(self._workdir, resume_step, size=resume_size)
            purge_step = resume_step + 1
        # Line buffering: a killed run has lost at most the line it was writing.
        self._files = {
            name: (self._workdir / name).open("a", buffering=1, encoding="utf-8")
            for name in (METRICS_FILE, TIMING_FILE)
        }
        # The name holds whole seconds: the next writer would overwrite this one's file.
        self._events = SummaryWriter(
            str(self._workdir),
            purge_step=purge_step,
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and the scalars to TensorBoard.

        Args:
            step: the training step the values belong to.
            split: ``train``, ``val`` or ``test``.
            values: numbers by name (Python, NumPy or jax scalars).
        """
        self._append(METRICS_FILE, {"step": step, "split": split}, values, split)

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to timing.jsonl and the scalars to TensorBoard.

        Args:
            step: the training step the values belong to.
            values: seconds, images a second, bytes and the like, by name.
        """
        self._append(TIMING_FILE, {"step": step}, values, "timing")

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Give TensorBoard a picture.

        Args:
            step: the training step the picture belongs to.
            name: its tag.
            image: ``(height, width, 3)`` uint8.
        """
        self._events.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring everything written so far to the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._events.flush()

    def size(self) -> int:
        """Return the bytes of metrics.jsonl that are written."""
        file = self._files[METRICS_FILE]
        file.flush()
        return os.fstat(file.fileno()).st_size

    def close(self) -> None:
        """Flush and close; the writer cannot be used after."""
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
        for name, value in numbers_by_name.items():
            if value is not None:
                self._events.add_scalar(f"{prefix}/{name}", value, head["step"])


class NoWriter:
    """Takes what a process other than the first would write."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Have nothing to flush."""

    def size(self) -> int:
        """Return 0: the first process knows."""
        return 0

    def close(self) -> None:
        """Have nothing to close."""


def trim(
    workdir: str | os.PathLike[str], step: int, *, size: int | None = None
) -> None:
    """Cut what a run wrote after a step, and lines that a kill left half written.

    Args:
        workdir: folder of the run.
        step: the last step to keep; lines of later steps go from metrics.jsonl and
            timing.jsonl. Each file is replaced in one move, or left alone.
        size: bytes of metrics.jsonl to keep at most; None for no such limit.
    """
    for name in (METRICS_FILE, TIMING_FILE):
        path = Path(workdir) / name
        if not path.exists():
            continue
        # Bytes: a kill may leave half a UTF-8 character.
        content = path.read_bytes()
        kept = content[:size] if name == METRICS_FILE else content
        lines = kept.splitlines(keepends=True)
        kept = b"".join(line for line in lines if _belongs(line, step))
        if kept != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(kept)


def _belongs(line: bytes, step: int) -> bool:
    """Whether a line is whole and of a step to keep."""
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    # Without its newline the next line would be glued to it.
    return line.endswith(b"\n") and entry["step"] <= step


def _json_number(value: Any) -> int | float | None:
    """A scalar of any library as a JSON number; None where it is not finite."""
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
