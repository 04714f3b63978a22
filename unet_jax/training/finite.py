"""Numbers of a step that are not finite, and whose they are: found on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

KINDS = ("image", "augmented image", "network's output", "loss")
"""What of an example may not be finite, in the order in which one comes of another."""


def group_names(params: Any) -> tuple[str, ...]:
    """Name the groups of parameters whose gradients are looked at.

    A group is a module as deep as the shallowest one that has parameters of its own: a
    stage or the head of a U-Net, and a stage of either half of a W-Net.

    Args:
        params: of a network.

    Returns:
        Names such as ``encoder_0``, or ``encoder/encoder_0`` of a W-Net.

    Example:
        >>> group_names({"encoder_0": {"c": {"kernel": 0}}, "head": {"kernel": 0}})
        ('encoder_0', 'head')
    """
    return tuple(_groups(params))


def _groups(tree: Any) -> dict[str, list[Any]]:
    """Collect the leaves of each group."""
    leaves = [
        ([str(key.key) for key in path], leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    depth = max(1, min(len(path) for path, _ in leaves) - 1)
    groups: dict[str, list[Any]] = {}
    for path, leaf in leaves:
        groups.setdefault("/".join(path[:depth]), []).append(leaf)
    return groups


def groups_not_finite(gradients: Any, batch_stats: Any) -> Array:
    """Say which groups are not finite, by their norms.

    A norm that overflows counts too: a clipped gradient, and Adam's second moment,
    would be wrong.

    Args:
        gradients: of the parameters.
        batch_stats: what batch norm would keep after this step; empty for other norms.

    Returns:
        ``(groups + 1,)`` int32, 1 where one is not, in the order of `group_names`; the
        last one is that of the statistics.
    """
    # The norms of the parts are those that the norm of the whole is made of, so that
    # the compiler computes each once.
    norms = [optax.tree.norm(leaves) for leaves in _groups(gradients).values()]
    found = [~jnp.isfinite(norm) for norm in norms]
    wrong = [jnp.any(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(batch_stats)]
    found.append(jnp.any(jnp.stack(wrong)) if wrong else jnp.bool_(False))
    return jnp.stack(found).astype(jnp.int32)


def finite_rows(array: Array) -> Array:
    """Say which rows have finite values only.

    Args:
        array: ``(batch, ...)``.

    Returns:
        ``(batch,)`` bool.
    """
    return jnp.all(jnp.isfinite(array), axis=range(1, array.ndim))


def code_of(found: dict[str, Array]) -> Array:
    """Put what is not finite of each example into one number.

    Args:
        found: by name of ``KINDS``, ``(batch,)`` bool, True where it is finite.

    Returns:
        ``(batch,)`` int32, a bit for each kind that is not; 0 for a sound example.
    """
    bits = [
        (~finite).astype(jnp.int32) << KINDS.index(kind)
        for kind, finite in found.items()
    ]
    return jnp.sum(jnp.stack(bits), axis=0)


def kind_of(code: int) -> str:
    """Name what went wrong first with an example.

    Args:
        code: of the example, not 0.

    Returns:
        One of ``KINDS``: the others come of it.

    Example:
        >>> kind_of(0b1110)
        'augmented image'
    """
    return next(kind for bit, kind in enumerate(KINDS) if code >> bit & 1)


def problem_report(
    metrics: dict[str, Array],
    *,
    gradients: Any,
    batch_stats: Any,
    example_index: Array,
    codes: Array,
    axis_name: str | None,
) -> tuple[Array, dict[str, Array]]:
    """Say whether a step may move the state, and if not, what is to blame.

    Args:
        metrics: scalars of the global batch.
        gradients: of the global batch.
        batch_stats: what batch norm would keep.
        example_index: ``(batch,)``, of this device.
        codes: of the same examples, from `code_of`.
        axis_name: the mapped axis; None for one device.

    Returns:
        Whether all is finite, and arrays that are equal on all devices: ``masked``, 1
        if it is not; ``groups`` of `groups_not_finite`; ``examples`` ``(global batch,
        2)``, index and code of each example.
    """
    groups = groups_not_finite(gradients, batch_stats)
    sound = jnp.isfinite(jnp.stack(list(metrics.values())))
    finite = jnp.all(sound) & jnp.all(groups == 0)
    examples = jnp.stack([example_index, codes], axis=-1)
    if axis_name is not None:
        # (devices, rows, 2) -> in the order in which the rows were dealt
        examples = jax.lax.all_gather(examples, axis_name)
        examples = jnp.swapaxes(examples, 0, 1).reshape(-1, 2)
    masked = (~finite).astype(jnp.int32)
    return finite, {"masked": masked, "groups": groups, "examples": examples}
