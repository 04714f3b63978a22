"""Estimates larger batches and other slices from the cost of a compiled step."""

import dataclasses
import math

from unet_jax.planning.chips import Chip, Slice
from unet_jax.planning.cost import StepCost

HOP_SECONDS = 1e-6
"""Latency of one hop to a neighbouring chip."""


def largest_batch(
    points: tuple[tuple[int, float], tuple[int, float]],
    *,
    hbm_bytes: float,
    multiple: int,
) -> int:
    """Extrapolate the memory of two batches linearly to the memory of the chip.

    Args:
        points: crops on a chip and bytes that they need, for the smaller batch first.
        hbm_bytes: HBM of the chip.
        multiple: number that the crops on a chip must be a multiple of.

    Returns: Crops on a chip; 0 if the smallest batch does not fit.

    Example:
        >>> largest_batch(((1, 3e9), (3, 7e9)), hbm_bytes=16e9, multiple=2)
        6
    """
    (few, low), (many, high) = points
    each = max((high - low) / (many - few), 1.0)
    fitting = math.floor(many + (hbm_bytes - high) / each)
    if low <= hbm_bytes:  # a batch that was compiled and fits is known to fit
        fitting = max(fitting, many if high <= hbm_bytes else few)
    if high > hbm_bytes:
        fitting = min(fitting, many - 1)
    return max(0, fitting // multiple * multiple)


def second_batch(
    rows: int, memory_bytes: float, *, fixed_bytes: float, chip: Chip, multiple: int
) -> int | None:
    """Choose a second batch to compile, which shows how memory grows.

    Args:
        rows: crops on a chip in the batch that was compiled.
        memory_bytes: memory that this batch needs.
        fixed_bytes: memory that does not depend on the batch (the state).
        chip: kind of the chips.
        multiple: number that the crops on a chip must be a multiple of.

    Returns: Crops on a chip that nearly fill it, if all memory but the state grows with
        the batch; one ``multiple`` more or less than ``rows`` where that is closer.
        None where another compilation would tell nothing: the smallest batch does not
        fit, or the next larger one is far too large.
    """
    # The temporary arrays of a small step stay on the chip and need no HBM.
    growing = max(memory_bytes - fixed_bytes, 0) + chip.vmem_bytes
    filling = int(rows * (chip.hbm_bytes - fixed_bytes) / growing)
    filling = filling // multiple * multiple
    if memory_bytes <= chip.hbm_bytes:
        more = rows + multiple
        next_bytes = proportional_memory(
            rows, memory_bytes, fixed_bytes=fixed_bytes, wanted=more
        )
        return None if next_bytes > 1.25 * chip.hbm_bytes else max(filling, more)
    if rows <= multiple:
        return None
    return min(max(filling, multiple), rows - multiple)


def sent_bytes(cost: StepCost, target: Slice) -> float:
    """Estimate the bytes that each chip sends in the all-reduces of a step.

    In a ring all-reduce each of n chips sends and receives ``2 (n - 1) / n`` of an
    array.
    """
    return 2 * (target.chips - 1) / target.chips * cost.program.all_reduce_bytes


def proportional_memory(
    rows: int, memory_bytes: float, *, fixed_bytes: float, wanted: int
) -> float:
    """Estimate the memory of a batch from the memory of another batch.

    Args:
        rows: crops on a chip in the batch that was compiled.
        memory_bytes: memory that this batch needs.
        fixed_bytes: memory that does not depend on the batch (the state).
        wanted: crops on a chip in the other batch.

    Returns: Bytes of the other batch, if all memory but the state grows with the batch.
    """
    return fixed_bytes + (memory_bytes - fixed_bytes) * wanted / rows


def all_reduce_seconds(cost: StepCost, target: Slice) -> float:
    """Estimate the time of the exchanges of a step, without overlap with computation.

    Each exchange adds the latency of the hops along each axis and back.
    """
    hops = 2 * sum(size - 1 for size in target.shape)
    return (
        sent_bytes(cost, target) / target.chip.ring_bytes_per_second
        + cost.program.all_reduces * hops * HOP_SECONDS
    )


@dataclasses.dataclass(frozen=True)
class Speed:
    """Estimated speed of a step.

    Attributes:
        compute_seconds: time of a chip's own computation.
        exchange_seconds: time of the all-reduces over the chips.
        crops_per_second: crops of the whole slice in a second.
        utilisation: useful operations as a fraction of the peak.
    """

    compute_seconds: float
    exchange_seconds: float
    crops_per_second: float
    utilisation: float

    @property
    def seconds(self) -> float:
        """Time of the whole step."""
        return self.compute_seconds + self.exchange_seconds


def step_speed(cost: StepCost, target: Slice, *, rows: int) -> Speed:
    """Estimate the speed of a step from its cycles and exchanges.

    Args:
        cost: cost of the step that was compiled.
        target: slice to run on: the compiled one, or another slice of the same chips
            with the same batch on each chip.
        rows: crops on a chip.

    Returns: Speed of the step on that slice.
    """
    chip = target.chip
    compute = cost.program.cycles / chip.cycles_per_second
    exchange = all_reduce_seconds(cost, target)
    total = compute + exchange
    return Speed(
        compute_seconds=compute,
        exchange_seconds=exchange,
        crops_per_second=rows * target.chips / total,
        utilisation=cost.flops / (total * chip.flops_per_second),
    )
