"""From a compiled step to larger batches and slices: estimates, no compiles."""

import dataclasses
import math

from unet_jax.planning.chips import Chip, Slice
from unet_jax.planning.cost import StepCost

HOP_SECONDS = 1e-6
"""Time to the neighbouring chip, which an exchange takes for each chip on its way."""


def largest_batch(
    points: tuple[tuple[int, float], tuple[int, float]],
    *,
    hbm_bytes: float,
    multiple: int,
) -> int:
    """Continue the memory of two batches along a line to the memory of the chip.

    Args:
        points: crops a chip and the bytes they take, of the smaller batch first.
        hbm_bytes: of the chip.
        multiple: of which a chip's share is one.

    Returns:
        Crops a chip; 0 if not even the first ones fit.

    Example:
        >>> largest_batch(((1, 3e9), (3, 7e9)), hbm_bytes=16e9, multiple=2)
        6
    """
    (few, low), (many, high) = points
    each = max((high - low) / (many - few), 1.0)
    fitting = math.floor(many + (hbm_bytes - high) / each)
    if low <= hbm_bytes:  # what was compiled and fits needs no line
        fitting = max(fitting, many if high <= hbm_bytes else few)
    if high > hbm_bytes:
        fitting = min(fitting, many - 1)
    return max(0, fitting // multiple * multiple)


def second_batch(
    rows: int, memory_bytes: float, *, fixed_bytes: float, chip: Chip, multiple: int
) -> int | None:
    """Choose the batch whose compile tells how memory grows.

    Args:
        rows: crops a chip that were compiled.
        memory_bytes: that they need.
        fixed_bytes: of it, what any batch needs (the state).
        chip: the kind.
        multiple: of which a chip's share is one.

    Returns:
        The batch that fills the chip if all but the state grows with it, which is
        seldom too much; one more or one less than ``rows`` where that is nearer. None
        where another compile would tell nothing: not even the smallest batch fits, or
        one that fits is followed by one that is far too large.
    """
    # A small step lives in the memory on the chip, and shows none of its own in HBM.
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
    """Estimate what each chip sends to sum arrays over the slice.

    A ring all-reduce sends, and receives, ``2 (n - 1) / n`` of an array on each of n
    chips.

    Args:
        cost: of the step.
        target: the slice.

    Returns:
        Bytes a step.
    """
    return 2 * (target.chips - 1) / target.chips * cost.program.all_reduce_bytes


def proportional_memory(
    rows: int, memory_bytes: float, *, fixed_bytes: float, wanted: int
) -> float:
    """Estimate the memory of a batch from that of another one.

    Args:
        rows: crops a chip that were compiled.
        memory_bytes: that they need.
        fixed_bytes: of it, what any batch needs (the state).
        wanted: crops a chip that were not.

    Returns:
        Bytes, if all but the state grows with the batch.
    """
    return fixed_bytes + (memory_bytes - fixed_bytes) * wanted / rows


def all_reduce_seconds(cost: StepCost, target: Slice) -> float:
    """Estimate the time of the exchanges of a step, none of it hidden behind work.

    To what is sent comes the latency of the way there and back along each axis, for
    each exchange.

    Args:
        cost: of the step.
        target: the slice.

    Returns:
        Seconds.
    """
    hops = 2 * sum(size - 1 for size in target.shape)
    return (
        sent_bytes(cost, target) / target.chip.ring_bytes_per_second
        + cost.program.all_reduces * hops * HOP_SECONDS
    )


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a step is, by the compiler's estimates.

    Attributes:
        compute_seconds: of a chip's own work.
        exchange_seconds: of the sums over the chips.
        crops_per_second: of the whole slice.
        utilisation: the step's useful operations as a share of the peak.
    """

    compute_seconds: float
    exchange_seconds: float
    crops_per_second: float
    utilisation: float

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.compute_seconds + self.exchange_seconds


def step_speed(cost: StepCost, target: Slice, *, rows: int) -> Speed:
    """Turn cycles into time.

    Args:
        cost: of the step that was compiled.
        target: the slice to run on: the compiled one, or another of the same chips, on
            which each chip has as much to do.
        rows: crops a chip.

    Returns:
        Its speed.
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
