"""Leases that remote callers hold: a request counts as active until its caller reports, or until its time is over.

The invariant: every lease granted ends exactly once, by `take` or by expiry. One that expires is dropped rather than
reported, because how the request ended is unknown; the core then frees its in-flight count and nothing else.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from lbcore.errors import Overloaded

__all__ = ["LeaseTable"]

L = TypeVar("L")

MAX_LEASES = 1_000_000  # about 300 bytes each
_NANOS = 1_000_000_000


class LeaseTable(Generic[L]):
    """Leases by id, with expiry.

    `clock` counts nanoseconds. Ids begin at a random 64-bit number, so that one granted before a restart is unknown
    after it rather than somebody else's.
    """

    def __init__(self, *, clock: Callable[[], int] = time.monotonic_ns, limit: int = MAX_LEASES) -> None:
        self.granted = 0
        self.expired = 0
        self._clock = clock
        self._limit = limit
        self._held: dict[int, tuple[L, int]] = {}
        self._deadlines: list[tuple[int, int]] = []  # a heap of (deadline, id); reported ids linger until they are due
        self._next_id = secrets.randbits(64)
        self._sooner = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def make_room(self) -> None:
        """Raises `Overloaded` where no lease more can be held. To be called before one is taken out."""
        if len(self._held) >= self._limit:
            self.expire()
            if len(self._held) >= self._limit:
                raise Overloaded(f"{self._limit} leases are held already: report them, or ask for a shorter ttl")

    def grant(self, lease: L, ttl: float) -> int:
        """Holds a lease for `ttl` seconds and returns its id."""
        self._next_id = (self._next_id + 1) % 2**64
        deadline = self._clock() + round(ttl * _NANOS)
        self._held[self._next_id] = (lease, deadline)
        if not self._deadlines or deadline < self._deadlines[0][0]:
            self._sooner.set()
        heapq.heappush(self._deadlines, (deadline, self._next_id))
        self.granted += 1
        if len(self._deadlines) > 2 * len(self._held) + 1024:
            self._deadlines = [(due, id) for id, (_, due) in self._held.items()]
            heapq.heapify(self._deadlines)
        return self._next_id

    def take(self, id: int) -> L | None:
        """Ends a lease and hands it over; None where it is unknown, ended or expired."""
        lease, deadline = self._held.get(id, (None, 0))
        if lease is not None and deadline <= self._clock():
            self.expire()
            return None
        self._held.pop(id, None)
        return lease

    def expire(self) -> int:
        """Drops the leases that are due; returns how many."""
        now = self._clock()
        before = len(self._held)
        while self._deadlines and self._deadlines[0][0] <= now:
            self._held.pop(heapq.heappop(self._deadlines)[1], None)
        dropped = before - len(self._held)
        self.expired += dropped
        return dropped

    async def run(self) -> None:
        """Expires leases as they come due, for ever; the caller cancels it."""
        while True:
            self.expire()
            self._sooner.clear()
            timer = None
            if self._deadlines:
                wait = (self._deadlines[0][0] - self._clock()) / _NANOS
                timer = asyncio.get_running_loop().call_later(wait, self._sooner.set)
            try:
                await self._sooner.wait()
            finally:
                if timer is not None:
                    timer.cancel()
