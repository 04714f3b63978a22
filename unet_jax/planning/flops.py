"""Counts the useful operations of a function: its convolutions and dense products."""

import math
from collections.abc import Iterator
from typing import Any


def dense_flops(jaxpr: Any) -> int:
    """Count the operations of all convolutions and dense products of a traced function.

    The count is made before compilation, so padding and recomputation by the compiler
    are not included. Unlike the compiler's own count, a loop counts as often as it
    runs. Zeros around an image count as pixels; zeros that dilation inserts do not.

    Args:
        jaxpr: result of ``jax.make_jaxpr(f)(...)`` or ``jax.jit(f).trace(...).jaxpr``.
            Functions that are mapped over devices count as on one device.

    Returns: Multiplications and additions.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> dense_flops(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 5))))
        60
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        parameters = equation.params
        match equation.primitive.name:
            case "conv_general_dilated":
                total += _convolution(equation)
            case "dot_general":
                total += _product(equation)
            case "scan":
                total += parameters["length"] * dense_flops(parameters["jaxpr"])
            case "cond":
                total += max(map(dense_flops, parameters["branches"]))
            case _:
                total += sum(map(dense_flops, _called(parameters)))
    return total


def _called(parameters: dict[str, Any]) -> Iterator[Any]:
    """Functions that an operation calls; each counts once."""
    for value in parameters.values():
        if hasattr(getattr(value, "jaxpr", value), "eqns"):
            yield value


def _convolution(equation: Any) -> int:
    """Two operations for each kernel weight, input channel and output value."""
    numbers = equation.params["dimension_numbers"]
    _, channels, *window = (equation.invars[1].aval.shape[i] for i in numbers.rhs_spec)
    taps = math.prod(window) * channels
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2 * equation.outvars[0].aval.size * taps // zeros


def _product(equation: Any) -> int:
    """Two operations for each output value and each index of the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2 * equation.outvars[0].aval.size * inner
