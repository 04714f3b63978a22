"""Writes networks as ONNX graphs of dynamic sizes.

A U-Net's graph is written from its attributes, with the names of its modules and the
channels first, as onnxruntime computes; it runs about as fast as such a graph can. Any
other network is translated from what jax traces of it (`onnx_jaxpr`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from unet_jax.export.onnx_jaxpr import FIXED_SIZE, traced_to_onnx
from unet_jax.models.network import Implemented, sizes_of
from unet_jax.models.unet import UNet

_OPSET = 18
_EPSILON = 1e-5
_SLOPE = 0.01


def network_to_onnx(
    network: nn.Module,
    variables: Mapping[str, Any],
    *,
    channels: int,
    spatial_dims: int,
    size: Sequence[int] | None = None,
) -> Any:
    """Write a trained network as an ONNX model of dynamic sizes.

    Args:
        network: a module that fulfils `Network`.
        variables: its parameters and statistics.
        channels: channels of the image.
        spatial_dims: 2 or 3.
        size: spatial size for a network whose Python code needs numbers, as
            `SwinUNETR`; its model takes this size alone, and says so in its metadata
            and in the shape of "image". Other networks do not use it.

    Returns:
        An ``onnx.ModelProto`` that computes in float32: input "image" ``(batch,
        *spatial, channels)``, output "logits" ``(batch, *spatial, classes)``, which is
        smaller for a network without padding.

    Raises:
        InputError: the network uses a primitive of jax that is not written, or takes
            one size only and none is given.
    """
    import onnx
    from onnx import helper

    unet: Any = network.network if isinstance(network, Implemented) else network
    sizes: list[Any] = [f"size_{axis}" for axis in range(spatial_dims)]
    fixed = None
    graph: Any
    if _is_plain(unet):
        graph = _Graph(spatial_dims)
        _write(graph, unet, variables)
    else:
        graph, fixed = traced_to_onnx(
            unet, variables, channels=channels, spatial_dims=spatial_dims, size=size
        )
    sizes = list(fixed or sizes)
    left = (
        sizes
        if not any(sizes_of(unet, spatial_dims).margin)
        else [f"logits_size_{axis}" for axis in range(spatial_dims)]
    )
    inputs, outputs = (
        helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, ["batch", *space, last]
        )
        for name, space, last in (
            ("image", sizes, channels),
            ("logits", left, getattr(unet, "num_classes", None)),
        )
    )
    made = helper.make_graph(
        graph.nodes, "network", [inputs], [outputs], graph.initializers
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=9,
        producer_name="unet_jax",
    )
    if fixed is not None:
        helper.set_model_props(model, {FIXED_SIZE: " x ".join(map(str, fixed))})
    onnx.checker.check_model(model)
    return model


def _is_plain(network: Any) -> bool:
    """Tell whether a network is a U-Net of the kind that is written by name."""
    return (
        isinstance(network, UNet)
        and not network.attention
        and network.padding == "SAME"
        and network.downsample in ("max_pool", "centred")
        and network.upsample == "transposed"
    )


class _Graph:
    """Nodes and constants of a graph whose arrays have their channels first."""

    def __init__(self, axes: int) -> None:
        """Start without nodes."""
        self.axes = axes
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        """Add a constant: float32, or int64 for whole numbers."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(array), name)
        )
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, **options: Any) -> str:
        """Add an operation with one output, which has its name."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **options))
        return name

    def per_channel(self, name: str, value: Any) -> str:
        """Add a constant for each channel, which broadcasts over space."""
        return self.constant(name, np.reshape(value, (1, -1, *(1,) * self.axes)))


def _write(graph: _Graph, unet: UNet, variables: Mapping[str, Any]) -> None:
    """Write the whole network."""
    axes, sizes = graph.axes, unet.sizes(graph.axes)
    space = graph.constant("space", range(2, axes + 2))
    graph.node("Transpose", ["image"], "image_first", perm=_first(axes))
    graph.node("Shape", ["image_first"], "size", start=2, end=axes + 2)
    multiple = graph.constant("multiple", sizes.total_stride)
    zeros = graph.constant("zeros", [0] * axes)
    # -size % multiple, without a modulo of negative numbers.
    graph.node("Mod", ["size", multiple], "remainder")
    graph.node("Sub", [multiple, "remainder"], "behind")
    graph.node("Mod", ["behind", multiple], "missing")
    graph.node("Concat", [zeros, "missing"], "pads", axis=0)
    x = graph.node("Pad", ["image_first", "pads", "", space], "padded", mode="edge")
    x = _levels(graph, unet, variables, x)
    head = variables["params"]["head"]
    x = _convolution(graph, "head", head, x)
    graph.node("Slice", [x, zeros, "size", space], "cropped")
    graph.node("Transpose", ["cropped"], "logits", perm=_last(axes))


def _levels(graph: _Graph, unet: UNet, variables: Mapping[str, Any], x: str) -> str:
    """Write the stages on the way down and up."""
    sizes, skips = unet.sizes(graph.axes), []

    def stage(name: str, x: str, block: str, strides: Any = None) -> str:
        return _stage(graph, unet, variables, name, x, block, strides)

    down, up = unet.block, unet.decoder_block or unet.block
    if unet.stem:
        x = stage("stem", x, "plain")
    for index in range(len(unet.features)):
        strides = sizes.strides[index - 1] if index else None
        if strides is not None and unet.downsample == "max_pool":
            x = graph.node(
                "MaxPool", [x], f"pool_{index}", kernel_shape=strides, strides=strides
            )
            strides = None
        x = stage(f"encoder_{index}", x, down, strides)
        skips.append(x)
    for index in reversed(range(len(unet.features) - 1)):
        name, factors = f"upsample_{index}", sizes.strides[index]
        given = variables["params"][name]
        kernel = np.moveaxis(np.asarray(given["kernel"]), (-2, -1), (0, 1))
        inputs = [x, graph.constant(f"{name}/kernel", kernel)]
        if "bias" in given:
            inputs.append(graph.constant(f"{name}/bias", given["bias"]))
        x = graph.node(
            "ConvTranspose", inputs, name, kernel_shape=factors, strides=factors
        )
        x = graph.node("Concat", [skips[index], x], f"joined_{index}", axis=1)
        x = stage(f"decoder_{index}", x, up)
    return x


def _stage(
    graph: _Graph,
    unet: UNet,
    variables: Mapping[str, Any],
    name: str,
    x: str,
    block: str,
    strides: Any,
) -> str:
    """Write a stage: convolutions, or residual blocks of two."""
    params = variables["params"][name]
    statistics = variables.get("batch_stats", {}).get(name, {})

    def normed(x: str, part: str, strides: Any = None) -> str:
        made = f"{name}/convolution_{part}"
        x = _convolution(graph, made, params[f"convolution_{part}"], x, strides)
        norm = f"norm_{part}"
        if unet.norm == "none":
            return x
        return _norm(
            graph, unet, f"{name}/{norm}", params[norm], statistics.get(norm), x
        )

    def activated(x: str, part: str) -> str:
        kind, options = "Relu", {}
        if unet.activation == "leaky_relu":
            kind, options = "LeakyRelu", {"alpha": _SLOPE}
        return graph.node(kind, [x], f"{name}/activation_{part}", **options)

    count = sum(key.startswith("convolution_") for key in params)
    if block == "plain":
        for index in range(count):
            x = normed(x, str(index), strides if index == 0 else None)
            x = activated(x, str(index))
        return x
    index = 0
    while f"convolution_{index}_0" in params:
        step = strides if index == 0 else None
        skip = x
        x = activated(normed(x, f"{index}_0", step), f"{index}_0")
        x = normed(x, f"{index}_1")
        if block == "residual_d" and step is not None:
            skip = graph.node(
                "AveragePool",
                [skip],
                f"{name}/pool_{index}",
                kernel_shape=step,
                strides=step,
            )
            step = None
        if f"convolution_{index}_skip" in params:
            skip = normed(skip, f"{index}_skip", step)
        x = graph.node("Add", [x, skip], f"{name}/sum_{index}")
        x = activated(x, f"{index}_1")
        index += 1
    return x


def _convolution(
    graph: _Graph, name: str, params: Mapping[str, Any], x: str, strides: Any = None
) -> str:
    """Write a convolution with zeros around the image."""
    kernel = np.asarray(params["kernel"])
    size, axes = kernel.shape[:-2], graph.axes
    before = [(n - 1) // 2 for n in size]
    after = [n // 2 for n in size] if strides is None else before
    weights = np.moveaxis(kernel, (-1, -2), (0, 1))
    inputs = [x, graph.constant(f"{name}/kernel", weights)]
    if "bias" in params:
        inputs.append(graph.constant(f"{name}/bias", params["bias"]))
    return graph.node(
        "Conv",
        inputs,
        name,
        kernel_shape=size,
        pads=[*before, *after],
        strides=strides or (1,) * axes,
    )


def _norm(
    graph: _Graph,
    unet: UNet,
    name: str,
    params: Mapping[str, Any],
    statistics: Mapping[str, Any] | None,
    x: str,
) -> str:
    """Write an instance, group or batch norm."""
    scale, bias = np.asarray(params["scale"]), np.asarray(params["bias"])
    if unet.norm == "batch":
        assert statistics is not None, "a trained batch norm has statistics"
        factor = scale / np.sqrt(np.asarray(statistics["var"]) + _EPSILON)
        shift = bias - np.asarray(statistics["mean"]) * factor
        scaled = graph.node(
            "Mul", [x, graph.per_channel(f"{name}/scale", factor)], f"{name}/scaled"
        )
        return graph.node(
            "Add", [scaled, graph.per_channel(f"{name}/bias", shift)], name
        )
    if unet.norm == "instance":
        inputs = [graph.constant(f"{name}/{k}", v) for k, v in params.items()]
        inputs = [x, f"{name}/scale", f"{name}/bias"]
        return graph.node("InstanceNormalization", inputs, name, epsilon=_EPSILON)
    groups = unet.norm_groups
    shape = graph.node("Shape", [x], f"{name}/shape")
    rows = graph.constant(f"{name}/rows", [0, groups, -1])
    flat = graph.node("Reshape", [x, rows], f"{name}/flat")
    ones = graph.constant(f"{name}/ones", np.ones(groups, np.float32))
    none = graph.constant(f"{name}/none", np.zeros(groups, np.float32))
    flat = graph.node(
        "InstanceNormalization",
        [flat, ones, none],
        f"{name}/rows_normed",
        epsilon=_EPSILON,
    )
    x = graph.node("Reshape", [flat, shape], f"{name}/normed")
    scaled = graph.node(
        "Mul", [x, graph.per_channel(f"{name}/scale", scale)], f"{name}/scaled"
    )
    return graph.node("Add", [scaled, graph.per_channel(f"{name}/bias", bias)], name)


def _first(axes: int) -> list[int]:
    """Return the order of axes that brings the channels first."""
    return [0, axes + 1, *range(1, axes + 1)]


def _last(axes: int) -> list[int]:
    """Return the order of axes that brings the channels last."""
    return [0, *range(2, axes + 2), 1]
