"""Reads and writes the objects of a folder of a bucket; errors are one line."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import tensorstore as ts

SCHEME = "gs://"

_T = TypeVar("_T")

_AT_ONCE = 4
"""Number of objects in transfer at once; their contents are in memory."""

_ANSWER_SECONDS = 600.0
"""Longest wait for one object: a server may accept a connection and never answer."""

_LOG_IN = (
    "log in (gcloud auth application-default login), or let this account read, list, "
    "write and delete there"
)
_FIXES = {
    "NOT_FOUND": "make the bucket, or fix its name",
    "PERMISSION_DENIED": _LOG_IN,
    "UNAUTHENTICATED": _LOG_IN,
}


class BucketError(Exception):
    """A request to a bucket failed: what was found, and how to fix it."""


class Found(NamedTuple):
    """An object.

    Attributes:
        content: bytes of the object; None where there is no object.
        generation: version of the content; every write makes a new one.
    """

    content: bytes | None
    generation: bytes


class Store:
    """The objects of a folder of a bucket.

    Args:
        url: folder, such as ``gs://bucket/folder``.
        retries: number of retries of a failed request; six take about a minute.

    Raises:
        BucketError: the URL has another form.
    """

    def __init__(self, url: str, *, retries: int = 6) -> None:
        """Open the folder; no request is made yet."""
        self.url = url.rstrip("/")
        context = ts.Context({"gcs_request_retries": {"max_retries": retries}})
        try:
            self._store = ts.KvStore.open(f"{self.url}/", context=context).result()
        except Exception as error:
            raise BucketError(
                f"{_reason(error)}; expected {SCHEME}BUCKET/FOLDER"
            ) from None

    def read(self, name: str) -> Found:
        """Read one object."""
        return _found(self._store.read(name))

    def read_all(self, names: Sequence[str]) -> Iterator[tuple[str, Found]]:
        """Read objects in their order, a few at a time."""
        for some in _batches(names):
            futures = [(name, self._store.read(name)) for name in some]
            for name, future in futures:
                yield name, _found(future)

    def write(
        self, name: str, content: bytes | None, *, if_generation: bytes | None = None
    ) -> bytes | None:
        """Write one object, or delete it.

        Args:
            content: bytes to write; None to delete the object.
            if_generation: generation that the object must have, from `read`; None for
                any.

        Returns:
            New generation; None where the object had another one than expected.
        """
        future = self._store.write(name, content, if_equal=if_generation)
        return _answer(future).generation or None

    def write_all(
        self, names: Sequence[str], content: Callable[[str], bytes | None]
    ) -> None:
        """Write the bytes that a function returns for each name; None deletes it."""
        for some in _batches(names):
            for future in [self._store.write(name, content(name)) for name in some]:
                _answer(future)

    def names(self, *, known: str) -> list[str]:
        """List all objects, of which ``known`` is one if there are any.

        TensorStore returns an empty list for a refused request, and a part of a list
        that was cut off; the list is complete if it has the name that sorts last.
        """
        names = sorted(key.decode() for key in _answer(self._store.list()))
        if known not in names and self.read(known).content is not None:
            raise BucketError(f"{known} exists and is not listed; {_LOG_IN}")
        return names


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    """Split names into small groups."""
    names = list(names)
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _found(future: Any) -> Found:
    """Wait for the result of a read."""
    result = _answer(future)
    content = result.value if result.state == "value" else None
    return Found(content, result.stamp.generation)


def _answer(future: Any) -> Any:
    """Wait for an answer, and turn errors into BucketError."""
    try:
        return future.result(timeout=_ANSWER_SECONDS)
    except TimeoutError:
        raise BucketError(
            f"no answer within {_ANSWER_SECONDS:g} s; check the network"
        ) from None
    except Exception as error:  # the kinds differ in their texts alone
        status = str(error).partition(":")[0]
        fix = _FIXES.get(status, "check the network")
        raise BucketError(f"{_reason(error)}; {fix}") from None


def _reason(error: Exception) -> str:
    """Shorten an error of TensorStore to what a user can use."""
    text = re.sub(r"\s*\[\w+='.*", "", " ".join(str(error).split()))
    return text[:200]
