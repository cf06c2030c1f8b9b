"""A connection to the etcd of a test, and servers of the registry in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from tests.harness.etcd import Etcd
from tests.registry.etcd_server import Server


@pytest.fixture
async def connection(etcd: Etcd) -> AsyncIterator[EtcdConnection]:
    opened = EtcdConnection(EtcdAddress.parse(f"etcd://{etcd.address}/lbcore"))
    yield opened
    await opened.close()


@pytest.fixture
async def start(etcd: Etcd) -> AsyncIterator[Callable[[], object]]:
    """`await start()`: a server that has read everything."""
    async with AsyncExitStack() as running:

        async def one() -> Server:
            address = EtcdAddress.parse(f"etcd://{etcd.address}/lbcore/v1")
            return await (await running.enter_async_context(Server(address))).synced()

        yield one
