"""Trains parts of a network at other learning rates, or leaves them as they are."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unet_jax.errors import InputError


def with_stage_rates(
    optimizer: optax.GradientTransformation,
    *,
    freeze: Sequence[str] = (),
    factors: Sequence[tuple[str, float]] = (),
) -> optax.GradientTransformation:
    """Multiply the updates of parts of a network.

    A part is a name in the tree of parameters, such as ``"encoder_1"``, or the start of
    several, such as ``"encoder"``, which has the stem too. Gradients of frozen parts
    are zero before they are clipped, and their parameters keep every bit.

    Args:
        optimizer: transformation for a learning rate of 1.
        freeze: parts that do not learn.
        factors: parts and factors of their learning rate; a later pair goes first.

    Returns:
        The optimizer itself where there are no parts.

    Raises:
        InputError: when the state is made, for a part that the network does not have.
    """
    pairs = [*factors, *((name, 0.0) for name in freeze)]
    if not pairs:
        return optimizer

    def init(params: Any) -> Any:
        _check(params, [name for name, _ in pairs])
        return optimizer.init(params)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scales = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _factor(_name(path), pairs), gradients
        )
        gradients = jax.tree.map(
            lambda leaf, scale: leaf if scale else jnp.zeros_like(leaf),
            gradients,
            scales,
        )
        updates, state = optimizer.update(gradients, state, params)
        # A parameter plus -0 keeps its bits; plus 0 it would lose the sign of -0.
        updates = jax.tree.map(
            lambda leaf, scale: leaf * scale if scale else jnp.full_like(leaf, -0.0),
            updates,
            scales,
        )
        return updates, state

    return optax.GradientTransformation(init, update)


def _factor(name: str, pairs: Sequence[tuple[str, float]]) -> float:
    """Return the factor of a parameter, of the last part that it lies in."""
    found = [factor for part, factor in pairs if _in_part(name, part)]
    return found[-1] if found else 1.0


def _in_part(name: str, part: str) -> bool:
    """Tell whether a parameter lies in a part.

    >>> _in_part("encoder_1/kernel", "encoder")
    True
    >>> _in_part("encoder_10/kernel", "encoder_1")
    False
    """
    if part == "encoder" and name.startswith("stem/"):
        return True
    return name == part or name.startswith((f"{part}/", f"{part}_"))


def _name(path: Any) -> str:
    """Join the keys of the path to a leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _check(params: Any, parts: Sequence[str]) -> None:
    """Refuse parts that no parameter lies in."""
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for part in parts:
        if not any(_in_part(name, part) for name in names):
            tops = sorted({name.partition("/")[0] for name in names})
            raise InputError(
                f"train.freeze or optimizer.rate_factors: the network has no part "
                f"{part!r}; expected one of {', '.join(tops)}, or the start of several"
            )
