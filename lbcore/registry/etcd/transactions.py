"""Writes that wait at the same time go into etcd as one transaction: it takes as long for one change as for a hundred.

The one holds only if each of them would. Where it does not, each is made by itself: none fails for another's sake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from aetcd import rpc

from lbcore.errors import StoreFailed
from lbcore.etcd.connection import EtcdConnection

__all__ = ["MOST_BYTES", "MOST_WRITES", "PACE", "Guard", "Made", "Transactions", "Write", "size_of"]

MOST_WRITES = 100  # in a transaction
_MOST_COMPARISONS = 128  # of writes and guards: etcd's --max-txn-ops where nobody says otherwise
MOST_BYTES = 1_000_000  # in a transaction of several writes; etcd's --max-request-bytes are 1.5 MiB
_FRAME = 50  # bytes around a write's key and value, at most
_FULL = 64  # writes that are not worth a wait for more
_AT_ONCE = 16  # full transactions under way: enough to keep etcd busy
_SMALL_AT_ONCE = 2  # others: what comes meanwhile goes together
PACE = 0.003  # seconds between the beginnings of two of them; the first after a pause is immediate

_CREATE, _MOD = rpc.Compare.CREATE, rpc.Compare.MOD
_EQUAL, _GREATER = rpc.Compare.EQUAL, rpc.Compare.GREATER


class Guard(NamedTuple):
    """What must be so beside the written keys themselves: that another key is there, or that it is not."""

    key: bytes
    there: bool = True


class Write(msgspec.Struct, frozen=True, gc=False):
    """A key that is put under a lease (0 is none), or deleted where `value` is None, if `modified` is the revision of
    its last change (0 where there must be no such key)."""

    key: bytes
    modified: int
    value: bytes | None
    lease: int = 0


class Made(NamedTuple):
    """What became of writes: made at a revision, or not (0), and then whether the guard held."""

    revision: int
    guarded: bool = True


class _Waiting(NamedTuple):
    guard: Guard
    writes: Sequence[Write]
    made: asyncio.Future[Made]


def size_of(writes: Sequence[Write]) -> int:
    """The bytes that writes take in a transaction, or a few more."""
    return sum(_FRAME + 2 * len(write.key) + len(write.value or b"") for write in writes)


class Transactions:
    """Makes transactions through a connection."""

    def __init__(self, connection: EtcdConnection) -> None:
        self._connection = connection
        self._waiting: deque[_Waiting] = deque()
        self._writes = 0  # in what waits
        self._under_way: set[asyncio.Task[None]] = set()
        self._earliest = 0.0  # when the next small transaction may begin
        self._later: asyncio.TimerHandle | None = None

    async def make(self, guard: Guard, writes: Sequence[Write]) -> Made:
        """Makes all of these writes, at most `MOST_WRITES` and each of another key, or none. Raises `StoreFailed`."""
        made: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(guard, writes, made))
        self._writes += len(writes)
        self._begin()
        return await made

    def _begin(self) -> None:
        while self._waiting:
            full = self._writes >= _FULL
            if len(self._under_way) >= (_AT_ONCE if full else _SMALL_AT_ONCE):
                return
            loop = asyncio.get_running_loop()
            now = loop.time()
            if not full and now < self._earliest:
                if self._later is None:
                    self._later = loop.call_at(self._earliest, self._begin_later)
                return
            if group := self._take_group():
                self._earliest = now + PACE
                making = asyncio.ensure_future(self._make(group))
                self._under_way.add(making)
                making.add_done_callback(self._ended)

    def _begin_later(self) -> None:
        self._later = None
        self._begin()

    def _ended(self, made: asyncio.Task[None]) -> None:
        self._under_way.discard(made)
        self._begin()

    def _take_group(self) -> list[_Waiting]:
        """Takes those that come first and fit into one transaction, in which each key is written once."""
        group: list[_Waiting] = []
        guards, written, size = set[Guard](), set[bytes](), 0
        while self._waiting:
            guard, writes, made = self._waiting[0]
            if made.done():  # whoever asked for it was cancelled, and is not to have it made later
                self._writes -= len(writes)
                self._waiting.popleft()
                continue
            size += size_of(writes)
            guards.add(guard)
            count = len(written) + len(writes)
            full = count > MOST_WRITES or len(guards) + count > _MOST_COMPARISONS or size > MOST_BYTES
            if group and (full or any(write.key in written for write in writes)):
                break
            written.update(write.key for write in writes)
            self._writes -= len(writes)
            group.append(self._waiting.popleft())
        return group

    async def _make(self, group: Sequence[_Waiting]) -> None:
        with _failing(group):
            if len(group) > 1 and (made := await self._call_together(group)).revision:
                for each in group:
                    _answer(each, made)
            else:
                await asyncio.gather(*map(self._make_alone, group))

    async def _make_alone(self, waiting: _Waiting) -> None:
        with _failing([waiting]):
            _answer(waiting, await self._call([waiting]))

    async def _call_together(self, group: Sequence[_Waiting]) -> Made:
        try:
            return await self._call(group)
        except StoreFailed as wrong:
            if "lease not found" in str(wrong):  # of one of them
                return Made(0)
            raise

    async def _call(self, group: Sequence[_Waiting]) -> Made:
        response = await self._connection.call("KV", "Txn", _request(group))
        if response.succeeded:
            return Made(response.header.revision)
        [guarding] = response.responses
        return Made(0, bool(guarding.response_range.kvs) is group[0].guard.there)


def _request(group: Sequence[_Waiting]) -> Any:
    """The transaction of a group; where it does not hold, it looks at the first one's guard."""
    request = rpc.TxnRequest()
    compare, succeed = request.compare.add, request.success.add
    for guard in dict.fromkeys(waiting.guard for waiting in group):
        compare(key=guard.key, target=_CREATE, result=_GREATER if guard.there else _EQUAL, create_revision=0)
    for waiting in group:
        for write in waiting.writes:  # thousands a second: as little as can be for each
            comparison = compare()  # EQUAL, which is the default
            comparison.key, comparison.target, comparison.mod_revision = write.key, _MOD, write.modified
            operation = succeed()
            if write.value is None:
                operation.request_delete_range.key = write.key
                continue
            put = operation.request_put
            put.key, put.value = write.key, write.value
            if write.lease:
                put.lease = write.lease
    request.failure.add().request_range.key = group[0].guard.key
    return request


def _answer(waiting: _Waiting, made: Made) -> None:
    if not waiting.made.done():  # else nobody waits any more
        waiting.made.set_result(made)


@contextmanager
def _failing(group: Sequence[_Waiting]) -> Iterator[None]:
    """Whatever goes wrong is told to all who wait."""
    try:
        yield
    except asyncio.CancelledError:
        for each in group:
            each.made.cancel()
        raise
    except Exception as wrong:
        for each in group:
            if not each.made.done():
                each.made.set_exception(wrong)
