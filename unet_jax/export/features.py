"""Finds the features of the do-not-trust measure in an ONNX graph, and gives them out.

The measure pools two arrays that modules of the network make (`make_features`). Their
names in the graph are found by value: the graph is run with every array as an output,
and the arrays whose spatial means are those of the network are the ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_TOLERANCE = 1e-3
"""Largest difference of means, of their standard deviation over the features."""


def with_features(
    model: Any, windows: np.ndarray, wanted: Mapping[str, np.ndarray]
) -> Any | None:
    """Return the model with an output ``(batch, features)`` for each wanted array.

    Args:
        model: an ``onnx.ModelProto`` with the input "image"; it stays as it is.
        windows: windows ``(n, *window, channels)`` with different content.
        wanted: means ``(n, features)`` of each array over the windows, by name.

    Returns:
        The model; None where an array of the network is not in the graph.
    """
    import onnx

    arrays = _arrays(model, windows)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for name, means in wanted.items():
        found = _found(arrays, np.asarray(means), windows.ndim)
        if found is None:
            return None
        source, axes = found
        made.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(axes, np.int64), f"{name}_axes")
        )
        made.graph.node.append(
            onnx.helper.make_node(
                "ReduceMean", [source, f"{name}_axes"], [name], keepdims=0
            )
        )
        made.graph.output.append(
            onnx.helper.make_tensor_value_info(
                name, onnx.TensorProto.FLOAT, ["batch", means.shape[-1]]
            )
        )
    return made


def _arrays(model: Any, windows: np.ndarray) -> dict[str, np.ndarray]:
    """Return every array of the graph for some windows."""
    import onnx
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(names, {"image": windows.astype(np.float32)})
    return dict(zip(names, values, strict=True))


def _found(
    arrays: Mapping[str, np.ndarray], means: np.ndarray, dims: int
) -> tuple[str, tuple[int, ...]] | None:
    """Return name and spatial axes of the array with these means."""
    limit = _TOLERANCE * max(float(means.std()), 1e-6)
    layouts: Sequence[tuple[int, ...]] = (
        tuple(range(1, dims - 1)),  # channels last
        tuple(range(2, dims)),  # channels first
    )
    for name, array in arrays.items():
        if array.ndim != dims or array.dtype != np.float32:
            continue
        for axes in layouts:
            pooled = array.mean(axis=axes)
            if pooled.shape == means.shape and np.abs(pooled - means).max() <= limit:
                return name, axes
    return None
