"""Decides for how much device memory patch, network and batch are chosen."""

import dataclasses
from typing import Any

import jax

from unet_jax.hosts import agree
from unet_jax.training.memory import device_limit

CPU_GIB = 0.25
"""GiB to plan for on a CPU, where time is the limit rather than memory."""

CLASSES_GIB = (8.0, 16.0, 32.0, 80.0)
"""Sizes that the memory of an accelerator is rounded down to.

Small differences between devices must not give another network.
"""

USABLE_FRACTION = 2 / 3
"""Fraction of its nominal memory that an accelerator gives to a program at least.

JAX takes three quarters of a GPU by default, and drivers keep some of the rest.
"""

_ACTIVATIONS = 1 / 3
"""Fraction of an accelerator's memory that activations may fill by our own count.

A compiled step needs up to 1.7 times the bytes that `suggest` counts, and
`USABLE_FRACTION` of the memory is certain.
"""


@dataclasses.dataclass(frozen=True)
class MemoryChoice:
    """The memory that patch, network and batch are chosen for.

    Attributes:
        gib: value of ``train.memory_gib``.
        source: where the value comes from, in words.
        recorded: whether the workdir has the value from an earlier start.
    """

    gib: float
    source: str
    recorded: bool = False

    def __str__(self) -> str:
        """Return the line that the start of a run prints."""
        recorded = "recorded in the workdir: " if self.recorded else ""
        return f"train.memory_gib={self.gib:g} ({recorded}{self.source})"


def activation_bytes(gib: float, *, accelerated: bool) -> float:
    """Return the bytes for activations that a value of ``train.memory_gib`` means."""
    return gib * 2**30 * (_ACTIVATIONS if accelerated else 1)


def class_of(*, kind: str, usable_bytes: float) -> MemoryChoice:
    """Choose the class of a device.

    Args:
        kind: platform or name of the device, such as "cpu", "gpu" or "v5e".
        usable_bytes: bytes that programs may use; 0 if unknown.

    Returns:
        The largest class of which the device gives `USABLE_FRACTION`. A CPU, and an
        accelerator that is smaller than all classes or unknown, get `CPU_GIB`.

    >>> print(class_of(kind="gpu", usable_bytes=59.4 * 2**30))
    train.memory_gib=80 (class of this gpu, which gives 59.4 GiB to programs)
    """
    if kind == "cpu":
        return MemoryChoice(CPU_GIB, "default of a CPU")
    if not usable_bytes:
        return MemoryChoice(CPU_GIB, f"the memory of this {kind} is unknown")
    usable = usable_bytes / 2**30
    gives = f"which gives {usable:.1f} GiB to programs"
    fitting = [size for size in CLASSES_GIB if usable >= USABLE_FRACTION * size]
    if not fitting:
        return MemoryChoice(CPU_GIB, f"below every class of this {kind}, {gives}")
    return MemoryChoice(fitting[-1], f"class of this {kind}, {gives}")


def class_of_devices() -> MemoryChoice:
    """Choose the class of the smallest device of all processes, the same in each."""
    limits = [device_limit(device) or 0 for device in jax.local_devices()]
    smallest = min(agree.gather_items([min(limits)]))
    return class_of(kind=jax.default_backend(), usable_bytes=smallest)


def choose_memory(
    config: Any, *, recorded: dict[str, Any] | None = None
) -> MemoryChoice | None:
    """Choose ``train.memory_gib``: from the config, the workdir, or a class.

    Args:
        config: config of the run, with None where it leaves the value open.
        recorded: record of the run to resume (`read_record`), made on any machine.

    Returns:
        The value and its source; None where nothing is chosen from the data.
    """
    given = config.train.memory_gib
    if recorded is not None:
        before = recorded["config"].get("train", {}).get("memory_gib")
        if before is not None and given in (None, before):
            source = recorded["memory_source"] or "set by an earlier version"
            return MemoryChoice(before, source, recorded=True)
    if given is not None:
        return MemoryChoice(given, "set by the config")
    return class_of_devices() if config.data.source == "folder" else None
