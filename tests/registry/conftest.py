"""A connection to the etcd of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from tests.harness.etcd import Etcd


@pytest.fixture
async def connection(etcd: Etcd) -> AsyncIterator[EtcdConnection]:
    opened = EtcdConnection(EtcdAddress.parse(f"etcd://{etcd.address}/lbcore"))
    yield opened
    await opened.close()
