"""Writes a plan as text: the cost of a step, the largest batch, and other slices."""

from unet_jax.planning.chips import Slice, growing_slices
from unet_jax.planning.cost import Compiled
from unet_jax.planning.quantities import (
    aligned_table,
    bytes_text,
    count_text,
    seconds_text,
)
from unet_jax.planning.scaling import (
    HOP_SECONDS,
    largest_batch,
    proportional_memory,
    sent_bytes,
    step_speed,
)


def plan_text(
    compiled: list[Compiled], target: Slice, *, multiple: int, fixed_bytes: float
) -> str:
    """Write the plan of the batches that were compiled.

    Args:
        compiled: one or two batches, the batch of the config first.
        target: the slice.
        multiple: number that the crops on a chip must be a multiple of.
        fixed_bytes: bytes of the state.

    Returns: Lines of text: the cost of a step, the largest batch, and other slices.
    """
    fitting = [batch for batch in compiled if batch.fits(target)]
    parts = [
        _step_table(compiled, target),
        _largest_text(compiled, target, multiple, fixed_bytes),
    ]
    if fitting:
        parts += [_growth_table(batch, target) for batch in fitting]
        parts.append(_growth_note(target))
    return "\n" + "\n\n".join(parts)


def _step_table(compiled: list[Compiled], target: Slice) -> str:
    """Table of costs, with one column for each batch."""
    columns = [
        [
            "a step",
            "crops a chip",
            "fits",
            "HBM a chip",
            "FLOPs a chip",
            "HBM read and written",
            "cycles (compiler)",
            "time of these",
            "all-reduced",
            "in exchanges",
            "time of these (estimate)",
            "step (estimate)",
            "crops a second",
            "utilisation",
        ]
    ]
    known = any(batch.cost is not None for batch in compiled)
    if not known:
        columns[0] = columns[0][:4]
    for batch in compiled:
        cells = [
            f"batch {batch.rows * target.chips:,}",
            f"{batch.rows}",
            "yes" if batch.fits(target) else "no",
            bytes_text(batch.memory_bytes),
        ]
        columns.append([*cells, *(_cost_cells(batch, target) if known else ())])
    return aligned_table(list(zip(*columns, strict=True)))


def _cost_cells(batch: Compiled, target: Slice) -> list[str]:
    """Cells of the cost of a step; dashes for a step that the compiler refused."""
    cost = batch.cost
    if cost is None:
        return ["-"] * 10
    speed = step_speed(cost, target, rows=batch.rows)
    return [
        count_text(cost.flops, "FLOP"),
        bytes_text(cost.program.hbm_bytes),
        count_text(cost.program.cycles),
        seconds_text(speed.compute_seconds),
        bytes_text(cost.program.all_reduce_bytes),
        f"{cost.program.all_reduces}",
        seconds_text(speed.exchange_seconds),
        seconds_text(speed.seconds),
        count_text(speed.crops_per_second),
        f"{100 * speed.utilisation:.1f} %",
    ]


def _largest_text(
    compiled: list[Compiled], target: Slice, multiple: int, fixed_bytes: float
) -> str:
    """Write which batch is the largest that fits, and how that is known."""
    limit = target.chip.hbm_bytes
    first, *others = sorted(compiled, key=lambda batch: batch.rows)
    if not others and first.fits(target):
        more = first.rows + multiple
        needed = proportional_memory(
            first.rows, first.memory_bytes, fixed_bytes=fixed_bytes, wanted=more
        )
        return (
            f"largest batch: {first.rows * target.chips:,} ({first.rows:,} a chip), "
            f"compiled; {more} a chip would need {bytes_text(needed)} of "
            f"{bytes_text(limit)} (estimate)"
        )
    if not others:
        return (
            f"largest batch: none; {first.rows} a chip need "
            f"{bytes_text(first.memory_bytes)} of {bytes_text(limit)}.\nLower "
            "train.patch_size, or take a smaller network or a chip with more memory."
        )
    (last,) = others
    points = (first.rows, first.memory_bytes), (last.rows, last.memory_bytes)
    rows = largest_batch(points, hbm_bytes=limit, multiple=multiple)
    each = (last.memory_bytes - first.memory_bytes) / (last.rows - first.rows)
    known = "derived"
    if any(batch.rows == rows and batch.fits(target) for batch in compiled):
        known = "compiled"
    if rows == 0:
        return f"largest batch: none fits; {bytes_text(each)} a crop, derived"
    return (
        f"largest batch: {rows * target.chips:,} ({rows:,} a chip), {known}; "
        f"a crop takes {bytes_text(each)} of {bytes_text(limit)}"
    )


def _growth_table(batch: Compiled, target: Slice) -> str:
    """Table of estimates for other slices with the same batch on each chip."""
    cost = batch.cost
    assert cost is not None
    listed = {one.chips: one for one in growing_slices(target.chip)} | {
        target.chips: target
    }
    rows = [
        [
            "slice",
            "chips",
            "batch",
            "sent a chip",
            "exchanges",
            "step",
            "crops/s",
            "efficiency",
            "",
        ]
    ]
    for chips, one in sorted(listed.items()):
        speed = step_speed(cost, one, rows=batch.rows)
        rows.append(
            [
                one.name,
                f"{chips}",
                f"{batch.rows * chips:,}",
                bytes_text(sent_bytes(cost, one)),
                seconds_text(speed.exchange_seconds),
                seconds_text(speed.seconds),
                count_text(speed.crops_per_second),
                f"{100 * speed.compute_seconds / speed.seconds:.1f} %",
                "compiled" if one == target else "estimate",
            ]
        )
    return aligned_table(rows)


def _growth_note(target: Slice) -> str:
    """Write the assumptions of the estimates."""
    link = count_text(target.chip.ring_bytes_per_second, "B/s")
    return (
        "Estimate: the batch of a chip takes the same cycles on any slice. Exchanges "
        f"are ring\nall-reduces at {link} and {seconds_text(HOP_SECONDS)} a hop, not "
        "overlapped with computation; efficiency is\nthe fraction of a step that is "
        "computation."
    )
