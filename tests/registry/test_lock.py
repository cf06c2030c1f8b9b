"""The lock in a real etcd: one holder at a time, and an old holder's writes refused by their fence."""

from __future__ import annotations

import asyncio

from aetcd import rpc

from lbcore.etcd.connection import EtcdConnection
from lbcore.registry.lock import EtcdLock, Held
from tests.harness.etcd import needs_etcd

pytestmark = needs_etcd


async def write(connection: EtcdConnection, held: Held, value: bytes) -> bool:
    """A write that only the holder may make."""
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=b"work", value=value))
    response = await connection.call("KV", "Txn", rpc.TxnRequest(compare=[held.guard], success=[put]))
    done: bool = response.succeeded
    return done


async def test_one_at_a_time_each_with_a_larger_fence(connection: EtcdConnection) -> None:
    inside = 0
    fences: list[int] = []

    async def work() -> None:
        nonlocal inside
        async with EtcdLock(connection, "work", ttl=5.0).held() as held:
            inside += 1
            assert inside == 1
            fences.append(held.fence)
            await asyncio.sleep(0.05)
            inside -= 1

    await asyncio.wait_for(asyncio.gather(*(work() for _ in range(4))), 60)
    assert (len(fences), fences) == (4, sorted(set(fences)))


async def test_a_holder_that_lost_its_lease_learns_it_and_cannot_write(connection: EtcdConnection) -> None:
    async with EtcdLock(connection, "work", ttl=3.0).held() as first:
        assert await write(connection, first, b"first")
        [pair] = (await connection.call("KV", "Range", rpc.RangeRequest(key=first.key))).kvs
        await connection.call("Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=pair.lease))  # as if it had run out
        async with EtcdLock(connection, "work", ttl=3.0).held() as second:
            assert second.fence > first.fence
            assert not await write(connection, first, b"late")
            assert await write(connection, second, b"second")
            await asyncio.wait_for(first.lost.wait(), 30)
            assert not second.lost.is_set()
