"""What somebody else has written below the registry's prefix in etcd is passed over, and everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aetcd import rpc

from lbcore.directory import Directory
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.model import Endpoint
from lbcore.registration import Announcement, RegistrySettings
from lbcore.registry.etcd.registry import EtcdRegistry
from tests.harness.etcd import Etcd, needs_etcd

pytestmark = needs_etcd

LIMIT = 20.0  # seconds
KEYS = (
    "leases/0000000000000001",
    "endpoints/web/10.9.9.9%3A80",
    "health/members/other",
    "health/verdicts/other/web/10.9.9.9%3A80",
    "loads/web/10.9.9.9%3A80",
)
NO_TEXT = (
    b'{"services": {"\xff": ""}}',
    b'{"reason": "\xff"}',
    b'{"named_metrics": {"\xff": 1}}',
)  # of each kind of value
VALUES = (b"", b"\xff", b'"\xff"', b"null", b"[]", b'{"services": 3}', b"{", *NO_TEXT)


async def test_malformed_values_end_nothing(
    etcd: Etcd, connection: EtcdConnection, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory()
    address = EtcdAddress.parse(f"etcd://{etcd.address}/shop")
    registry = EtcdRegistry(directory, address, RegistrySettings(debounce=0.01))
    registry.open()
    running = asyncio.ensure_future(registry.run())

    async def until(condition: Callable[[], object]) -> None:
        deadline = asyncio.get_running_loop().time() + LIMIT
        while not condition():
            assert not running.done(), running
            assert asyncio.get_running_loop().time() < deadline, addresses()
            await asyncio.sleep(0.01)

    def addresses() -> set[str]:
        service = directory.current.services.get("web")
        return {each.address for each in service.endpoints} if service else set()

    try:
        await until(lambda: directory.synced)
        for number, value in enumerate(VALUES, 1):
            for key in KEYS:
                await connection.call("KV", "Put", rpc.PutRequest(key=f"/shop/{key}".encode(), value=value))
            good = f"10.0.0.{number}:80"
            await registry.register(0, 60.0, [Announcement("web", Endpoint(good))], 1)
            await until(lambda good=good: good in addresses())  # type: ignore[misc]
        assert len(addresses()) == len(VALUES)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await registry.close()
    assert "in etcd is no server that checks" in caplog.text
    assert "in etcd is no verdict" in caplog.text
    assert "in etcd is none" in caplog.text
