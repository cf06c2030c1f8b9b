"""A change of registrations in etcd, made only if nothing newer was: compare, then write, in one transaction.

What to write is decided from what this server knows; the transaction holds only if that is still so, and is decided
anew from what etcd answers where it is not. So it does not matter through which server a request comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed, UnknownLease
from lbcore.etcd.connection import EtcdConnection
from lbcore.registration import Key
from lbcore.registry.etcd.records import Keys, Record, decode_record, encode_record
from lbcore.registry.etcd.transactions import MOST_BYTES, MOST_WRITES, Guard, Transactions, Write, size_of
from lbcore.registry.etcd.view import View

__all__ = ["Decision", "Writer"]

_ATTEMPTS = 20


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What is to become of a registration: `record` is written (or, where it is None, the key deleted) if `write`.

    `sure`: that nothing is written holds whatever is there now, and not only what this server has read so far.
    """

    write: bool
    record: Record | None = None
    superseded: bool = False
    sure: bool = False


Decide = Callable[[Key, Record | None], Decision]


class Writer:
    """Writes through one connection, from what `view` knows."""

    def __init__(self, connection: EtcdConnection, keys: Keys, view: View) -> None:
        self._connection = connection
        self._keys = keys
        self._view = view
        self._transactions = Transactions(connection)

    async def write(
        self, lease: int, keys: Iterable[Key], decide: Decide, *, tombstones: int = 0, alive: bool = True
    ) -> tuple[int, list[Key]]:
        """Changes registrations; returns the revision of it, and the keys that were superseded.

        `alive`: only while the lease's key is there, else (`UnknownLease` is raised in the first case) only while it is
        not. Records that are withdrawn are put under the lease `tombstones`. Raises `StoreFailed`.
        """
        remaining = iter(keys)
        batches = list(iter(lambda: list(islice(remaining, MOST_WRITES)), []))
        writing = _Writing(Guard(self._keys.lease(lease), alive), lease, decide, tombstones)
        return await self._write_each(writing, batches)

    async def _write_each(self, writing: _Writing, batches: Sequence[Sequence[Key]]) -> tuple[int, list[Key]]:
        if len(batches) == 1:
            return await self._write_batch(writing, batches[0])
        begun = [self._write_batch(writing, batch) for batch in batches]
        written = await asyncio.gather(*begun, return_exceptions=True)
        revision = 0
        superseded: list[Key] = []
        for each in written:
            if isinstance(each, BaseException):
                raise each
            revision = max(revision, each[0])
            superseded += each[1]
        return revision, superseded

    async def _write_batch(self, writing: _Writing, batch: Sequence[Key]) -> tuple[int, list[Key]]:
        read: dict[Key, tuple[Record | None, int]] = {}  # of those that were not as this server knew them
        for _ in range(_ATTEMPTS):
            superseded: list[Key] = []
            changes: dict[Key, Write] = {}
            doubtful: list[Key] = []
            for key in batch:
                record, modified = read[key] if key in read else self._view.known(key)
                decision = writing.decide(key, record)
                if decision.superseded:
                    superseded.append(key)
                if decision.write:
                    changes[key] = self._write(key, modified, decision.record, writing.tombstones)
                elif not decision.sure and key not in read:
                    doubtful.append(key)
            writes = list(changes.values())
            if doubtful:  # what is written is compared; what is not may only be so because this server lags behind
                self._view.expect_no_more(writes)
                read |= await self._read(doubtful)
                continue
            if not writes:
                return 0, superseded
            if len(batch) > 1 and size_of(writes) > MOST_BYTES:
                self._view.expect_no_more(writes)
                middle = len(batch) // 2
                return await self._write_each(writing, [batch[:middle], batch[middle:]])
            try:
                made = await self._transactions.make(writing.guard, writes)
            except BaseException:
                self._view.expect_no_more(writes)
                raise
            if made.revision:
                return made.revision, superseded
            self._view.expect_no_more(writes)
            if not made.guarded:
                if writing.guard.there:
                    raise UnknownLease(f"lease {writing.lease}: unknown here, or it has run out")
                return 0, superseded
            read |= await self._read(list(changes))
        raise StoreFailed(f"{len(batch)} registrations changed too often to be written")

    def _write(self, key: Key, modified: int, record: Record | None, tombstones: int) -> Write:
        raw = self._keys.endpoint(key)
        if record is None:
            return Write(raw, modified, None)
        write = Write(raw, modified, encode_record(record), tombstones if record.withdrawn else 0)
        self._view.expect(write, key, record)
        return write

    async def _read(self, keys: Sequence[Key]) -> dict[Key, tuple[Record | None, int]]:
        """Registrations as etcd has them now, each with the revision of its last change; 0 where there is none."""
        transaction = rpc.TxnRequest()
        for key in keys:
            transaction.success.add().request_range.key = self._keys.endpoint(key)
        response = await self._connection.call("KV", "Txn", transaction)
        answers = (each.response_range.kvs for each in response.responses)
        return {key: _found(key, pairs) for key, pairs in zip(keys, answers, strict=True)}


class _Writing(NamedTuple):
    """One request of many keys."""

    guard: Guard
    lease: int
    decide: Decide
    tombstones: int


def _found(key: Key, pairs: Sequence[Any]) -> tuple[Record | None, int]:
    if not pairs:
        return None, 0
    try:
        return decode_record(key, pairs[0].value), pairs[0].mod_revision
    except InvalidSetting:  # somebody else's, and to be overwritten
        return None, pairs[0].mod_revision
