"""One run a folder of a bucket: the lease of `unet_jax.runtime.lease`, as an object."""

import contextlib
import json
import time
from typing import Any

from unet_jax.bucket.store import BucketError, Store
from unet_jax.errors import InputError
from unet_jax.runtime.lease import (
    BEAT_SECONDS,
    STALE_SECONDS,
    Held,
    identity,
    lives_here,
    read_lease,
    refusal,
)

NAME = "~lease.json"
"""The last name of a listing: where it is there, the listing is whole."""


class BucketLease(Held):
    """The right to write into a folder of a bucket.

    It is an object that is written again every ten seconds, each time on the condition
    that nobody else did. A bucket has no clock to read: a lease that another host left
    is watched for a minute, and taken over if it was not written again.

    Args:
        store: the folder.
        beat_seconds: between two signs of life.
        stale_seconds: see `STALE_SECONDS`.

    Raises:
        InputError: another run is at work there.
        BucketError: the bucket cannot be used.
    """

    def __init__(
        self,
        store: Store,
        *,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Take the lease, or refuse."""
        super().__init__(store.url)
        self._store, self._stale = store, stale_seconds
        self._me = identity()
        self._content = json.dumps(self._me).encode()
        self._generation = self._acquire()
        self._start(beat_seconds)

    def _acquire(self) -> bytes:
        """Write the object, in the place of one that counts no longer."""
        seen: bytes | None = None
        end = 0.0
        while True:
            found = self._store.read(NAME)
            other = read_lease(found.content or b"")
            if found.content is None or self._counts_no_longer(other, seen, end):
                mine = self._write(found.generation)
                if mine is not None:
                    return mine
                continue  # another run was quicker
            if seen is None:
                seen, end = found.generation, time.monotonic() + self._stale
                print(
                    f"{self._store.url}: left by a run on host "
                    f"{other.get('host', 'unknown')}; waiting up to {self._stale:g} s "
                    "for a sign of life"
                )
            elif seen != found.generation:
                raise InputError(refusal(self._store.url, other, "a moment"))
            time.sleep(min(1.0, self._stale / 10))

    def _counts_no_longer(
        self, other: dict[str, Any], seen: bytes | None, end: float
    ) -> bool:
        """Whether the process of a lease is dead, or was silent for long enough."""
        lives = lives_here(other, self._me)
        if lives:
            raise InputError(refusal(self._store.url, other, "a moment"))
        return lives is False or (seen is not None and time.monotonic() >= end)

    def _write(self, generation: bytes) -> bytes | None:
        """Write it in the place of one generation; None where that is gone."""
        mine = self._store.write(NAME, self._content, if_generation=generation)
        if mine is None:
            # A write whose answer was lost is made again, and then finds itself.
            found = self._store.read(NAME)
            mine = found.generation if found.content == self._content else None
        return mine

    def _renew(self) -> None:
        """Give a sign of life, if the lease is still ours."""
        try:
            mine = self._write(self._generation)
            if mine is not None:
                self._generation = mine
            else:
                gone = self._store.read(NAME).content is None
                self._lost = (
                    "its lease was deleted under the run"
                    if gone
                    else "another run has taken it over"
                )
        except BucketError:
            pass  # one that answers again is as good as before

    def _give_back(self) -> None:
        """Remove the object, if it is still ours."""
        with self._renewing, contextlib.suppress(BucketError):
            self._store.write(NAME, None, if_generation=self._generation)
