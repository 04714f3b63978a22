"""Lets one run at a time write into a folder of a bucket: a lease as an object."""

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
"""Name of the object; it sorts last, so a listing that has it is complete."""


class BucketLease(Held):
    """The right to write into a folder of a bucket.

    The lease is an object that its owner rewrites every ten seconds, on the condition
    that nobody else wrote it. A bucket has no clock to compare with: the lease of a run
    on another host is watched for a minute, and taken over if nobody rewrote it.

    Args:
        stale_seconds: time without a sign of life after which a lease is taken over.

    Raises:
        InputError: another run works in the folder.
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
        """Write the object, in place of a lease that is no longer valid."""
        seen: bytes | None = None
        end = 0.0
        while True:
            found = self._store.read(NAME)
            other = read_lease(found.content or b"")
            if found.content is None or self._is_invalid(other, seen, end):
                mine = self._write(found.generation)
                if mine is not None:
                    return mine
                continue  # another run was faster
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

    def _is_invalid(
        self, other: dict[str, Any], seen: bytes | None, end: float
    ) -> bool:
        """Return whether the process of a lease is dead, or was silent too long."""
        lives = lives_here(other, self._me)
        if lives:
            raise InputError(refusal(self._store.url, other, "a moment"))
        return lives is False or (seen is not None and time.monotonic() >= end)

    def _write(self, generation: bytes) -> bytes | None:
        """Write the object in place of a generation; None if that is gone."""
        mine = self._store.write(NAME, self._content, if_generation=generation)
        if mine is None:
            # A write whose answer was lost is repeated, and then finds its own object.
            found = self._store.read(NAME)
            mine = found.generation if found.content == self._content else None
        return mine

    def _renew(self) -> None:
        """Rewrite the object, if the lease is still ours."""
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
            pass  # the next sign of life may succeed

    def _give_back(self) -> None:
        """Delete the object, if it is still ours."""
        with self._renewing, contextlib.suppress(BucketError):
            self._store.write(NAME, None, if_generation=self._generation)
