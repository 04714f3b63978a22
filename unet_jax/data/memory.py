"""Keeps cases in memory between the passes over them that precede the first step."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import numpy as np


class _HasPixels(Protocol):
    """Holds an image and possibly its label."""

    @property
    def image(self) -> np.ndarray: ...

    @property
    def label(self) -> np.ndarray | None: ...


Kept = TypeVar("Kept", bound=_HasPixels)


class CaseMemory:
    """Keeps cases as they were read, so that each file is read once.

    Preprocessing needs numbers of all cases, such as the median spacing, before it can
    prepare the first one. In between, the cases wait here. What does not fit into the
    limit is read again. A case that is kept is never replaced by a later one: every
    pass has the same order, so the case to replace would be the next to be asked for.

    Args:
        limit: largest number of bytes of images and labels to keep.

    Example:
        >>> memory = CaseMemory(0)
        >>> memory.held_bytes
        0
    """

    def __init__(self, limit: int) -> None:
        """Start empty."""
        self._limit = limit
        self._kept: dict[Hashable, Any] = {}
        self._released: set[Hashable] = set()
        self._held = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["CaseMemory"], tuple[int]]:
        """Copy the limit only: in another process the memory starts empty."""
        return CaseMemory, (self._limit,)

    @property
    def held_bytes(self) -> int:
        """Bytes of the images and labels that are kept now."""
        return self._held

    def keep(self, key: Hashable, case: _HasPixels) -> None:
        """Keep a case, read-only, if it fits and has not been released."""
        size = _size(case)
        with self._lock:
            unknown = key not in self._kept and key not in self._released
            if unknown and self._held + size <= self._limit:
                for array in (case.image, case.label):
                    if array is not None:
                        array.flags.writeable = False
                self._kept[key] = case
                self._held += size

    def get(self, key: Hashable, read: Callable[[], Kept]) -> Kept:
        """Return a case from memory, or read and keep it; its arrays are read-only."""
        with self._lock:
            kept: Kept | None = self._kept.get(key)
        if kept is not None:
            return kept
        case = read()
        self.keep(key, case)
        return case

    def release(self, key: Hashable) -> None:
        """Free a case for good: later reads of it are not kept."""
        with self._lock:
            self._released.add(key)
            case = self._kept.pop(key, None)
            if case is not None:
                self._held -= _size(case)


def _size(case: _HasPixels) -> int:
    """Count the bytes of a case."""
    return int(case.image.nbytes) + (0 if case.label is None else case.label.nbytes)
