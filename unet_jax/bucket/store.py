"""Objects of one folder of a bucket, and what goes wrong with them in one line."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import tensorstore as ts

SCHEME = "gs://"

_T = TypeVar("_T")

_AT_ONCE = 4
"""Objects that are under way together; their contents are in memory."""

_ANSWER_SECONDS = 600.0
"""For one object: a server may take a connection and say nothing."""

_LOG_IN = (
    "log in (gcloud auth application-default login), or let this account read, list, "
    "write and delete there"
)
_MENDS = {
    "NOT_FOUND": "make the bucket, or fix its name",
    "PERMISSION_DENIED": _LOG_IN,
    "UNAUTHENTICATED": _LOG_IN,
}


class BucketError(Exception):
    """A bucket does not do what it is asked: what was found, and how to fix it."""


class Found(NamedTuple):
    """An object.

    Attributes:
        content: its bytes; None where there is none.
        generation: of this content; each time it is written it is another one.
    """

    content: bytes | None
    generation: bytes


class Store:
    """The objects whose names begin with a URL.

    Args:
        url: such as ``gs://bucket/folder``.
        retries: of a request that the network or the server fails; six take about a
            minute.

    Raises:
        BucketError: it is no such URL.
    """

    def __init__(self, url: str, *, retries: int = 6) -> None:
        """Name them; nothing is asked yet."""
        self.url = url.rstrip("/")
        context = ts.Context({"gcs_request_retries": {"max_retries": retries}})
        try:
            self._store = ts.KvStore.open(f"{self.url}/", context=context).result()
        except Exception as error:
            raise BucketError(
                f"{_reason(error)}; expected {SCHEME}BUCKET/FOLDER"
            ) from None

    def read(self, name: str) -> Found:
        """Read one object.

        Args:
            name: below the URL.
        """
        return _found(self._store.read(name))

    def read_all(self, names: Sequence[str]) -> Iterator[tuple[str, Found]]:
        """Read objects in their order, a few at a time.

        Args:
            names: below the URL.
        """
        for some in _batches(names):
            futures = [(name, self._store.read(name)) for name in some]
            for name, future in futures:
                yield name, _found(future)

    def write(
        self, name: str, content: bytes | None, *, if_generation: bytes | None = None
    ) -> bytes | None:
        """Write one object, or remove it.

        Args:
            name: below the URL.
            content: None to remove it.
            if_generation: that it has to have, as `read` gave it; None for any.

        Returns:
            Its generation now; None where it had another one than expected.
        """
        future = self._store.write(name, content, if_equal=if_generation)
        return _answer(future).generation or None

    def write_all(
        self, names: Sequence[str], content: Callable[[str], bytes | None]
    ) -> None:
        """Write objects, or remove them, a few at a time.

        Args:
            names: below the URL.
            content: of each; None to remove it.
        """
        for some in _batches(names):
            for future in [self._store.write(name, content(name)) for name in some]:
                _answer(future)

    def names(self, *, known: str) -> list[str]:
        """List all objects.

        Args:
            known: one that is there, if any is. TensorStore takes a list that was
                refused for an empty one, and cut off for a whole one; it is whole if
                the last name is there.
        """
        names = sorted(key.decode() for key in _answer(self._store.list()))
        if known not in names and self.read(known).content is not None:
            raise BucketError(f"{known} is there and not listed; {_LOG_IN}")
        return names


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    """Put a few together."""
    names = list(names)
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _found(future: Any) -> Found:
    """Wait for what was read."""
    result = _answer(future)
    content = result.value if result.state == "value" else None
    return Found(content, result.stamp.generation)


def _answer(future: Any) -> Any:
    """Wait for an answer, and give what went wrong a name."""
    try:
        return future.result(timeout=_ANSWER_SECONDS)
    except TimeoutError:
        raise BucketError(
            f"no answer within {_ANSWER_SECONDS:g} s; see to the network"
        ) from None
    except Exception as error:  # of many kinds, told apart by their texts
        status = str(error).partition(":")[0]
        fix = _MENDS.get(status, "see to the network")
        raise BucketError(f"{_reason(error)}; {fix}") from None


def _reason(error: Exception) -> str:
    """Shorten what TensorStore says to what a user can use."""
    text = re.sub(r"\s*\[\w+='.*", "", " ".join(str(error).split()))
    return text[:200]
