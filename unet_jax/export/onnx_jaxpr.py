"""Writes any network as an ONNX graph, from the program that jax traces of it.

The network is traced in its plain implementation, with symbolic sizes, and each
primitive of the jaxpr becomes one or a few operations (`onnx_primitives`). A network
needs no code here; one with a primitive that is not known is refused by its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export

from unet_jax.errors import InputError
from unet_jax.export.onnx_graph import Graph
from unet_jax.export.onnx_primitives import translate
from unet_jax.models.network import (
    Implemented,
    IndivisibleError,
    outputs_of,
    sizes_of,
)

FIXED_SIZE = "spatial size"
"""Key of the file's metadata with the size of a network that takes no other one."""


def traced_to_onnx(
    network: nn.Module,
    variables: Mapping[str, Any],
    *,
    channels: int,
    spatial_dims: int,
    size: Sequence[int] | None,
) -> tuple[Graph, tuple[int, ...] | None]:
    """Translate what jax traces of a network.

    Arguments are those of `onnx_network.network_to_onnx`.

    Returns:
        The graph from "image" to "logits", and the spatial size where it takes no
        other one; None for all sizes.

    Raises:
        InputError: a primitive has no translation, or the network cannot be traced
            with symbolic sizes and no size is given.
    """
    plain = network if isinstance(network, Implemented) else None
    network = Implemented(plain.network if plain else network, "plain")

    def logits(values: Any, image: jax.Array) -> jax.Array:
        made = outputs_of(network.apply(values, image, train=False)).logits
        return made.astype(np.float32)

    def trace(axes: Sequence[str]) -> Any:
        shape = export.symbolic_shape(", ".join(["batch", *axes, str(channels)]))
        image = jax.ShapeDtypeStruct(shape, np.float32)
        return jax.make_jaxpr(logits)(variables, image)

    steps, rests = _divisors(network, spatial_dims)
    fixed = None
    try:
        try:
            traced = trace(_axes(steps, rests))
        except IndivisibleError as error:
            steps = error.multiples
            traced = trace(_axes(steps, rests))
    except Exception as error:
        # Python code that needs numbers raises what it likes of a symbol.
        if size is None:
            raise InputError(
                f"--mode=export: {type(error).__name__} while the network was traced "
                f"with symbolic sizes: {str(error).splitlines()[0]} Expected a network "
                "of any size; `network_to_onnx(..., size=...)` writes it for one size"
            ) from error
        fixed, steps, rests = tuple(size), (1,) * spatial_dims, (0,) * spatial_dims
        traced = trace([str(one) for one in fixed])
    graph = Graph(spatial_dims)
    _write(graph, traced, variables, steps, rests, fixed)
    return graph, fixed


def _divisors(network: nn.Module, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return step and offset of the sizes that a network takes on each axis."""
    sizes = sizes_of(network, axes)
    if not any(sizes.margin):
        return (1,) * axes, (0,) * axes
    smallest = sizes.tiling_size((1,) * axes)
    pairs = zip(smallest, sizes.multiple, strict=True)
    return tuple(sizes.multiple), tuple(n - step for n, step in pairs)


def _axes(steps: Sequence[int], rests: Sequence[int]) -> list[str]:
    """Return the symbolic size of each axis."""
    pairs = zip(steps, rests, strict=True)
    return [f"{step}*h{axis} + {rest}" for axis, (step, rest) in enumerate(pairs)]


def _write(
    graph: Graph,
    traced: Any,
    variables: Mapping[str, Any],
    steps: Sequence[int],
    rests: Sequence[int],
    fixed: Sequence[int] | None,
) -> None:
    """Write padding, network and cropping."""
    axes = np.arange(1, graph.axes + 1)
    whole = graph.add("Shape", ["image"])
    graph.symbols["batch"] = graph.add("Slice", [whole, [0], [1]])
    size = graph.add("Slice", [whole, [1], [graph.axes + 1]])
    x = "image"
    padded = max(steps) > 1 and not any(rests)
    if padded:
        # -size % step, without a modulo of negative numbers.
        rest = graph.add("Mod", [size, list(steps)])
        missing = graph.add("Mod", [graph.add("Sub", [list(steps), rest]), list(steps)])
        pads = graph.add("Concat", [[0] * graph.axes, missing], axis=0)
        x = graph.add("Pad", [x, pads, None, axes], mode="edge")
        size_now = graph.add("Add", [size, missing])
    else:
        size_now = size
    if fixed is None:
        counts = graph.add(
            "Div", [graph.add("Sub", [size_now, list(rests)]), list(steps)]
        )
        for axis in range(graph.axes):
            graph.symbols[f"h{axis}"] = graph.add("Slice", [counts, [axis], [axis + 1]])
    values = [np.asarray(leaf) for leaf in jax.tree.leaves(variables)]
    (made,) = translate(graph, traced, [*values, x])
    if padded:
        made = graph.add("Slice", [made, [0] * graph.axes, size, axes])
    graph.finish(made, "logits")
