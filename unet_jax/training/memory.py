"""Whether a step fits into the memory of its device, and what to lower if it does not.

What a step needs is a fixed part (parameters, optimiser, gradients), its batch, and
activations. These grow with the crops that go through the network at once, which
``train.batch_size`` and ``train.accumulation`` set.
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

from unet_jax.errors import InputError, RunError
from unet_jax.runtime.compilation import compile_with_options, step_cost

_GIB = 2**30
_MARGIN = 0.95
"""Share of the memory that a proposal may fill: what it would need is an estimate."""

_SHRUNK = 0.75
"""Share of the need to propose where the step should fit, and yet did not."""

_TPU_LINE = re.compile(r"Used ([\d.]+)([GMK]) of ([\d.]+)([GMK]) hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_CGROUPS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step needs on one device.

    Attributes:
        state: parameters, their moving average, statistics and the optimiser's state.
        gradients: of the parameters; accumulation holds them twice.
        batch: the images and labels of one device.
        batch_size: examples of the global batch.
        accumulation: parts that a device cuts its share of it into.
        devices: that share a batch, over all processes.
        total: all together by the compiler; None before it has said so.
        limit: what the device has; None where nobody knows.
        told: the device itself gave the limit, and nothing else uses the memory.
    """

    state: int
    gradients: int
    batch: int
    batch_size: int
    accumulation: int
    devices: int
    total: float | None = None
    limit: int | None = None
    told: bool = False

    def needs(self, *, batch_size: int, accumulation: int) -> float:
        """Estimate what another batch, or another number of parts, would need.

        Args:
            batch_size: of the global batch.
            accumulation: parts.

        Returns:
            Bytes on one device; exact for the step itself.
        """
        assert self.total is not None, "the compiler has not said what the step needs"
        scale = batch_size / self.batch_size
        activations = max(self.total - self._fixed(self.accumulation) - self.batch, 0)
        return (
            self._fixed(accumulation)
            + self.batch * scale
            + activations * scale * self.accumulation / accumulation
        )

    def _fixed(self, accumulation: int) -> int:
        """What the batch has no part in."""
        return self.state + self.gradients * (2 if accumulation > 1 else 1)

    def advice(self) -> str:
        """Say what to lower and by how much, as far as figures are known."""
        if self.total is None or self.limit is None:
            return (
                "lower train.batch_size or train.patch_size, or raise "
                "train.accumulation"
            )
        room = _MARGIN * self.limit
        if self.total <= self.limit:
            room = _SHRUNK * self.total
        ways = [way for way in (self._fewer(room), self._parts(room)) if way]
        if ways:
            return " or ".join(ways)
        fixed = self._fixed(self.accumulation)
        if fixed >= room:
            return (
                f"parameters, optimiser and gradients alone need {_gib(fixed)}: lower "
                "model.features, or model.max_features"
            )
        least = self.needs(
            batch_size=self.devices * self.accumulation, accumulation=self.accumulation
        )
        share = (room - fixed) / (least - fixed)
        return (
            f"a single crop on each device would need about {_gib(least)}: lower "
            f"train.patch_size to {max(int(100 * share), 1)} % of its pixels, with "
            f"train.batch_size={self.devices * self.accumulation}"
        )

    def _fewer(self, room: float) -> str:
        """Propose the largest batch that fits."""
        unit = self.devices * self.accumulation
        for size in range(self.batch_size - unit, 0, -unit):
            needed = self.needs(batch_size=size, accumulation=self.accumulation)
            if needed <= room:
                return (
                    f"train.batch_size={self.batch_size} -> {size} would need about "
                    f"{_gib(needed)}"
                )
        return ""

    def _parts(self, room: float) -> str:
        """Propose the fewest parts that fit: the same updates, a little slower."""
        rows = self.batch_size // self.devices
        for parts in range(self.accumulation + 1, rows + 1):
            needed = self.needs(batch_size=self.batch_size, accumulation=parts)
            if rows % parts == 0 and needed <= room:
                return (
                    f"train.accumulation={self.accumulation} -> {parts} about "
                    f"{_gib(needed)}"
                )
        return ""

    def explain(self, error: str = "") -> str:
        """Say what the step needs, what the device has, and what to lower.

        Args:
            error: of the backend; a TPU's compiler says in it what it counted.

        Returns:
            Part of a message.
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
        whole = _gib(self.limit)
        line = f"the step needs {_gib(self.total)} of the {whole} of this device"
        if self.total <= self.limit:
            line += ", part of which is taken"
        return f"{line}: {self.advice()}"

    def check(self) -> None:
        """Refuse a step that the device cannot hold.

        Raises:
            InputError: it needs more than the device says it has.
        """
        if self.told and self.limit and self.total and self.total > self.limit:
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
    """Count what is known of a step before it is compiled.

    Args:
        state: a `TrainState`.
        batch: arrays or shapes of this process, ``(local devices, rows, ...)``.
        batch_size: of the global batch.
        accumulation: parts that a device cuts its share into.
        devices: of all processes.
        device: one of this process.

    Returns:
        The memory, without the total.
    """
    limit, told = device_limit(device)
    shares = [(leaf.shape[0], leaf) for leaf in jax.tree.leaves(batch)]
    return StepMemory(
        state=_bytes(state),
        gradients=_bytes(state.params),
        batch=sum(_bytes(leaf) // count for count, leaf in shares),
        batch_size=batch_size,
        accumulation=accumulation,
        devices=devices,
        limit=limit,
        told=told,
    )


def compile_step(
    step: Any,
    state: Any,
    batch: Any,
    memory: StepMemory,
    *,
    options: dict[str, Any] | None = None,
) -> tuple[Any, StepMemory]:
    """Compile the step, and refuse one that does not fit before it is run.

    Args:
        step: the mapped step.
        state: its first argument.
        batch: shapes of its second.
        memory: of `step_memory`.
        options: of the compiler.

    Returns:
        The compiled step, and the memory with what the compiler says of it.

    Raises:
        InputError: it does not fit.
    """
    with explained(memory.explain, InputError):
        compiled = compile_with_options(step.lower(state, batch), options or {})
    memory = dataclasses.replace(memory, total=step_cost(compiled).get("memory_bytes"))
    memory.check()
    return compiled, memory


def device_limit(device: Any) -> tuple[int | None, bool]:
    """Return the memory of a device.

    Args:
        device: of this process.

    Returns:
        Bytes, or None where nobody knows; and whether the device itself said so. CPU
        devices share the machine's, or what its container may use.
    """
    try:
        stats = device.memory_stats() or {}
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        stats = {}
    if stats.get("bytes_limit"):
        return int(stats["bytes_limit"]), True
    if device.platform != "cpu":
        return None, False
    return _machine_bytes() // jax.local_device_count(), False


def _machine_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
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

    Args:
        explain: makes the line of the backend's own.
        kind: of the error that carries it.

    Raises:
        InputError: memory ran out, if that is the kind.
        RunError: likewise.
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
    """Bytes of all arrays of a tree."""
    return sum(
        int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _gib(count: float) -> str:
    """Write bytes as a person says them."""
    if count < 0.1 * _GIB:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / _GIB:.1f} GiB"
