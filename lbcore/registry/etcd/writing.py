"""A change of registrations in etcd, made only if nothing newer was: compare, then write, in one transaction.

What to write is decided from what this server knows; the transaction holds only if that is still so, and is decided
anew from what etcd answers where it is not. So it does not matter through which server a request comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed, UnknownLease
from lbcore.etcd.connection import EtcdConnection
from lbcore.registration import Key
from lbcore.registry.etcd.records import Keys, Record, decode_record, encode_record
from lbcore.registry.etcd.transactions import MOST_OPERATIONS, Transactions
from lbcore.registry.etcd.view import View

__all__ = ["Decision", "Writer"]

_BATCH = MOST_OPERATIONS - 1  # registrations a transaction; one more comparison looks at the lease
_ATTEMPTS = 20


class Decision(NamedTuple):
    """What is to become of a registration: `record` is written (or, where it is None, the key deleted) if `write`."""

    write: bool
    record: Record | None = None
    superseded: bool = False


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
        batches = list(iter(lambda: list(islice(remaining, _BATCH)), []))
        if len(batches) == 1:
            return await self._write_batch(lease, batches[0], decide, tombstones, alive)
        writing = [self._write_batch(lease, batch, decide, tombstones, alive) for batch in batches]
        written = await asyncio.gather(*writing, return_exceptions=True)
        revision = 0
        superseded: list[Key] = []
        for each in written:
            if isinstance(each, BaseException):
                raise each
            revision = max(revision, each[0])
            superseded += each[1]
        return revision, superseded

    async def _write_batch(
        self, lease: int, batch: list[Key], decide: Decide, tombstones: int, alive: bool
    ) -> tuple[int, list[Key]]:
        known = {key: (self._view.records.get(key), self._view.modified(key)) for key in batch}
        for _ in range(_ATTEMPTS):
            decisions = {key: decide(key, record) for key, (record, _) in known.items()}
            superseded = [key for key, decision in decisions.items() if decision.superseded]
            if not any(decision.write for decision in decisions.values()):
                return 0, superseded
            transaction = self._transaction(lease, known, decisions, tombstones, alive)
            try:
                response = await self._transactions.make(transaction)
            except BaseException:
                self._view.expect_no_more(batch)
                raise
            if response.succeeded:
                return response.header.revision, superseded
            self._view.expect_no_more(batch)
            [lease_found] = response.responses
            if bool(lease_found.response_range.kvs) is not alive:
                if alive:
                    raise UnknownLease(f"lease {lease}: unknown here, or it has run out")
                return 0, superseded
            known |= await self._read([key for key, decision in decisions.items() if decision.write])
        raise StoreFailed(f"{len(batch)} registrations changed too often to be written")

    def _transaction(
        self,
        lease: int,
        known: Mapping[Key, tuple[Record | None, int]],
        decisions: Mapping[Key, Decision],
        tombstones: int,
        alive: bool,
    ) -> Any:
        lease_key = self._keys.lease(lease)
        transaction = rpc.TxnRequest(failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=lease_key))])
        transaction.compare.add(
            key=lease_key,
            target=rpc.Compare.CREATE,
            result=rpc.Compare.GREATER if alive else rpc.Compare.EQUAL,
            create_revision=0,
        )
        for key, decision in decisions.items():
            if not decision.write:
                continue
            raw = self._keys.endpoint(key)
            modified = known[key][1]
            transaction.compare.add(key=raw, target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=modified)
            operation = transaction.success.add()
            if (record := decision.record) is None:
                operation.request_delete_range.key = raw
                continue
            put = operation.request_put
            put.key, put.value, put.lease = raw, encode_record(record), tombstones if record.withdrawn else 0
            self._view.expect(key, put.value, record)
        return transaction

    async def _read(self, keys: Sequence[Key]) -> dict[Key, tuple[Record | None, int]]:
        """Registrations as etcd has them now, each with the revision of its last change; 0 where there is none."""
        transaction = rpc.TxnRequest()
        for key in keys:
            transaction.success.add().request_range.key = self._keys.endpoint(key)
        response = await self._connection.call("KV", "Txn", transaction)
        answers = (each.response_range.kvs for each in response.responses)
        return {key: _found(key, pairs) for key, pairs in zip(keys, answers, strict=True)}


def _found(key: Key, pairs: Sequence[Any]) -> tuple[Record | None, int]:
    if not pairs:
        return None, 0
    try:
        return decode_record(key, pairs[0].value), pairs[0].mod_revision
    except InvalidSetting:  # somebody else's, and to be overwritten
        return None, pairs[0].mod_revision
