"""A server of the registry in etcd, on the test's own loop and without its port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from lbcore.directory import Directory
from lbcore.etcd.address import EtcdAddress
from lbcore.model import Endpoint
from lbcore.registration import Announcement, Key, RegistrySettings
from lbcore.registry.etcd.memory import RegistryMemory
from lbcore.registry.etcd.registry import EtcdRegistry

__all__ = ["ONE", "TTL", "WEB", "Server", "Start", "of", "until"]

ONE = "10.0.0.1:80"
WEB = Key("web", ONE)
TTL = 60.0  # longer than any test


def of(*addresses: str, service: str = "web", weight: int = 1) -> list[Announcement]:
    return [Announcement(service, Endpoint(address, weight=weight)) for address in addresses]


async def until(condition: Callable[[], object], what: str, limit: float = 30.0) -> None:
    deadline = asyncio.get_running_loop().time() + limit
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {limit:g} s"
        await asyncio.sleep(0.01)


class Server:
    """One server of the registry, without its port."""

    def __init__(self, address: EtcdAddress, memory: RegistryMemory | None = None) -> None:
        self.directory = Directory()
        self.late = 0.0  # seconds by which its clock is ahead
        settings = RegistrySettings(debounce=0.01, initial_fetch_timeout=0.2)
        self.registry = EtcdRegistry(
            self.directory, address, settings, lambda: time.monotonic() + self.late, memory=memory
        )

    async def __aenter__(self) -> Server:
        self.registry.open()
        self._running = asyncio.ensure_future(self.registry.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self.registry.close()

    async def synced(self) -> Server:
        await until(lambda: self.directory.synced, "the first list")
        return self

    def addresses(self, service: str = "web") -> set[str]:
        snapshot = self.directory.current.services.get(service)
        return {each.address for each in snapshot.endpoints} if snapshot else set()


Start = Callable[[], "asyncio.Future[Server]"]
