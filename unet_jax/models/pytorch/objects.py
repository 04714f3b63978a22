"""The classes of a checkpoint that are known: tensors, and scalars and arrays of NumPy.

Everything else becomes an `opcodes.Unknown`, whose class is never imported.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from unet_jax.models.pytorch.opcodes import Name, NotReadable, Unknown

DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
    "UntypedStorage": np.uint8,
}
"""Dtype of each class of storage in ``torch``."""

_TORCH_DTYPES = {
    **{name: getattr(np, name) for name in ("uint16", "uint32", "uint64")},
    **{
        name: getattr(ml_dtypes, name)
        for name in (
            *("float8_e4m3fn", "float8_e5m2"),
            *("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
        )
    },
}
"""Dtypes of ``torch`` that have no class of storage."""

_MOST_EXPANDED = 2**20
"""Most elements of a tensor that repeats those of its storage."""

_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufc](1|2|4|8|16)|bool")


class Storage(NamedTuple):
    """The bytes of a storage, which several tensors may view, and their dtype."""

    data: bytes
    dtype: np.dtype


class _Unfilled:
    """An array or dtype of NumPy before its state is set; the memo may hold it."""

    def __init__(self, kind: str, value: Any = None) -> None:
        self.kind, self.value = kind, value


def make(name: Name, arguments: tuple[Any, ...]) -> Any:
    """Return what a call of a pickle makes.

    Args:
        name: class or function that is called.
        arguments: plain values, or what this function made before.

    Raises:
        NotReadable: a known name has arguments that do not fit it.
    """
    maker = _MAKERS.get(str(name))
    if maker is None:
        return Unknown(name, arguments)
    try:
        return maker(*arguments)
    except NotReadable:
        raise
    except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as error:
        found = " ".join(str(error).split())[:80]
        raise NotReadable(f"its {name} has wrong arguments ({found})") from None


def build(value: Any, state: Any) -> Any:
    """Return a value with its state.

    Args:
        value: what `make` or the pickle made.
        state: what the object's ``__setstate__`` would be given.
    """
    match value:
        case Unknown():
            value.state = state
        case _Unfilled(kind="dtype"):
            # Only the order of the bytes is of use: (3, "<", None, None, ...).
            value.value = value.value.newbyteorder(_order(state))
        case _Unfilled(kind="array"):
            _, shape, dtype, fortran, data = state
            value.value = _array(data, dtype, shape, "F" if fortran else "C")
        case dict() | list() | set():
            pass  # attributes of a subclass, such as those of a state_dict
        case _:
            raise NotReadable(f"its pickle sets a state of {type(value).__name__}")
    return value


def finished(value: Any) -> Any:
    """Return a value with arrays in place of those that waited for their state.

    Args:
        value: a value that `opcodes.run` returned, changed in place.
    """
    seen: dict[int, Any] = {}

    def within(one: Any) -> Any:
        if isinstance(one, _Unfilled):
            return one.value
        if id(one) in seen:
            return seen[id(one)]
        if type(one) is tuple:
            new: Any = tuple(map(within, one))
        elif type(one) is list:
            one[:] = map(within, one)
            new = one
        elif type(one) is dict:
            one.update({key: within(part) for key, part in one.items()})
            new = one
        elif isinstance(one, Unknown):
            one.arguments = tuple(map(within, one.arguments))
            one.state, one.entries = within(one.state), list(map(within, one.entries))
            new = one
        else:
            return one
        seen[id(one)] = new
        kept.append(one)  # so that no other value gets its id
        return new

    kept: list[Any] = []
    return within(value)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: Any, dtype: Any = None
) -> np.ndarray:
    """View a storage, as ``torch._utils._rebuild_tensor_v2`` does."""
    if not isinstance(storage, Storage):
        raise NotReadable("its tensor has no storage")
    kind = storage.dtype if dtype is None else dtype
    flat = np.frombuffer(storage.data, kind)
    size, stride = _whole_numbers(size), _whole_numbers(stride)
    (offset,) = _whole_numbers((offset,))
    if len(size) != len(stride) or len(size) > 16:
        raise NotReadable(f"its tensor has the sizes {size} and strides {stride}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and last >= len(flat):
        raise NotReadable(
            f"its tensor of {size} reads element {last} of a storage of {len(flat)}"
        )
    if count > max(len(flat), _MOST_EXPANDED):
        raise NotReadable(f"its tensor of {size} repeats {len(flat)} elements")
    if not count:
        return np.empty(size, kind)
    steps = tuple(step * flat.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)


def _tensor_of_dtype(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> np.ndarray:
    """View a storage of bytes, as ``torch._utils._rebuild_tensor_v3`` does."""
    name = dtype.name if isinstance(dtype, Name) and dtype.module == "torch" else ""
    if name not in _TORCH_DTYPES:
        raise NotReadable(f"its tensor has the dtype {dtype}")
    return _tensor(storage, offset, size, stride, dtype=_TORCH_DTYPES[name])


def _whole_numbers(values: Any) -> tuple[int, ...]:
    """Return sizes, strides or offsets; no others are above -1 and no bool."""
    if not isinstance(values, tuple | list) or not all(
        type(one) is int and 0 <= one < 2**60 for one in values
    ):
        raise NotReadable(f"its tensor has {str(values)[:40]} as sizes")
    return tuple(values)


def _parameter(data: Any, *_: Any) -> Any:
    """Return the tensor of a parameter."""
    if not isinstance(data, np.ndarray):
        raise NotReadable("its parameter has no tensor")
    return data


def _dtype(text: Any, *_: Any) -> _Unfilled:
    """Return a dtype of plain numbers."""
    if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
        raise NotReadable(f"its array has the dtype {str(text)[:40]!r}")
    return _Unfilled("dtype", np.dtype(text))


def _order(state: Any) -> Any:
    """Return the order of bytes in the state of a dtype."""
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if order not in ("<", ">", "|", "="):
        raise NotReadable(f"its dtype has the state {str(state)[:40]}")
    return order


def _array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Return an array of bytes."""
    if not isinstance(dtype, _Unfilled) or not isinstance(dtype.value, np.dtype):
        raise NotReadable("its array has no dtype")
    if not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise NotReadable("its array has no bytes")
    flat = np.frombuffer(data, dtype.value)
    return flat.reshape(_whole_numbers(shape), order=order)  # type: ignore[call-overload]


def _scalar(dtype: Any, data: Any) -> Any:
    """Return a scalar of NumPy."""
    return _array(data, dtype, (), "C")[()]


def _bytes(text: Any, encoding: Any) -> bytes:
    """Return bytes, which protocol 2 writes as text."""
    if encoding != "latin1" or not isinstance(text, str):
        raise NotReadable(f"its text is of encoding {str(encoding)[:20]}")
    return text.encode("latin1")


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    """Return a dict of scalars' pairs."""
    if not all(isinstance(key, str | int) for key, _ in pairs):
        raise NotReadable("its mapping has keys that are neither text nor numbers")
    return dict(pairs)


def _set(values: Any = ()) -> set[Any]:
    """Return a set of scalars."""
    if not all(isinstance(one, str | int | float | bytes) for one in values):
        raise NotReadable("its set holds what is neither text nor a number")
    return set(values)


_MAKERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _whole_numbers,
    "_codecs.encode": _bytes,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "numpy.dtype": _dtype,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "scalar": _scalar,
            "_reconstruct": lambda *_: _Unfilled("array"),
        }.items()
    },
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
