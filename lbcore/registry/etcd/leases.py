"""Leases in etcd: granted, kept over one stream for all agents of this server, revoked.

A keep-alive on a stream of its own would open three thousand streams a second; over one stream etcd takes ten thousand
a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

from aetcd import rpc
from async_timeout import timeout as time_limit

from lbcore.errors import StoreFailed
from lbcore.etcd.connection import EtcdConnection

__all__ = ["KEPT", "EtcdLeases"]

KEPT = 2 / 3
"""The share of an agent's time to live after which its lease's key expires; in the rest the servers judge."""
_TIMEOUT = 5.0  # seconds for an answer, where nothing else is said
_MOMENT = 0.05  # of its time to live, after which a lease is kept anew
_FORGOTTEN = 300.0  # seconds after which it does not matter any more when a lease was kept
_TOMBSTONE_TTL, _TOMBSTONE_USE = 60, 30.0  # seconds that a withdrawal is remembered, and that a lease for it is used


class EtcdLeases:
    """The leases of one connection."""

    def __init__(self, connection: EtcdConnection) -> None:
        self._connection = connection
        self._asked: asyncio.Queue[int] = asyncio.Queue()
        self._waiting: dict[int, list[asyncio.Future[int]]] = {}
        self._kept: dict[int, float] = {}  # when a lease was kept last, in that order
        self._reading: asyncio.Task[None] | None = None
        self._member = ""  # that the stream goes to
        self._tombstones: tuple[int, float] | None = None

    async def grant(self, ttl: float) -> int:
        """A new lease for an agent with this time to live. Raises `StoreFailed`."""
        request = rpc.LeaseGrantRequest(TTL=max(1, math.ceil(ttl * KEPT)))
        response = await self._connection.call("Lease", "LeaseGrant", request)
        lease: int = response.ID
        return lease

    async def keep(self, lease: int, ttl: float = 0.0, *, patience: float = _TIMEOUT) -> bool:
        """Keeps a lease; returns whether it is alive. Raises `StoreFailed`, after `patience` seconds without an answer.

        With its time to live, one that was kept a moment ago is taken for alive: an agent may say many things in a row.
        """
        now = asyncio.get_running_loop().time()
        if now - self._kept.get(lease, -math.inf) < _MOMENT * ttl:
            return True
        alive = await self._kept_now(lease, patience)
        self._kept.pop(lease, None)
        if alive:
            self._kept[lease] = now
            for oldest in list(islice(self._kept, 2)):  # in the order of time, so that none stays for ever
                if now - self._kept[oldest] > _FORGOTTEN:
                    del self._kept[oldest]
        return alive

    async def _kept_now(self, lease: int, patience: float) -> bool:
        if self._reading is None or self._reading.done():
            self._member = self._connection.member
            self._reading = asyncio.ensure_future(self._read())
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if lease not in self._waiting:  # else etcd has been asked, and its answer is for all who wait
            self._asked.put_nowait(lease)
        self._waiting.setdefault(lease, []).append(answer)
        try:
            async with time_limit(patience):
                return await answer > 0
        except asyncio.TimeoutError:
            self._reading.cancel()
            self._connection.give_up(self._member)  # it may be this member alone that hangs
            raise StoreFailed(f"etcd {self._member}: no answer to a keep-alive in {patience:g} s") from None

    async def revoke(self, lease: int) -> int:
        """Ends a lease; returns the revision at which its keys went. Raises `StoreFailed`."""
        self._kept.pop(lease, None)
        response = await self._connection.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease))
        revision: int = response.header.revision
        return revision

    async def for_tombstones(self) -> int:
        """A lease under which withdrawals are remembered for a while. Raises `StoreFailed`."""
        now = asyncio.get_running_loop().time()
        if self._tombstones is None or now - self._tombstones[1] > _TOMBSTONE_USE:
            response = await self._connection.call(
                "Lease", "LeaseGrant", rpc.LeaseGrantRequest(TTL=_TOMBSTONE_TTL + int(_TOMBSTONE_USE))
            )
            self._tombstones = (response.ID, now)
        return self._tombstones[0]

    def close(self) -> None:
        """Ends the stream."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        self._asked = asked = asyncio.Queue[int]()
        for lease in self._waiting:
            asked.put_nowait(lease)

        async def requests() -> AsyncIterator[Any]:
            while True:
                yield rpc.LeaseKeepAliveRequest(ID=await asked.get())

        reason: Exception = StoreFailed("the keep-alive was given up")
        try:
            async for response in self._connection.stream("Lease", "LeaseKeepAlive", requests()):
                answers = self._waiting.pop(response.ID, ())
                for answer in answers:
                    if not answer.done():
                        answer.set_result(response.TTL)
        except StoreFailed as wrong:
            reason = wrong
        finally:
            waiting, self._waiting = self._waiting, {}
            for answer in (each for answers in waiting.values() for each in answers):
                if not answer.done():
                    answer.set_exception(reason)
