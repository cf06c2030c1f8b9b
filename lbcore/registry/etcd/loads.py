"""What agents report of their load, shared among the servers: each hears its own agents, and all show all.

    PREFIX/loads/SERVICE/ADDRESS    the newest report

Load changes by the second and nobody decides by it here, so it is written seldom, many reports in one transaction, and
never so many that they would be in the way of registrations. It is under a short lease, so what is not reported again
goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed
from lbcore.etcd.connection import EtcdConnection
from lbcore.etcd.following import Pair, Step
from lbcore.model import LoadReport
from lbcore.registration import Key
from lbcore.registry.etcd.leases import EtcdLeases
from lbcore.registry.etcd.transactions import MOST_BYTES

__all__ = ["SharedLoads"]

logger = logging.getLogger(__name__)

_INTERVAL = 2.0  # seconds between two writes
_MOST, _BATCH = 1000, 100  # reports a write, and a transaction; etcd takes 128 operations in one


class SharedLoads:
    """Keeps `loads` as the servers have heard them. `open` first, `run` until cancelled."""

    def __init__(self, prefix: str, loads: dict[Key, LoadReport]) -> None:
        self._loads = loads
        self._prefix = f"{prefix}/loads/".encode()
        self._unsaid: dict[Key, LoadReport] = {}

    def open(self, connection: EtcdConnection, leases: EtcdLeases) -> None:
        """Uses these from now on."""
        self._connection = connection
        self._leases = leases

    def hear(self, key: Key, load: LoadReport) -> None:
        """Takes a report of an agent of this server."""
        if self._loads.get(key) != load:
            self._loads[key] = load
        self._unsaid[key] = load

    def apply(self, step: Step) -> None:
        """Takes a step of a follower of all keys of the registry."""
        for raw, pair in step.changes.items():
            if raw.startswith(self._prefix):
                service, slash, address = raw[len(self._prefix) :].decode(errors="replace").partition("/")
                if slash:
                    self._take(Key(unquote(service), unquote(address)), pair)

    async def run(self) -> None:
        """Writes what has been heard, for ever."""
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self._say()
            except StoreFailed as wrong:
                logger.debug("load is not shared now: %s", wrong)

    async def _say(self) -> None:
        some = {key: self._unsaid.pop(key) for key in list(islice(self._unsaid, _MOST))}
        if not some:
            return
        lease = await self._leases.for_tombstones()
        for batch in _batches(self._put(key, load, lease) for key, load in some.items()):
            await self._connection.call("KV", "Txn", rpc.TxnRequest(success=batch))

    def _put(self, key: Key, load: LoadReport, lease: int) -> Any:
        raw = self._prefix + f"{quote(key.service, safe='')}/{quote(key.address, safe='')}".encode()
        return rpc.RequestOp(request_put=rpc.PutRequest(key=raw, value=msgspec.json.encode(load), lease=lease))

    def _take(self, key: Key, pair: Pair | None) -> None:
        if key in self._unsaid:
            return  # what this server has heard meanwhile is newer
        if pair is None:
            self._loads.pop(key, None)
            return
        try:
            self._loads[key] = msgspec.json.decode(pair.value, type=LoadReport)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidSetting) as wrong:
            logger.error("the load of %s in etcd is none: %s", key.address, wrong)


def _batches(puts: Iterable[Any]) -> Iterator[list[Any]]:
    """As many in each as a transaction takes."""
    batch: list[Any] = []
    size = 0
    for put in puts:
        if (more := put.ByteSize()) > MOST_BYTES:  # etcd would not take it, and the others are not to wait for it
            continue
        if batch and (len(batch) == _BATCH or size + more > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(put)
        size += more
    if batch:
        yield batch
