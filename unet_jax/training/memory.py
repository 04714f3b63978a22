"""Checks that a step fits into device memory, and says what to lower if it does not.

A step needs memory for parameters, optimizer and gradients (fixed), for its batch, and
for activations, which grow with the examples that pass the network at once.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from unet_jax.errors import InputError, RunError, setting
from unet_jax.runtime.compilation import compile_with_options, step_cost

_GIB = 2**30
_MARGIN = 0.95
"""Fraction of the memory that a proposal may fill, since its need is an estimate."""

_SHRUNK = 0.75
"""Fraction of the need to propose if the step should have fitted, and did not."""

_TPU_LINE = re.compile(r"Used ([\d.]+)([GMK]) of ([\d.]+)([GMK]) hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB", re.MULTILINE)
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step needs on one device.

    Attributes:
        state: bytes of the training state.
        gradients: bytes of the gradients; accumulation holds them twice.
        batch: bytes of the images and labels of one device.
        batch_size: examples of the global batch.
        accumulation: number of parts that a device cuts its rows into.
        devices: number of devices of all processes.
        total: bytes of the whole step by the compiler; None before it is compiled.
        limit: bytes that the device gives to a step; None if unknown.
    """

    state: int
    gradients: int
    batch: int
    batch_size: int
    accumulation: int
    devices: int
    total: float | None = None
    limit: int | None = None

    def needs(self, *, batch_size: int, accumulation: int) -> float:
        """Estimate the bytes on a device with another batch size or number of parts.

        They are exact for the step itself.
        """
        assert self.total is not None, "the step is not compiled yet"
        scale = batch_size / self.batch_size
        activations = max(self.total - self._fixed(self.accumulation) - self.batch, 0)
        return (
            self._fixed(accumulation)
            + self.batch * scale
            + activations * scale * self.accumulation / accumulation
        )

    def _fixed(self, accumulation: int) -> int:
        """Bytes that do not depend on the batch."""
        return self.state + self.gradients * (2 if accumulation > 1 else 1)

    def advice(self) -> str:
        """Say what to lower, and by how much if the figures are known."""
        if self.total is None or self.limit is None:
            return (
                "raise train.accumulation, or lower train.batch_size or "
                "train.patch_size"
            )
        room = _MARGIN * self.limit
        if self.total <= self.limit:
            room = _SHRUNK * self.total
        ways = [way for way in (self._parts(room), self._fewer(room)) if way]
        if ways:
            return " or ".join(ways)
        fixed = self._fixed(self.accumulation)
        if fixed >= room:
            return (
                f"parameters, optimizer and gradients alone need {_gib(fixed)}: choose "
                "a smaller network by model.name or model.options"
            )
        least = self.needs(
            batch_size=self.devices * self.accumulation, accumulation=self.accumulation
        )
        fraction = (room - fixed) / (least - fixed)
        return (
            f"a single crop on each device would need about {_gib(least)}: lower "
            f"train.patch_size to {max(int(100 * fraction), 1)} % of its pixels, with "
            f"{setting('train.batch_size', self.devices * self.accumulation)}"
        )

    def _fewer(self, room: float) -> str:
        """Propose the largest batch that fits."""
        unit = self.devices * self.accumulation
        for size in range(self.batch_size - unit, 0, -unit):
            needed = self.needs(batch_size=size, accumulation=self.accumulation)
            if needed <= room:
                return f"lower it by --config.train.batch_size={size} ({_gib(needed)})"
        return ""

    def _parts(self, room: float) -> str:
        """Propose the fewest parts that fit: the same updates, a little slower."""
        rows = self.batch_size // self.devices
        for parts in range(self.accumulation + 1, rows + 1):
            needed = self.needs(batch_size=self.batch_size, accumulation=parts)
            if rows % parts == 0 and needed <= room:
                return (
                    f"keep train.batch_size={self.batch_size} by "
                    f"--config.train.accumulation={parts} (about {_gib(needed)})"
                )
        return ""

    def explain(self, error: str = "") -> str:
        """Say what the step needs, what the device has, and what to lower.

        ``error`` is the backend's message; a TPU compiler's has figures of its own.
        """
        found = _TPU_LINE.search(error)
        if found is not None:
            used, limit = (
                float(found[index]) * _UNITS[found[index + 1]] for index in (1, 3)
            )
            return dataclasses.replace(self, total=used, limit=int(limit)).explain()
        if self.total is None:
            return (
                f"the step does not fit into the memory of this device; {self.advice()}"
            )
        if self.limit is None:
            return f"the step needs {_gib(self.total)}; {self.advice()}"
        line = (
            f"the step needs {_gib(self.total)}, and this device has "
            f"{_gib(self.limit)} for it"
        )
        if self.total <= self.limit:
            line += ", part of which is taken"
        return f"{line}; {self.advice()}"

    def check(self) -> None:
        """Refuse a step that needs more memory than the device has for it.

        Raises:
            InputError: it does not fit.
        """
        if self.limit and self.total and self.total > self.limit:
            raise InputError(self.explain())


def step_memory(
    state: Any,
    batch: Any,
    *,
    batch_size: int,
    accumulation: int,
    devices: int,
    device: Any,
) -> StepMemory:
    """Count the bytes that are known before a step is compiled: all but the total.

    The batch has arrays or shapes of this process, ``(local devices, rows, ...)``;
    ``devices`` is the number of devices of all processes.
    """
    return StepMemory(
        state=_bytes(state),
        gradients=_bytes(state.params),
        batch=sum(_bytes(leaf) // leaf.shape[0] for leaf in jax.tree.leaves(batch)),
        batch_size=batch_size,
        accumulation=accumulation,
        devices=devices,
        limit=device_limit(device),
    )


def compile_step(
    step: Any,
    state: Any,
    batch: Any,
    memory: StepMemory,
    *,
    options: dict[str, Any] | None = None,
) -> tuple[Any, StepMemory]:
    """Compile the mapped step for a state and the shapes of a batch.

    Returns:
        The compiled step, and its memory with the compiler's total.

    Raises:
        InputError: the step does not fit into memory.
    """
    with explained(memory.explain, InputError):
        compiled = compile_with_options(step.lower(state, batch), options or {})
    memory = dataclasses.replace(memory, total=step_cost(compiled).get("memory_bytes"))
    memory.check()
    return compiled, memory


def device_limit(device: Any) -> int | None:
    """Return the bytes that a device gives to programs; None if unknown.

    CPU devices divide the free memory of the machine, or the limit of its container.
    """
    try:
        stats = device.memory_stats() or {}
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        stats = {}
    if stats.get("bytes_limit"):
        return int(stats["bytes_limit"])
    if device.platform != "cpu":
        return None
    return _machine_bytes() // jax.local_device_count()


def _machine_bytes() -> int:
    """Bytes that other programs leave, or the container's limit if that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):  # Linux alone has this file
        found = _AVAILABLE.search(pathlib.Path("/proc/meminfo").read_text())
        limits += [] if found is None else [int(found[1]) * 2**10]
    for name in _CGROUPS:
        try:
            limits.append(int(pathlib.Path(name).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)


@contextlib.contextmanager
def explained(
    explain: Callable[[str], str], kind: type[InputError] | type[RunError]
) -> Iterator[None]:
    """Turn "out of memory" of any backend into one line.

    ``explain`` makes the line from the message of the backend.

    Raises:
        InputError, RunError: memory ran out; the one that ``kind`` names.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error)
        exhausted = "RESOURCE_EXHAUSTED" in text or "Out of memory" in text
        if not (exhausted or isinstance(error, MemoryError)) or "vmem" in text:
            raise
        raise kind(explain(text)) from error


def _bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(
        int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _gib(count: float) -> str:
    """Write bytes in MiB or GiB."""
    if count < 0.1 * _GIB:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / _GIB:.1f} GiB"
