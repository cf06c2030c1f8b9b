"""A lock of many servers, kept in etcd under a lease: for work that one of them should do at a time.

Those that want it stand in a queue: each has a key of its own, the oldest key has the lock, and each of the others
waits for the key before it alone. So it goes to who has waited longest, and its end wakes one and not all.

A holder that stops keeping its lease loses the lock, and may be the last to know. `Held.lost` says so by the holder's
own clock, not later than etcd can give the lock away; a process that was stopped hears even that too late. So whatever
it writes must bear its `fence`, larger than any holder's before it; who keeps what is written refuses a smaller one,
and a write into etcd itself compares `guard`. Source: etcd client/v3/concurrency/mutex.go, Kleppmann, "How to do
distributed locking" (2016).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from aetcd import rpc
from async_timeout import timeout as time_limit

from lbcore.errors import LbError, StoreFailed
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection, prefix_end
from lbcore.etcd.following import PrefixFollower
from lbcore.registry.etcd.leases import KEPT, EtcdLeases
from lbcore.validation import MAX_SECONDS, number, printable, refusal

__all__ = ["EtcdLock", "Held", "LockInUse", "LockLost", "LockTimeout", "locked"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LEAST_TTL, _MOST_TTL = 1.0, 3600.0  # seconds; etcd itself lets none last less than 2
_BEATS = 3  # in each time to live
_PATIENCE = 6  # one such part of it is waited for an answer, so that another member of etcd can still be asked in time
_AGAIN, _LONGEST_PAUSE = 20, 1.0  # after one such part of it, or so many seconds, what failed is tried again
_LEAVING = 1.0  # seconds that it takes at most to give the lock back; else its lease ends by itself


class LockLost(LbError, RuntimeError):
    """The lock's lease may have run out, while it was held or waited for: somebody else may hold it now."""


class LockTimeout(LbError, TimeoutError):
    """Others have held the lock for longer than was to be waited."""


class LockInUse(LbError, RuntimeError):
    """This object holds the lock or waits for it already; it would wait for itself for ever."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held.

    Fields:
        key: its key in etcd.
        fence: larger than that of every earlier holder.
        lost: is set as soon as it may not be held any more: its lease may have run out, or its block has ended.
    """

    key: bytes
    fence: int
    lost: asyncio.Event

    @property
    def guard(self) -> Any:
        """A condition for an etcd transaction: this holder still holds it."""
        return rpc.Compare(
            key=self.key, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=self.fence
        )

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work; where the lock is lost before it is done, cancels it and raises `LockLost`."""
        return await _unless_lost(self.lost, work, f"{self.key.decode()}: lost while it was held")


class EtcdLock:
    """The lock `name`, lost `ttl` seconds after its holder falls silent. One object for each that wants it.

    Args:
        connection: of the event loop in which it is used. The lock is below its address's prefix.
        name: any printable text.
        ttl: seconds, 1 to 3600; etcd counts whole ones.
    """

    def __init__(self, connection: EtcdConnection, name: str, ttl: float = 15.0) -> None:
        if not printable(name, "name"):
            raise refusal("name", name, "expected some text")
        self.name = name
        self._connection = connection
        self._prefix = f"{connection.address.prefix}/locks/{quote(name, safe='')}/".encode()
        self._ttl = number(ttl, "ttl", _LEAST_TTL, _MOST_TTL)
        self._pause = min(self._ttl / _AGAIN, _LONGEST_PAUSE)
        self._in_use = False

    @asynccontextmanager
    async def held(self, *, timeout: float | None = None) -> AsyncIterator[Held]:
        """Waits for the lock and holds it in the block.

        `timeout`: seconds to wait for others that hold it; 0 does not wait, None waits as long as it takes.
        Raises `LockTimeout`, `LockInUse`, `LockLost` where the wait outlived the lease, `StoreFailed`.
        """
        limit = None if timeout is None else number(timeout, "timeout", 0.0, MAX_SECONDS)
        if self._in_use:
            raise LockInUse(f"lock {self.name!r}: held or waited for by this object already; make another one")
        self._in_use = True
        try:
            async with self._leased(lost := asyncio.Event()) as lease:
                key = self._prefix + b"%016x" % lease
                fence = await self._acquire(key, lease, lost, limit)
                if lost.is_set():
                    raise LockLost(f"lock {self.name!r}: its lease may have run out before it was there")
                yield Held(key, fence, lost)
        finally:
            self._in_use = False

    @asynccontextmanager
    async def _leased(self, lost: asyncio.Event) -> AsyncIterator[int]:
        """A lease that is kept, and ended with the block; all that is under it goes with it."""
        leases = EtcdLeases(self._connection)
        asked = asyncio.get_running_loop().time()
        lease = await leases.grant(self._ttl / KEPT)
        keeping = asyncio.ensure_future(self._keep(leases, lease, asked, lost))
        try:
            yield lease
        finally:
            keeping.cancel()
            leases.close()
            lost.set()
            with suppress(StoreFailed, asyncio.TimeoutError):
                async with time_limit(_LEAVING):
                    await leases.revoke(lease)

    async def _keep(self, leases: EtcdLeases, lease: int, asked: float, lost: asyncio.Event) -> None:
        """Keeps the lease until it is lost, which it is as well where this ends for a reason that nobody foresaw.

        etcd counts from when it heard of the lease last, which was not before it was `asked`: whatever becomes of the
        request under way, and however long that takes, the lease cannot have ended before so much time after it.
        """
        loop = asyncio.get_running_loop()
        end = loop.call_at(asked + self._ttl, lost.set)
        pause = self._ttl / _BEATS
        try:
            while not lost.is_set():
                await asyncio.sleep(pause)
                asked = loop.time()
                try:
                    if not await leases.keep(lease, patience=self._ttl / _PATIENCE):
                        break
                except StoreFailed as wrong:
                    logger.warning("lock %r cannot be kept now: %s", self.name, wrong)
                    pause = self._pause
                    continue
                pause = self._ttl / _BEATS
                if not lost.is_set():
                    end.cancel()
                    end = loop.call_at(asked + self._ttl, lost.set)
        finally:
            end.cancel()
            lost.set()

    async def _acquire(self, key: bytes, lease: int, lost: asyncio.Event, limit: float | None) -> int:
        """Stands in the queue until `key` is the oldest; returns the revision that made it."""
        put = await self._connection.call("KV", "Put", rpc.PutRequest(key=key, lease=lease))
        fence: int = put.header.revision
        before = await self._before(key, fence)
        if before:
            try:
                async with time_limit(limit):
                    waiting = self._until_first(key, fence, before)
                    await _unless_lost(lost, waiting, f"lock {self.name!r}: its lease ran out while waiting")
            except asyncio.TimeoutError:
                raise LockTimeout(f"lock {self.name!r}: held by others for more than {limit:g} s") from None
        return fence

    async def _until_first(self, key: bytes, fence: int, before: bytes) -> None:
        while before:
            try:
                await self._until_gone(before)
                before = await self._before(key, fence)
            except StoreFailed as wrong:  # noqa: PERF203 - the place in the queue is kept as long as the lease is
                logger.warning("lock %r: waiting goes on: %s", self.name, wrong)
                await asyncio.sleep(self._pause)

    async def _before(self, key: bytes, fence: int) -> bytes:
        """The key that is next before this one, empty if this is the oldest. Raises `LockLost`, `StoreFailed`."""
        mine = rpc.RangeRequest(key=key, keys_only=True)
        older = rpc.RangeRequest(
            key=self._prefix,
            range_end=prefix_end(self._prefix),
            max_create_revision=fence - 1,
            sort_target=rpc.RangeRequest.CREATE,
            sort_order=rpc.RangeRequest.DESCEND,
            limit=1,
            keys_only=True,
        )
        looks = [rpc.RequestOp(request_range=each) for each in (mine, older)]
        response = await self._connection.call("KV", "Txn", rpc.TxnRequest(success=looks))
        found, before = (each.response_range.kvs for each in response.responses)
        if not found:
            raise LockLost(f"lock {self.name!r}: its lease ran out while waiting")
        return bytes(before[0].key) if before else b""

    async def _until_gone(self, key: bytes) -> None:
        follower = PrefixFollower(self._connection, key)
        async with aclosing(follower.attempt()) as steps:
            async for _ in steps:
                if key not in follower.pairs:
                    return


@asynccontextmanager
async def locked(store: str, name: str, *, ttl: float = 15.0, timeout: float | None = None) -> AsyncIterator[Held]:
    """`EtcdLock.held` over a connection of its own to `store`, such as etcd://10.0.0.1,10.0.0.2/lbcore."""
    connection = EtcdConnection(EtcdAddress.parse(store, "store"))
    try:
        async with EtcdLock(connection, name, ttl).held(timeout=timeout) as held:
            yield held
    finally:
        await connection.close()


async def _unless_lost(lost: asyncio.Event, work: Coroutine[Any, Any, T], otherwise: str) -> T:
    working, losing = asyncio.ensure_future(work), asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait([working, losing], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise LockLost(otherwise)
        return working.result()
    finally:
        for each in (working, losing):
            each.cancel()
        await asyncio.gather(working, losing, return_exceptions=True)
