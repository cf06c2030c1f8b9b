"""A lock of many servers, kept in etcd under a lease: for work that one of them should do at a time.

A holder that stops keeping its lease loses the lock without noticing at once. So whatever it writes must bear its
`fence`: the revision at which it got the lock, larger than any holder's before it; who keeps what is written refuses
a smaller one, and a write into etcd itself compares `guard`. Source: etcd client/v3/concurrency, Kleppmann, "How to do
distributed locking" (2016).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aetcd import rpc

from lbcore.errors import LbError, StoreFailed
from lbcore.etcd.connection import EtcdConnection
from lbcore.etcd.following import PrefixFollower
from lbcore.registry.etcd.leases import KEPT, EtcdLeases

__all__ = ["EtcdLock", "Held", "LockLost"]

logger = logging.getLogger(__name__)


class LockLost(LbError):
    """The lock's lease ran out while it was held: somebody else may hold it now."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held.

    Fields:
        key: its key in etcd.
        fence: larger than that of every earlier holder.
        lost: is set when it is not held any more.
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


class EtcdLock:
    """The lock `name`, lost `ttl` seconds after its holder falls silent. One object for each that wants it."""

    def __init__(self, connection: EtcdConnection, name: str, ttl: float = 15.0) -> None:
        self._connection = connection
        self._leases = EtcdLeases(connection)
        self._key = f"{connection.address.prefix}/locks/{name}".encode()
        self._ttl = ttl

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Held]:
        """Waits for the lock, as long as it takes, and holds it in the block. Raises `StoreFailed`."""
        lease = await self._leases.grant(self._ttl / KEPT)
        keeping: asyncio.Task[None] | None = None
        lost = asyncio.Event()
        try:
            keeping = asyncio.ensure_future(self._keep(lease, lost))
            yield Held(self._key, await self._acquire(lease, lost), lost)
        finally:
            if keeping is not None:
                keeping.cancel()
            with suppress(StoreFailed):  # it ends by itself
                await self._leases.revoke(lease)
            self._leases.close()

    async def _acquire(self, lease: int, lost: asyncio.Event) -> int:
        while not lost.is_set():
            request = rpc.TxnRequest(
                compare=[
                    rpc.Compare(key=self._key, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0)
                ],
                success=[rpc.RequestOp(request_put=rpc.PutRequest(key=self._key, value=b"", lease=lease))],
            )
            response = await self._connection.call("KV", "Txn", request)
            if response.succeeded:
                fence: int = response.header.revision
                return fence
            await self._until_free()
        raise LockLost(f"{self._key.decode()}: the lease ran out while waiting")

    async def _until_free(self) -> None:
        follower = PrefixFollower(self._connection, self._key)
        async with aclosing(follower.attempt()) as steps:
            async for _ in steps:
                if self._key not in follower.pairs:
                    return

    async def _keep(self, lease: int, lost: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            await asyncio.sleep(self._ttl / 3)
            asked = loop.time()  # etcd counts from when it was asked, not from when we heard
            try:
                if not await self._leases.keep(lease):
                    break
                heard = asked
            except StoreFailed as wrong:
                logger.warning("%s cannot be kept: %s", self._key.decode(), wrong)
            if loop.time() - heard >= self._ttl:
                break
        lost.set()
