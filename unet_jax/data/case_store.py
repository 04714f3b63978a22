"""Keeps prepared cases in a folder, of which crops are read without their volume.

A case is a folder with two zarr arrays (version 3), one file each, whose chunks are
compressed and have a checksum, and with pixels of each class. Its name is a hash of its
content and of the settings that it was prepared with, so a changed file or setting
makes another case. A case appears when it is complete: what an interruption leaves is
never read, and the next run prepares what is missing. Several processes and runs may
use a folder at the same time.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore

from unet_jax.errors import InputError
from unet_jax.runtime.atomic import atomic_path

_RULE = 1
"""Number of the way in which cases are prepared and stored; a change makes others."""

_BEGUN, _DAY = ".writing-", 24 * 3600
"""Prefix of a case that is being written; after a day it is of a killed run."""

Classes = Sequence[Sequence[np.ndarray]]
"""Flat indices of pixels of each class in each example of a case."""


class StoredArray:
    """An array in a store; reading a region reads only the chunks that it touches."""

    def __init__(self, array: Any) -> None:
        """Wrap an open array of tensorstore."""
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.ndim = len(self.shape)
        self.dtype: np.dtype[Any] = array.dtype.numpy_dtype
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        """Return the size of the first axis."""
        return self.shape[0]

    def __getitem__(self, region: Any) -> Any:
        """Read a region of slices; a number gives a `StoredArray` and reads nothing.

        Raises:
            InputError: the file is damaged.
        """
        part = self._array[region]
        return StoredArray(part) if isinstance(region, int) else self._read(part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read the whole array."""
        return np.asarray(self._read(self._array), dtype)

    def _read(self, part: Any) -> np.ndarray:
        """Read a part of the array."""
        try:
            return np.asarray(part.read().result())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self._array.kvstore.path}: a prepared case is damaged; delete its "
                "folder and repeat the command, which prepares it again"
            ) from error


Pixels = np.ndarray | StoredArray
"""Pixels in memory or in a mapped file, or those that are read region by region."""


@dataclasses.dataclass(frozen=True)
class CaseStore:
    """The prepared cases of one source with one setting, in a folder for many.

    Attributes:
        folder: the folder, created when it is needed.
        settings: what a prepared case depends on beside its content; plain values.
        contents: text for each case of the source that changes with its content.
        names: name of each case.
        patch: pixels of a crop along each axis; a chunk has half as many.
    """

    folder: pathlib.Path
    settings: Mapping[str, Any]
    contents: Sequence[str]
    names: Sequence[str]
    patch: tuple[int, ...]

    def place(self, case: int) -> pathlib.Path:
        """Return the folder of a case."""
        told = json.dumps([_RULE, self.settings, self.contents[case]], sort_keys=True)
        return self.folder / hashlib.sha256(told.encode()).hexdigest()[:32]

    def get(self, case: int) -> tuple[StoredArray, StoredArray] | None:
        """Open image and label of a case; None if it is not there, or not whole."""
        place = self.place(case)
        if not place.is_dir():
            return None
        if _read_json(place / "case.json").get("sizes") == _sizes(place):
            return _opened(place / "image"), _opened(place / "label")
        shutil.rmtree(place, ignore_errors=True)  # cut off by a power failure
        return None

    def put(self, case: int, image: np.ndarray, label: np.ndarray) -> None:
        """Write a case, unless another process has written it meanwhile.

        Raises:
            InputError: the folder cannot be written.
        """
        place = self.place(case)
        sizes = [1] * (label.ndim - len(self.patch)) + [-(-n // 2) for n in self.patch]
        chunk = tuple(map(min, sizes, label.shape))
        begun = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            begun = pathlib.Path(tempfile.mkdtemp(prefix=_BEGUN, dir=self.folder))
            _write(begun / "image", image, (*chunk, image.shape[-1]))
            _write(begun / "label", label, chunk)
            told = {"case": self.names[case], "rule": _RULE, **self.settings}
            text = json.dumps({"sizes": _sizes(begun), **told}, indent=1)
            (begun / "case.json").write_text(f"{text}\n")
            begun.chmod(0o755)  # mkdtemp makes folders that only the owner can read
            begun.rename(place)
        except (OSError, ValueError) as error:
            if not place.is_dir():
                raise InputError(
                    f"data.prepared_dir: {place} cannot be written ({error}); free "
                    "space, or choose another folder"
                ) from error
        finally:
            if begun is not None:
                shutil.rmtree(begun, ignore_errors=True)

    def classes(self, case: int, drawn: str) -> list[tuple[np.ndarray, ...]] | None:
        """Return pixels of each class that `put_classes` wrote; None for none."""
        path = self.place(case) / f"classes-{drawn}.npz"
        try:
            with np.load(path) as stored:
                counts, flat = stored["counts"], stored["flat"]
        except (OSError, ValueError, KeyError):
            return None
        parts = np.split(flat, np.cumsum(counts)[:-1])
        step = counts.shape[1]
        return [tuple(parts[at : at + step]) for at in range(0, len(parts), step)]

    def put_classes(self, case: int, drawn: str, classes: Classes) -> None:
        """Keep pixels of each class with a case.

        Args:
            drawn: name of the draw: its seed, number and limit.
            classes: flat indices of each class in each example of the case.
        """
        flat = np.concatenate([part for parts in classes for part in parts])
        counts = np.array([[len(part) for part in parts] for parts in classes])
        with atomic_path(self.place(case) / f"classes-{drawn}.npz") as path:
            np.savez(path, counts=counts, flat=flat)

    def report(self) -> str:
        """Say what is in the folder; leftovers of killed runs are deleted."""
        ours = {self.place(case).name: case for case in range(len(self.contents))}
        settings = json.loads(json.dumps({"rule": _RULE, **self.settings}))
        found = changed = others = size = 0
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if place.name.startswith(_BEGUN):
                if time.time() - place.stat().st_mtime > _DAY:
                    shutil.rmtree(place, ignore_errors=True)
            elif place.name in ours:
                found += 1
            elif (place / "case.json").is_file():
                told = _read_json(place / "case.json")
                size += sum(told.pop("sizes", {}).values())
                name = told.pop("case", None)
                if told == settings and name in self.names:
                    changed += 1
                else:
                    others += 1
        line = f"data.prepared_dir: {found} of {len(ours)} cases are in {self.folder}"
        if changed or others:
            line += (
                f"; others: {changed} of files that have changed, {others} of other "
                f"settings, splits or data ({size >> 20} MiB); case.json names each"
            )
        return line


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read an object; an empty one from a damaged file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _sizes(place: pathlib.Path) -> dict[str, int]:
    """Return the bytes of the files of the arrays of a case."""
    return {
        str(path.relative_to(place)): path.stat().st_size
        for path in sorted(place.glob("*/**/*"))
        if path.is_file()
    }


def _opened(place: pathlib.Path) -> StoredArray:
    """Open an array."""
    kvstore = {"driver": "file", "path": f"{place}{os.sep}"}
    spec = {"driver": "zarr3", "kvstore": kvstore}
    return StoredArray(tensorstore.open(spec, open=True, read=True).result())


def _write(place: pathlib.Path, array: np.ndarray, chunk: tuple[int, ...]) -> None:
    """Write an array to one file of compressed chunks."""
    whole = [
        -(-size // part) * part for size, part in zip(array.shape, chunk, strict=True)
    ]
    blosc = {
        "cname": "zstd",
        "clevel": 3,
        "shuffle": "shuffle",
        "typesize": array.dtype.itemsize,
    }
    sharding = {
        "chunk_shape": list(chunk),
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": blosc},
            {"name": "crc32c"},
        ],
    }
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{place}{os.sep}"},
        "metadata": {
            "shape": list(array.shape),
            "data_type": array.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": whole},
            },
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        },
        # A file that is missing would be read as zeros.
        "store_data_equal_to_fill_value": True,
    }
    tensorstore.open(spec, create=True).result().write(array).result()
