"""Skips the work that was not drawn, on platforms where that saves time.

A TPU or GPU works on all examples of a batch at once and selects afterwards. A CPU
works on one example after the other, and saves the work that was not drawn. The two
agree up to rounding; what was not drawn is the same to the bit in both.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

Arrays = TypeVar("Arrays")


def where_drawn(
    applied: Bool[Array, ""],
    change: Callable[..., Arrays],
    arrays: Arrays,
    *numbers: Any,
) -> Arrays:
    """Change arrays, or leave them as they are.

    Under ``vmap`` a CPU loops over the examples and changes those that are drawn; other
    platforms change all and select. The choice is made when the program is lowered.

    Args:
        applied: whether the arrays are changed.
        change: function of ``arrays`` and the numbers that returns arrays of the same
            shapes and dtypes. It must not close over traced values.
        arrays: one array, or a tuple.
        *numbers: further arguments of ``change``: arrays, tuples of them, keys, None.
    """

    @jax.custom_batching.custom_vmap
    def one(applied: Array, arrays: Arrays, numbers: Any) -> Arrays:
        return lax.platform_dependent(
            applied, arrays, numbers, cpu=branched, default=selected
        )

    def branched(applied: Array, arrays: Arrays, numbers: Any) -> Arrays:
        return lax.cond(applied, lambda: change(arrays, *numbers), lambda: arrays)

    def selected(applied: Array, arrays: Arrays, numbers: Any) -> Arrays:
        changed = change(arrays, *numbers)
        # Without a barrier one step is fused into the next, which computes it again for
        # each of its reductions.
        return lax.optimization_barrier(
            jax.tree.map(lambda new, old: jnp.where(applied, new, old), changed, arrays)
        )

    def in_turn(applied: Array, arrays: Arrays, numbers: Any) -> Arrays:
        return _in_turn(applied, change, arrays, numbers)

    @one.def_vmap
    def _(size: int, batched: Sequence[Any], *operands: Any) -> tuple[Arrays, Any]:
        operands = jax.tree.map(
            lambda is_batched, operand: (
                operand
                if is_batched
                else jnp.broadcast_to(operand, (size, *operand.shape))
            ),
            tuple(batched),
            operands,
        )
        changed = lax.platform_dependent(
            *operands, cpu=in_turn, default=jax.vmap(selected)
        )
        return changed, jax.tree.map(lambda _: True, changed)

    return one(applied, arrays, numbers)


def kept(arrays: Arrays) -> Arrays:
    """Make a CPU compute arrays once, and not once for each of their readers."""
    return lax.platform_dependent(
        arrays, cpu=lax.optimization_barrier, default=lambda same: same
    )


def _in_turn(
    applied: Bool[Array, " batch"],
    change: Callable[..., Arrays],
    arrays: Arrays,
    numbers: Any,
) -> Arrays:
    """Change the drawn examples one after the other, in place."""

    def visit(index: Array, arrays: Arrays) -> Arrays:
        def changed(turn: Array, arrays: Arrays) -> Arrays:
            # What depends on the index alone would be computed before the loop, for
            # every example.
            here, _ = lax.optimization_barrier((index, turn))
            one, its_numbers = jax.tree.map(lambda all_: all_[here], (arrays, numbers))
            # Without a barrier XLA writes into the batch from within the last fusion,
            # and that runs on one core.
            one = lax.optimization_barrier(change(one, *its_numbers))
            return jax.tree.map(
                lambda all_, row: lax.dynamic_update_index_in_dim(all_, row, here, 0),
                arrays,
                one,
            )

        # A loop of one turn or none: a conditional would copy the batch.
        return lax.fori_loop(0, applied[index].astype(jnp.int32), changed, arrays)

    return lax.fori_loop(0, len(applied), visit, arrays)
