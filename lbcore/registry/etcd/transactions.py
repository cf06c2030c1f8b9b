"""Transactions that wait at the same time are made as one: etcd takes as long for one change as for a hundred.

The one holds only if each of them would. Where it does not, each is made by itself: none fails for another's sake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from aetcd import rpc

from lbcore.etcd.connection import EtcdConnection

__all__ = ["MOST_OPERATIONS", "Transactions"]

MOST_OPERATIONS = 100  # comparisons, or operations, in a transaction; etcd takes 128 by default
_FULL = 64  # so many are not worth a wait for more
_AT_ONCE = 16  # full transactions under way: enough to keep etcd busy
_SMALL_AT_ONCE = 2  # others: what comes meanwhile goes together


class _Waiting(NamedTuple):
    transaction: Any
    response: asyncio.Future[Any]


class Transactions:
    """Makes transactions through a connection."""

    def __init__(self, connection: EtcdConnection) -> None:
        self._connection = connection
        self._waiting: deque[_Waiting] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def make(self, transaction: Any) -> Any:
        """etcd's response to a `rpc.TxnRequest`. Raises `StoreFailed`."""
        response: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(transaction, response))
        self._begin()
        return await response

    def _begin(self) -> None:
        while self._waiting:
            full = len(self._waiting[0].transaction.compare) >= _FULL
            if len(self._under_way) >= (_AT_ONCE if full else _SMALL_AT_ONCE):
                return
            making = asyncio.ensure_future(self._make(self._take_group()))
            self._under_way.add(making)
            making.add_done_callback(self._ended)

    def _ended(self, made: asyncio.Task[None]) -> None:
        self._under_way.discard(made)
        self._begin()

    def _take_group(self) -> list[_Waiting]:
        """Takes those that come first and fit into one transaction, in which each key is written once."""
        group: list[_Waiting] = []
        size, written = 0, set[bytes]()
        while self._waiting:
            transaction = self._waiting[0].transaction
            keys = {compare.key for compare in transaction.compare if compare.target == rpc.Compare.MOD}
            size += len(transaction.compare)
            if group and (size > MOST_OPERATIONS or not written.isdisjoint(keys)):
                break
            written |= keys
            group.append(self._waiting.popleft())
        return group

    async def _make(self, group: Sequence[_Waiting]) -> None:
        with _failing(group):
            if len(group) > 1 and (response := await self._call(_merged(group))).succeeded:
                for each in group:
                    _answer(each, response)
            else:
                await asyncio.gather(*map(self._make_alone, group))

    async def _make_alone(self, waiting: _Waiting) -> None:
        with _failing([waiting]):
            _answer(waiting, await self._call(waiting.transaction))

    async def _call(self, transaction: Any) -> Any:
        return await self._connection.call("KV", "Txn", transaction)


def _merged(group: Sequence[_Waiting]) -> Any:
    merged = rpc.TxnRequest()
    for each in group:
        merged.MergeFrom(each.transaction)
    del merged.failure[:]  # what to look at is asked of each
    return merged


def _answer(waiting: _Waiting, response: Any) -> None:
    if not waiting.response.done():  # else nobody waits any more
        waiting.response.set_result(response)


@contextmanager
def _failing(group: Sequence[_Waiting]) -> Iterator[None]:
    """Whatever goes wrong is told to all who wait."""
    try:
        yield
    except asyncio.CancelledError:
        for each in group:
            each.response.cancel()
        raise
    except Exception as wrong:
        for each in group:
            if not each.response.done():
                each.response.set_exception(wrong)
