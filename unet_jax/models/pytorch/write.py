"""Writes a file that ``torch.load`` reads, also with ``weights_only=True``."""

import os
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.models.pytorch.objects import DTYPES
from unet_jax.runtime.atomic import atomic_path

_STORAGES = {np.dtype(dtype): name for name, dtype in reversed(DTYPES.items())}


def write_torch_file(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as ``torch.save`` does.

    Args:
        path: the file, which is replaced.
        value: dicts with keys of text, lists, tuples, text, whole numbers of 32 bits,
            floats, bool, None, and arrays, which become tensors. An array that occurs
            several times is stored once.

    Raises:
        TypeError: a value is of another type.
    """
    storages: dict[int, tuple[str, np.ndarray]] = {}
    program = b"\x80\x02" + b"".join(_opcodes(value, storages)) + b"."
    with (
        atomic_path(Path(path)) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for key, array in storages.values():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def _opcodes(
    value: Any, storages: dict[int, tuple[str, np.ndarray]]
) -> Iterable[bytes]:
    """Yield the opcodes that make a value."""
    match value:
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            yield b"J" + struct.pack("<i", value)
        case float():
            yield b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            yield b"X" + struct.pack("<I", len(text)) + text
        case np.ndarray():
            yield from _tensor(value, storages)
        case tuple() | list():
            yield b"("
            for part in value:
                yield from _opcodes(part, storages)
            yield b"t" if isinstance(value, tuple) else b"l"
        case dict():
            yield b"ccollections\nOrderedDict\n)R("
            for key, part in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"Key {key!r} is no text")
                yield from _opcodes(key, storages)
                yield from _opcodes(part, storages)
            yield b"u"
        case _:
            raise TypeError(f"{type(value).__name__} cannot be written; expected plain")


def _tensor(
    array: np.ndarray, storages: dict[int, tuple[str, np.ndarray]]
) -> Iterable[bytes]:
    """Yield the opcodes of a tensor, and keep its storage."""
    if id(array) not in storages:
        plain = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        storages[id(array)] = (str(len(storages)), plain)
    key, plain = storages[id(array)]
    if array.dtype not in _STORAGES:
        raise TypeError(f"Arrays of {array.dtype} cannot be written")
    steps = tuple(step // plain.itemsize for step in plain.strides)
    yield b"ctorch._utils\n_rebuild_tensor_v2\n(("
    yield from _opcodes("storage", storages)
    yield f"ctorch\n{_STORAGES[array.dtype]}\n".encode()
    for part in (key, "cpu", plain.size):
        yield from _opcodes(part, storages)
    yield b"tQ"
    for argument in [0, plain.shape, steps, False, {}]:
        yield from _opcodes(argument, storages)
    yield b"tR"
