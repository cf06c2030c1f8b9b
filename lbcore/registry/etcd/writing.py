"""A change of registrations in etcd, made only if nothing newer was: compare, then write, in one transaction.

What to write is decided from what this server knows; the transaction holds only if that is still so, and is decided
anew from what etcd answers where it is not. So it does not matter through which server a request comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed, UnknownLease
from lbcore.etcd.connection import EtcdConnection
from lbcore.registration import Key
from lbcore.registry.etcd.records import Keys, Record, decode_record, encode_record
from lbcore.registry.etcd.view import View

__all__ = ["Decision", "Writer"]

_BATCH = 99  # registrations a transaction; one more operation looks at the lease. etcd takes 128
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

    async def write(
        self, lease: int, keys: Iterable[Key], decide: Decide, *, tombstones: int = 0, alive: bool = True
    ) -> tuple[int, list[Key]]:
        """Changes registrations; returns the revision of it, and the keys that were superseded.

        `alive`: only while the lease's key is there, else (`UnknownLease` is raised in the first case) only while it is
        not. Records that are withdrawn are put under the lease `tombstones`. Raises `StoreFailed`.
        """
        revision = 0
        superseded: list[Key] = []
        remaining = iter(keys)
        while batch := list(islice(remaining, _BATCH)):
            newest, refused = await self._write_batch(lease, batch, decide, tombstones, alive)
            revision = max(revision, newest)
            superseded += refused
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
            response = await self._connection.call(
                "KV", "Txn", self._transaction(lease, known, decisions, tombstones, alive)
            )
            if response.succeeded:
                return response.header.revision, superseded
            lease_found, *answers = (each.response_range for each in response.responses)
            if bool(lease_found.kvs) is not alive:
                if alive:
                    raise UnknownLease(f"lease {lease}: unknown here, or it has run out")
                return 0, superseded
            written = [key for key, decision in decisions.items() if decision.write]
            known |= {key: _read(key, answer.kvs) for key, answer in zip(written, answers, strict=True)}
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
        compare = [
            rpc.Compare(
                key=lease_key,
                target=rpc.Compare.CREATE,
                result=rpc.Compare.GREATER if alive else rpc.Compare.EQUAL,
                create_revision=0,
            )
        ]
        success: list[Any] = []
        failure = [rpc.RequestOp(request_range=rpc.RangeRequest(key=lease_key))]
        for key, decision in decisions.items():
            if not decision.write:
                continue
            raw = self._keys.endpoint(key)
            modified = known[key][1]
            compare.append(
                rpc.Compare(key=raw, target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=modified)
            )
            success.append(_operation(raw, decision.record, tombstones))
            failure.append(rpc.RequestOp(request_range=rpc.RangeRequest(key=raw)))
        return rpc.TxnRequest(compare=compare, success=success, failure=failure)


def _read(key: Key, pairs: Sequence[Any]) -> tuple[Record | None, int]:
    """A registration as etcd has it, and the revision of its last change; 0 where there is none."""
    if not pairs:
        return None, 0
    try:
        return decode_record(key, pairs[0].value), pairs[0].mod_revision
    except InvalidSetting:  # somebody else's, and to be overwritten
        return None, pairs[0].mod_revision


def _operation(raw: bytes, record: Record | None, tombstones: int) -> Any:
    if record is None:
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=raw))
    lease = tombstones if record.withdrawn else 0
    return rpc.RequestOp(request_put=rpc.PutRequest(key=raw, value=encode_record(record), lease=lease))
