"""Writes the operations of jax that move, join or weigh whole arrays as ONNX."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unet_jax.errors import InputError
from unet_jax.export.onnx_graph import Graph, Value


def unknown_primitive(name: str) -> InputError:
    """Return the refusal of a primitive."""
    return InputError(
        f"--mode=export: the network uses the primitive {name!r} of jax, which is not "
        "written as ONNX; expected the operations of convolutional networks and of "
        "attention. Write that part with others, or export without ONNX"
    )


def write_pad(graph: Graph, x: Value, fill: Value, equation: Any) -> Value:
    """Write padding around, and between, the values of each axis."""
    config = equation.params["padding_config"]
    shape = list(equation.invars[0].aval.shape)
    for axis, (_, _, between) in enumerate(config):
        if not between:
            continue
        x = graph.add("Unsqueeze", [x, [axis + 1]])
        x = graph.add("Pad", [x, [0, between], fill, [axis + 1]])
        shape[axis] = shape[axis] * (between + 1)
        x = graph.add("Reshape", [x, graph.sizes(shape)])
        shape[axis] = shape[axis] - between
        ends = graph.size(shape[axis])
        x = graph.add("Slice", [x, [0], ends, [axis]])
    around = [low for low, _, _ in config], [high for _, high, _ in config]
    pads = graph.sizes([*around[0], *around[1]])
    if not isinstance(pads, str) and not pads.any():
        return x
    return graph.add("Pad", [x, pads, fill])


def write_product(graph: Graph, inputs: Sequence[Value], equation: Any) -> Value:
    """Write a product of arrays."""
    (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
    ranks = [one.aval.ndim for one in equation.invars]
    last_by_first = (tuple(left), tuple(right)) == ((ranks[0] - 1,), (0,))
    if last_by_first and ranks[1] == 2 and not left_batch:
        return graph.add("MatMul", inputs)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in range(ranks[0])]
    second: list[str] = [""] * ranks[1]
    for own, other in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        second[other] = first[own]
    second = [one or next(letters) for one in second]
    batch = [first[axis] for axis in left_batch]
    joined = [*batch, *(one for one in first + second if one not in batch)]
    gone = {first[axis] for axis in left}
    result = "".join(one for one in joined if one not in gone)
    text = f"{''.join(first)},{''.join(second)}->{result}"
    return graph.add("Einsum", inputs, equation=text)


def write_convolution(graph: Graph, inputs: Sequence[Value], equation: Any) -> Value:
    """Write a convolution, or a transposed one where the input is dilated."""
    params = equation.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    strides, spread = list(params["window_strides"]), list(params["lhs_dilation"])
    if params["batch_group_count"] != 1:
        raise unknown_primitive("conv_general_dilated with batch_group_count")
    x = graph.add("Transpose", [inputs[0]], perm=numbers.lhs_spec)
    kernel: Any = inputs[1]
    if isinstance(kernel, str):
        raise unknown_primitive(
            "conv_general_dilated with a kernel that depends on the image"
        )
    kernel = np.transpose(kernel, numbers.rhs_spec)
    window, pads = kernel.shape[2:], params["padding"]
    if max(spread) > 1:
        if max(strides) > 1 or max(params["rhs_dilation"]) > 1:
            raise unknown_primitive("conv_general_dilated with strides on both sides")
        features, size = kernel.shape[:2]
        kernel = kernel.reshape(groups, features // groups, size, *window)
        kernel = np.flip(kernel, tuple(range(3, kernel.ndim))).swapaxes(1, 2)
        kernel = kernel.reshape(groups * size, features // groups, *window)
        cut = [
            [n - 1 - int(one[side]) for n, one in zip(window, pads, strict=True)]
            for side in (0, 1)
        ]
        if min(itertools.chain(*cut)) < 0:
            raise unknown_primitive(
                "conv_general_dilated with more padding than its kernel"
            )
        made = graph.add(
            "ConvTranspose",
            [x, kernel],
            kernel_shape=window,
            strides=spread,
            pads=[*cut[0], *cut[1]],
            group=groups,
        )
    else:
        around = [one[side] for side in (0, 1) for one in pads]
        if not all(str(one).isdigit() for one in around):
            before, after = around[: len(window)], around[len(window) :]
            extents = graph.sizes([0, 0, *before, 0, 0, *after])
            x, around = graph.add("Pad", [x, extents]), [0] * len(around)
        made = graph.add(
            "Conv",
            [x, kernel],
            kernel_shape=window,
            strides=strides,
            pads=[int(one) for one in around],
            dilations=list(params["rhs_dilation"]),
            group=groups,
        )
    return graph.add("Transpose", [made], perm=np.argsort(numbers.out_spec).tolist())


def write_pool(graph: Graph, name: str, x: Value, params: Mapping[str, Any]) -> Value:
    """Write the largest value, or the sum, of windows over the spatial axes."""
    window, strides = params["window_dimensions"], params["window_strides"]
    dilated = (*params["base_dilation"], *params["window_dilation"])
    if window[0] != 1 or window[-1] != 1 or max(dilated) > 1:
        raise unknown_primitive(f"{name} over other axes than those of space")
    rank, pads = len(window), params["padding"][1:-1]
    x = graph.add("Transpose", [x], perm=[0, rank - 1, *range(1, rank - 1)])
    options: dict[str, Any] = {
        "kernel_shape": list(window[1:-1]),
        "strides": list(strides[1:-1]),
        "pads": [int(one[side]) for side in (0, 1) for one in pads],
    }
    if name == "reduce_window_max":
        x = graph.add("MaxPool", [x], **options)
    else:
        x = graph.add("AveragePool", [x], count_include_pad=1, **options)
        x = graph.add("Mul", [x, np.float32(math.prod(window))])
    return graph.add("Transpose", [x], perm=[0, *range(2, rank), 1])


def write_gather(graph: Graph, inputs: Sequence[Value], equation: Any) -> Value:
    """Write the choice of a part, or of places of whole axes."""
    numbers, sizes = (
        equation.params["dimension_numbers"],
        equation.params["slice_sizes"],
    )
    shape, indices = equation.invars[0].aval.shape, equation.invars[1].aval
    rank, chosen = len(shape), list(numbers.start_index_map)
    gone, starts = list(numbers.collapsed_slice_dims), inputs[1]
    if numbers.operand_batching_dims:
        raise unknown_primitive("gather with batching axes")
    if indices.ndim == 1:  # one part
        extents = graph.sizes([sizes[axis] for axis in chosen])
        ends = graph.add("Add", [starts, extents])
        x = graph.add("Slice", [inputs[0], starts, ends, chosen])
        return graph.add("Squeeze", [x, gone]) if gone else x
    kept = [axis for axis in range(rank) if axis not in chosen]
    if sorted(gone) != sorted(chosen) or any(sizes[a] != shape[a] for a in kept):
        raise unknown_primitive("gather of parts at several places")
    x = graph.add("Transpose", [inputs[0]], perm=[*chosen, *kept])
    x = graph.add("GatherND", [x, starts])
    # The axes of the places come first; others go where the result has them.
    total = indices.ndim - 1 + len(kept)
    places = iter(range(indices.ndim - 1))
    others = iter(range(indices.ndim - 1, total))
    order = [
        next(others if axis in numbers.offset_dims else places) for axis in range(total)
    ]
    return graph.add("Transpose", [x], perm=order)
