"""A server's membership of the board, with an etcd that says what the test wants of its lease."""

from __future__ import annotations

import asyncio
from typing import Any

from async_timeout import timeout as time_limit

from lbcore.etcd.following import Step
from lbcore.registration import RegistrySettings
from lbcore.registry.etcd.board import EtcdBoard

LIMIT = 20.0  # seconds


class Leases:
    """Grants leases; the first is gone when it is to be kept, and the second stays."""

    def __init__(self) -> None:
        self.granted = 0
        self.kept: list[int] = []
        self.granted_anew = asyncio.Event()

    async def grant(self, _: float) -> int:
        self.granted += 1
        if self.granted == 2:
            self.granted_anew.set()
        return self.granted

    async def keep(self, lease: int) -> bool:
        self.kept.append(lease)
        return lease > 1

    async def revoke(self, _: int) -> None: ...


class Connection:
    async def call(self, *_: object) -> None: ...


async def test_a_server_whose_lease_has_run_out_joins_anew_at_once() -> None:
    leases: Any = Leases()
    connection: Any = Connection()
    board = EtcdBoard("/lbcore", RegistrySettings(checker_ttl=2.0))
    board.open(connection, leases)
    board.offer({"web": "as it is"})
    board.apply(Step(1, {}))
    running = asyncio.ensure_future(board.run())
    try:
        async with time_limit(LIMIT):
            await leases.granted_anew.wait()
        assert leases.kept == [1], "once it is known to be gone, nobody asks for it again"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
