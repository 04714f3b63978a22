"""Translates the primitives of a jaxpr to operations of ONNX."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from unet_jax.export import onnx_arrays as arrays
from unet_jax.export.onnx_arrays import unknown_primitive
from unet_jax.export.onnx_graph import Graph, Value, stored_dtype

# Operations with the same arguments in both, value by value.
_SAME = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
_MORE = (
    "clamp",
    "copy",
    "convert_element_type",
    "erfc",
    "exp2",
    "expm1",
    "integer_pow",
    "log1p",
    "ne",
    "optimization_barrier",
    "reduce_precision",
    "rsqrt",
    "select_n",
    "square",
    "stop_gradient",
)
_REDUCTIONS = {
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
}
_END = np.iinfo(np.int64).max


def translate(graph: Graph, traced: Any, inputs: Sequence[Value]) -> list[Value]:
    """Add the operations of a jaxpr to a graph.

    Args:
        graph: graph whose symbols are those of the jaxpr's sizes.
        traced: closed jaxpr.
        inputs: values of its arguments.

    Returns:
        Values of its results.

    Raises:
        InputError: a primitive has no translation.
    """
    constants = [np.asarray(one) for one in traced.consts]
    return _Translation(graph).run(traced.jaxpr, constants, inputs)


class _Translation:
    """Translates jaxprs; "thin" values lack the size of axes along which they repeat.

    A broadcast adds axes of size 1 alone: operations on single values repeat them by
    themselves, and others ask for the `whole` array.
    """

    def __init__(self, graph: Graph) -> None:
        """Write to a graph."""
        self.graph = graph
        self.values: dict[Any, Value] = {}
        self.thin: set[Any] = set()

    def run(
        self, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value]
    ) -> list[Value]:
        """Translate a jaxpr."""
        variables = (*jaxpr.constvars, *jaxpr.invars)
        self.values.update(zip(variables, (*constants, *inputs), strict=True))
        for equation in jaxpr.eqns:
            self.equation(equation)
        return [self.whole(one) for one in jaxpr.outvars]

    def value(self, variable: Any) -> Value:
        """Return a value, which may be thin."""
        if isinstance(variable, Literal):
            return np.asarray(variable.val)
        return self.values[variable]

    def is_thin(self, variable: Any) -> bool:
        """Tell whether a value lacks sizes."""
        return not isinstance(variable, Literal) and variable in self.thin

    def whole(self, variable: Any) -> Value:
        """Return a value of its own shape."""
        value = self.value(variable)
        if not self.is_thin(variable):
            return value
        shape = self.graph.sizes(variable.aval.shape)
        return self.graph.add("Expand", [value, shape])

    def equation(self, equation: Any) -> None:
        """Translate one equation."""
        name, params = equation.primitive.name, equation.params
        inner = next(
            (params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params),
            None,
        )
        if inner is not None and name not in ("scan", "while", "cond"):
            self.call(equation, inner)
            return
        (made,) = equation.outvars if len(equation.outvars) == 1 else (None,)
        if self.folded(equation):
            return
        if name == "split":
            self.split(equation)
            return
        if made is None and name != "optimization_barrier":
            raise unknown_primitive(name)
        if name in _SAME or name in _MORE:
            self.single_values(equation)
        elif name in ("broadcast_in_dim", "iota"):
            self.repeated(equation, made)
        else:
            inputs = [self.whole(one) for one in equation.invars]
            self.values[made] = self.array(name, params, inputs, equation, made)

    def call(self, equation: Any, inner: Any) -> None:
        """Translate an equation that holds a jaxpr."""
        jaxpr = getattr(inner, "jaxpr", inner)
        constants = [np.asarray(one) for one in getattr(inner, "consts", ())]
        # An inner jaxpr may be met twice, with other inputs: its thin ones are new.
        scope = _Translation(self.graph)
        pairs = zip(jaxpr.invars, equation.invars, strict=True)
        scope.thin = {own for own, outer in pairs if self.is_thin(outer)}
        inputs = [self.value(one) for one in equation.invars]
        variables = (*jaxpr.constvars, *jaxpr.invars)
        scope.values.update(zip(variables, (*constants, *inputs), strict=True))
        for one in jaxpr.eqns:
            scope.equation(one)
        for outer, own in zip(equation.outvars, jaxpr.outvars, strict=True):
            self.values[outer] = scope.value(own)
            if scope.is_thin(own):
                self.thin.add(outer)

    def folded(self, equation: Any) -> bool:
        """Compute an equation of constants alone."""
        shapes = [one.aval.shape for one in (*equation.invars, *equation.outvars)]
        if not all(isinstance(n, int) for n in itertools.chain(*shapes)):
            return False
        if any(self.is_thin(one) for one in equation.invars):
            return False
        inputs = [self.value(one) for one in equation.invars]
        if equation.primitive.name == "dim_as_value" or any(
            isinstance(one, str) for one in inputs
        ):
            return False
        values = [
            jax.numpy.asarray(one, old.aval.dtype)
            for one, old in zip(inputs, equation.invars, strict=True)
        ]
        made = equation.primitive.bind(*values, **equation.params)
        several = equation.primitive.multiple_results
        for variable, array in zip(
            equation.outvars, made if several else [made], strict=True
        ):
            self.values[variable] = np.asarray(array)
        return True

    def single_values(self, equation: Any) -> None:
        """Translate an operation that works value by value."""
        inputs = [self.value(one) for one in equation.invars]
        made = _pointwise(self.graph, equation, inputs)
        for index, variable in enumerate(equation.outvars):
            self.values[variable] = made if index == 0 else inputs[index]
            # One whole operand of the same rank makes the result whole.
            if not any(
                one.aval.shape == variable.aval.shape and not self.is_thin(one)
                for one in equation.invars
            ):
                self.thin.add(variable)

    def repeated(self, equation: Any, made: Any) -> None:
        """Translate a broadcast, or whole numbers along an axis."""
        shape = made.aval.shape
        if equation.primitive.name == "iota":
            axis = equation.params["dimension"]
            end = self.graph.add("Squeeze", [self.graph.size(shape[axis])])
            value: Value = self.graph.add("Range", [np.int64(0), end, np.int64(1)])
            value = _cast(self.graph, value, np.int64, made.aval.dtype)
            kept: Sequence[int] = (axis,)
        else:
            (source, *_) = equation.invars
            value = self.value(source)
            kept = equation.params["broadcast_dimensions"]
            if self.is_thin(source) or source.aval.shape != shape:
                self.thin.add(made)
        new = [axis for axis in range(len(shape)) if axis not in kept]
        if equation.primitive.name == "iota" and new:
            self.thin.add(made)
        if new and isinstance(value, str):
            value = self.graph.add("Unsqueeze", [value, new])
        elif new:
            value = np.expand_dims(np.asarray(value), tuple(new))
        self.values[made] = value

    def split(self, equation: Any) -> None:
        """Translate a split along an axis."""
        (source,) = equation.invars
        axis, start = equation.params["axis"], 0
        for variable, size in zip(
            equation.outvars, equation.params["sizes"], strict=True
        ):
            self.values[variable] = self.graph.add(
                "Slice", [self.whole(source), [start], [start + size], [axis]]
            )
            start += size

    def array(
        self,
        name: str,
        params: Mapping[str, Any],
        inputs: list[Value],
        equation: Any,
        made: Any,
    ) -> Value:
        """Translate an operation that moves or joins values."""
        graph, x = self.graph, inputs[0] if inputs else ""
        rank = equation.invars[0].aval.ndim if inputs else 0
        match name:
            case "dim_as_value":
                return graph.add("Squeeze", [graph.size(params["dim"])])
            case "reshape":
                shape = graph.sizes(made.aval.shape)
                return graph.add("Reshape", [x, shape], allowzero=1)
            case "squeeze":
                return graph.add("Squeeze", [x, list(params["dimensions"])])
            case "expand_dims":
                return graph.add("Unsqueeze", [x, list(params["dimensions"])])
            case "transpose":
                return graph.add("Transpose", [x], perm=params["permutation"])
            case "concatenate":
                axis = params["dimension"]
                # Padding by nothing gives empty parts.
                parts = [
                    part
                    for part, one in zip(inputs, equation.invars, strict=True)
                    if one.aval.shape[axis] != 0
                ]
                return graph.add("Concat", parts, axis=axis)
            case "slice":
                steps = params["strides"] or (1,) * rank
                starts = graph.sizes(params["start_indices"])
                ends = graph.sizes(params["limit_indices"])
                return graph.add("Slice", [x, starts, ends, np.arange(rank), steps])
            case "rev":
                axes = list(params["dimensions"])
                turned = [[-1] * len(axes), [-_END] * len(axes), axes, [-1] * len(axes)]
                return graph.add("Slice", [x, *turned])
            case "pad":
                return arrays.write_pad(graph, x, inputs[1], equation)
            case "dot_general":
                return arrays.write_product(graph, inputs, equation)
            case "conv_general_dilated":
                return arrays.write_convolution(graph, inputs, equation)
            case "reduce_window_max" | "reduce_window_sum":
                return arrays.write_pool(graph, name, x, params)
            case "gather":
                return arrays.write_gather(graph, inputs, equation)
        if name in _REDUCTIONS:
            return graph.add(_REDUCTIONS[name], [x, list(params["axes"])], keepdims=0)
        raise unknown_primitive(name)


def _cast(graph: Graph, value: Value, old: Any, new: Any) -> Value:
    """Convert between the dtypes of the graph; nothing where they are equal."""
    import onnx

    kind = stored_dtype(new)
    if stored_dtype(old) is kind:
        return value
    return graph.add(
        "Cast", [value], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    )


def _pointwise(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    """Write an operation that works value by value."""
    name, params, x = equation.primitive.name, equation.params, inputs[0]
    if name in ("and", "or", "not") and equation.invars[0].aval.dtype != np.bool_:
        raise unknown_primitive(f"{name} of integers")
    if name in _SAME:
        return graph.add(_SAME[name], inputs)
    one, two = np.float32(1), np.float32(2)
    match name:
        case "convert_element_type":
            old, new = equation.invars[0].aval.dtype, params["new_dtype"]
            return _cast(graph, x, old, new)
        case "square":
            return graph.add("Mul", [x, x])
        case "integer_pow":
            power = np.asarray(params["y"], stored_dtype(equation.invars[0].aval.dtype))
            return graph.add("Pow", [x, power])
        case "rsqrt":
            return graph.add("Reciprocal", [graph.add("Sqrt", inputs)])
        case "erfc":
            return graph.add("Sub", [one, graph.add("Erf", inputs)])
        case "exp2":
            return graph.add("Pow", [two, x])
        case "expm1":
            return graph.add("Sub", [graph.add("Exp", inputs), one])
        case "log1p":
            return graph.add("Log", [graph.add("Add", [x, one])])
        case "ne":
            return graph.add("Not", [graph.add("Equal", inputs)])
        case "clamp":
            return graph.add("Min", [graph.add("Max", inputs[:2]), inputs[2]])
        case "select_n" if len(inputs) == 3:
            return graph.add("Where", [x, inputs[2], inputs[1]])
        case "select_n":
            raise unknown_primitive("select_n of several cases")
        case _:  # copies and barriers
            return x
