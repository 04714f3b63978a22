"""Reads the file that ``torch.save`` writes: a zip of one pickle and of storages."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from unet_jax.errors import InputError
from unet_jax.models.pytorch import objects, opcodes
from unet_jax.models.pytorch.opcodes import Name, NotReadable

_MOST_FILES = 100_000


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Return the value that ``torch.save`` wrote to a file.

    Nothing in the file is run or imported, so that a file of unknown origin does no
    harm. Memory and time are bounded by the size of the file.

    Args:
        path: a file of PyTorch 1.6 or newer.

    Returns:
        Dicts, lists, tuples, sets, text, numbers and None. Tensors and arrays of NumPy
        are read-only arrays, views of one storage where they were. Objects of all other
        classes are `opcodes.Unknown`.

    Raises:
        InputError: the file cannot be read, is damaged, or made to do harm.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Archive(archive, path.stat().st_size)
            value = opcodes.run(
                found.read("data.pkl"),
                make=objects.make,
                build=objects.build,
                fetch=found.storage,
            )
            return objects.finished(value)
    except (NotReadable, zipfile.BadZipFile, OSError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, zipfile.BadZipFile) and not zipfile.is_zipfile(path):
            reason = "it is no zip, as those of PyTorch before 1.6"
        raise InputError(
            f"{path}: cannot be read as a file of PyTorch ({reason}). Expected what "
            "torch.save writes since version 1.6; copy or download it again."
        ) from None


class _Archive:
    """The zip: one folder, with the pickle and a file for each storage."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        """Refuse what torch.save does not write, before anything is read."""
        self.archive = archive
        self.entries = {entry.filename: entry for entry in archive.infolist()}
        if len(self.entries) != len(archive.infolist()):
            raise NotReadable("its zip has two files of one name")
        if len(self.entries) > _MOST_FILES:
            raise NotReadable(f"its zip has {len(self.entries)} files")
        if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
            raise NotReadable("its zip is compressed, which torch.save does not do")
        total = sum(entry.file_size for entry in archive.infolist())
        if total > size:
            raise NotReadable(f"its zip states {total} bytes, the file has {size}")
        pickles = [name for name in self.entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise NotReadable(f"its zip has {len(pickles)} files data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        self.order = "<"
        if f"{self.folder}byteorder" in self.entries:
            self.order = {b"little": "<", b"big": ">"}.get(self.read("byteorder"), "")
        if not self.order:
            raise NotReadable("its order of bytes is neither little nor big")
        self.storages: dict[str, objects.Storage] = {}

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, whose checksum is checked."""
        entry = self.entries.get(self.folder + name)
        if entry is None:
            raise NotReadable(f"its {name} is missing")
        if name == "data.pkl" and entry.file_size > opcodes.MOST_BYTES:
            raise NotReadable(f"its pickle has {entry.file_size} bytes")
        try:
            return self.archive.read(entry)
        except (EOFError, RuntimeError, ValueError) as error:
            raise NotReadable(f"its {name}: {error}") from None

    def storage(self, identifier: Any) -> objects.Storage:
        """Return a storage by its identifier in the pickle.

        That is ``("storage", class, name of the file, device, elements)``.
        """
        match identifier:
            case ("storage", Name("torch" | "torch.storage", kind), str() as key, _, n):
                pass
            case _:
                raise NotReadable(f"its pickle refers to {str(identifier)[:60]!r}")
        if kind not in objects.DTYPES:
            raise NotReadable(f"its storage is of the class {kind[:40]}")
        dtype = np.dtype(objects.DTYPES[kind])
        if key not in self.storages:
            self.storages[key] = objects.Storage(self.read(f"data/{key}"), dtype)
        data = self.storages[key].data
        if type(n) is not int or len(data) != n * dtype.itemsize:
            raise NotReadable(
                f"its storage {key[:20]} has {len(data)} bytes, expected {n} times "
                f"{dtype.itemsize}"
            )
        if self.order == ">":
            dtype = dtype.newbyteorder(">")
        return objects.Storage(data, dtype)
