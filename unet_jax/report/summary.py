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
) -> str:
    """Write the devices, the model, the cost of a step and the splits of a run.

    Args:
        model: name of the model.
        parameters: number of trained values.
        step_cost: ``flops`` and ``memory_bytes`` of a step on one device, where known.
        splits: splits by name, each with the number of ``cases``, the number of cases
            ``counted`` and their class ``fractions``.
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
    lines += [f"{name:<12}{_split(split)}" for name, split in splits.items()]
    return "\n".join(lines)


def _split(split: Any) -> str:
    """Write the cases of a split and the fraction of pixels of each class."""
    noun = "case" if split.cases == 1 else "cases"
    if not split.fractions:
        return f"{split.cases} {noun}: images alone, no label is read"
    fractions = ", ".join(
        f"{name} {100 * one:.1f} %" for name, one in split.fractions.items()
    )
    part = "" if split.counted == split.cases else f" (in {split.counted} of them)"
    return f"{split.cases} {noun}: {fractions}{part}"
