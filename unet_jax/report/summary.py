"""Writes the summary of a run that is printed before its first step."""

from collections.abc import Mapping
from typing import Any

import jax


def run_summary(
    *,
    model: str,
    parameters: int,
    step_cost: Mapping[str, float],
    splits: Mapping[str, Any],
    extents: Mapping[str, Any],
) -> str:
    """Write the devices, the model, the cost of a step and the splits of a run.

    Args:
        model: name of the model.
        parameters: number of trained values.
        step_cost: ``flops`` and ``memory_bytes`` of a step on one device, where known.
        splits: splits by name, each with the number of ``cases``, the number of cases
            ``counted`` and their class ``fractions``.
        extents: number of ``groups`` and ``images`` of splits by name, where known.
    """
    devices = jax.devices()
    lines = [
        f"devices     {len(devices)} x {devices[0].device_kind} "
        f"({devices[0].platform}), jax {jax.__version__}",
        f"model       {model}, {parameters:,} parameters",
    ]
    costs = []
    if "flops" in step_cost:
        costs.append(f"{step_cost['flops'] / 1e9:.1f} GFLOP")
    if "memory_bytes" in step_cost:
        costs.append(f"{step_cost['memory_bytes'] / 2**20:.0f} MiB")
    if costs:
        lines.append(f"step        {', '.join(costs)} on each device")
    lines += [
        f"{name:<12}{_split(split, extents.get(name))}"
        for name, split in splits.items()
    ]
    lines += [line for item in splits.items() if (line := _absent(*item))]
    return "\n".join(lines)


def _split(split: Any, extent: Any) -> str:
    """Write the extent of a split and the fraction of pixels of each class."""
    found = _counted(split.cases, "case")
    if extent is not None:
        found += f" of {_counted(extent.groups, 'group')}"
        found += f", {_counted(extent.images, 'image')}"
    if not split.fractions:
        return f"{found}: images alone, no label is read"
    fractions = ", ".join(
        f"{name} {100 * one:.1f} %" for name, one in split.fractions.items()
    )
    part = "" if split.counted == split.cases else f" (in {split.counted} of them)"
    return f"{found}: {fractions}{part}"


def _counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _absent(name: str, split: Any) -> str:
    """Write which classes no case of a split has; "" if some case has each."""
    absent = [one for one, fraction in split.fractions.items() if not fraction]
    if not absent or split.counted < split.cases:
        return ""
    return (
        f"WARNING: no case of {name} has {', '.join(absent)}, which has no score there"
    )
