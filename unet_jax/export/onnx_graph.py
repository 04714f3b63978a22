"""A graph of ONNX operations under construction: nodes, constants, symbolic sizes."""

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np

Value = str | np.ndarray
"""An array of the graph by its name, or a constant."""


class Graph:
    """Nodes and constants of a graph.

    Attributes:
        axes: number of spatial axes.
        nodes: operations in order.
        symbols: array ``(1,)`` of int64 that holds each symbol of sizes.
    """

    def __init__(self, axes: int) -> None:
        """Start without nodes."""
        self.axes = axes
        self.nodes: list[Any] = []
        self.symbols: dict[str, str] = {}
        self._constants: dict[tuple[Any, ...], str] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._sizes: dict[str, Value] = {}

    def add(self, kind: str, inputs: Sequence[Any], **options: Any) -> str:
        """Add an operation with one output and return the output's name.

        Args:
            kind: name of the ONNX operation.
            inputs: names, constants (arrays, numbers, lists), or None for none.
            **options: attributes of the operation.
        """
        from onnx import helper

        names = ["" if one is None else self.name(one) for one in inputs]
        made = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [made], name=made, **options))
        return made

    def name(self, value: Any) -> str:
        """Return the name of a value; a constant gets one."""
        if isinstance(value, str):
            return value
        array = stored(np.asarray(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self._arrays[name] = array
        return self._constants[key]

    def size(self, extent: Any) -> Value:
        """Return the size of an axis as ``(1,)``: a number or symbolic expression."""
        text = str(extent)
        if text.lstrip("-").isdigit():
            return np.array([int(text)], np.int64)
        if text not in self._sizes:
            tree = ast.parse(text.replace("^", "**"), mode="eval")
            self._sizes[text] = self._expression(tree.body)
        return self._sizes[text]

    def sizes(self, extents: Sequence[Any]) -> Value:
        """Return the sizes of several axes as one array."""
        parts = [self.size(extent) for extent in extents]
        if not any(isinstance(part, str) for part in parts):
            return np.array([int(extent) for extent in extents], np.int64)
        return self.add("Concat", parts, axis=0)

    def _expression(self, tree: ast.expr) -> Value:
        """Write a symbolic expression as jax prints it."""
        match tree:
            case ast.Constant(value=int(number)):
                return np.array([number], np.int64)
            case ast.Name(id=name):
                return self.symbols[name]
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return self.add("Neg", [self._expression(inner)])
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=power)):
                one = self._expression(left)
                made: Value = np.array([1], np.int64)
                for _ in range(int(str(power))):
                    made = self.add("Mul", [made, one])
                return made
            case ast.BinOp(left=left, op=sign, right=right):
                kinds = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}
                parts = [self._expression(left), self._expression(right)]
                return self.add(kinds[type(sign)], parts)
            case ast.Call(func=ast.Name(id="floordiv"), args=[top, bottom]):
                parts = [self._expression(top), self._expression(bottom)]
                # ONNX divides whole numbers towards 0.
                whole = self.add("Sub", [parts[0], self.add("Mod", parts)])
                return self.add("Div", [whole, parts[1]])
            case ast.Call(func=ast.Name(id=name), args=arguments):
                kind = {"mod": "Mod", "max": "Max", "min": "Min"}[name]
                return self.add(kind, [self._expression(one) for one in arguments])
        raise ValueError(f"unknown symbolic size {ast.unparse(tree)}")

    def finish(self, value: Value, name: str) -> None:
        """Give a value its name as an output, and remove what no output needs."""
        from onnx import helper

        self.nodes.append(
            helper.make_node("Identity", [self.name(value)], [name], name=name)
        )
        needed, kept = {name}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self._arrays = {k: v for k, v in self._arrays.items() if k in needed}

    @property
    def initializers(self) -> list[Any]:
        """The constants."""
        from onnx import numpy_helper

        return [
            numpy_helper.from_array(array, name) for name, array in self._arrays.items()
        ]


def stored(array: np.ndarray) -> np.ndarray:
    """Return a constant in the dtype that the graph computes in."""
    dtype = stored_dtype(array.dtype)
    # Not ascontiguousarray, which makes vectors of scalars.
    return np.array(array, dtype, order="C")


def stored_dtype(dtype: Any) -> type[np.generic]:
    """Return float32 for every float, int64 for every integer, or bool."""
    if np.dtype(dtype) == np.bool_:
        return np.bool_
    return np.int64 if np.issubdtype(dtype, np.integer) else np.float32
