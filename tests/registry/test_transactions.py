"""Transactions in a real etcd that wait at the same time: made together, and none fails for another's sake."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed
from lbcore.etcd.connection import EtcdConnection
from lbcore.registry.etcd.transactions import Transactions
from tests.harness.etcd import Etcd, needs_etcd

pytestmark = needs_etcd


def put(*keys: str, value: str = "1", modified: int = 0) -> Any:
    """Writes keys that are as of a revision; else looks at the first."""
    transaction = rpc.TxnRequest()
    for key in keys:
        equal = {"target": rpc.Compare.MOD, "result": rpc.Compare.EQUAL, "mod_revision": modified}
        transaction.compare.add(key=key.encode(), **equal)
        operation = transaction.success.add().request_put
        operation.key, operation.value = key.encode(), value.encode()
    transaction.failure.add().request_range.key = keys[0].encode()
    return transaction


async def test_what_waits_at_the_same_time_is_made_at_the_same_revision(connection: EtcdConnection, etcd: Etcd) -> None:
    transactions = Transactions(connection)
    made = await asyncio.gather(*(transactions.make(put(f"k{n}")) for n in range(100)))
    assert all(response.succeeded for response in made)
    assert len({response.header.revision for response in made}) < 10
    assert etcd.content() == {f"k{n}": "1" for n in range(100)}


async def test_one_that_does_not_hold_fails_alone_and_is_told_why(connection: EtcdConnection, etcd: Etcd) -> None:
    etcd.put("k7", "theirs")
    transactions = Transactions(connection)
    made = await asyncio.gather(*(transactions.make(put(f"k{n}")) for n in range(10)))
    assert [response.succeeded for response in made] == [n != 7 for n in range(10)]
    [found] = made[7].responses[0].response_range.kvs
    assert (found.value, etcd.content()["k7"]) == (b"theirs", "theirs")


async def test_of_two_that_write_the_same_the_second_sees_the_first(connection: EtcdConnection, etcd: Etcd) -> None:
    transactions = Transactions(connection)
    made = await asyncio.gather(*(transactions.make(put("k", value=str(n))) for n in range(5)))
    assert [response.succeeded for response in made].count(True) == 1
    assert etcd.content() == {"k": str(next(n for n, response in enumerate(made) if response.succeeded))}


async def test_large_and_small_ones_are_all_made(connection: EtcdConnection, etcd: Etcd) -> None:
    transactions = Transactions(connection)
    sizes = [128, 1, 100, 28, 29, 1, 127, 64, 64, 3]
    asked = [put(*(f"{place}/{n}" for n in range(size))) for place, size in enumerate(sizes)]
    made = await asyncio.gather(*map(transactions.make, asked))
    assert all(response.succeeded for response in made)
    assert len(etcd.content()) == sum(sizes)


async def test_an_outage_fails_all_that_wait(connection: EtcdConnection, etcd: Etcd) -> None:
    transactions = Transactions(connection)
    etcd.kill()
    made = await asyncio.gather(*(transactions.make(put(f"k{n}")) for n in range(200)), return_exceptions=True)
    assert {type(each) for each in made} == {StoreFailed}


async def test_any_failure_reaches_who_waits(connection: EtcdConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Any:
        raise InvalidSetting("ca_file: cannot be read")

    monkeypatch.setattr(connection, "call", broken)
    transactions = Transactions(connection)
    waiting = [asyncio.ensure_future(transactions.make(put(key))) for key in "ab"]
    done, pending = await asyncio.wait(waiting, timeout=20)
    assert (len(done), [type(each.exception()) for each in done]) == (2, [InvalidSetting] * 2), pending


async def test_nobody_waits_for_a_connection_that_is_closed(connection: EtcdConnection, etcd: Etcd) -> None:
    transactions = Transactions(connection)
    await transactions.make(put("before"))
    etcd.stop_the_clock()
    waiting = [asyncio.ensure_future(transactions.make(put(key))) for key in "abcde"]
    await asyncio.sleep(0.05)  # so that some are under way
    await connection.close()
    _, pending = await asyncio.wait(waiting, timeout=20)
    assert not pending
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, StoreFailed | asyncio.CancelledError) for each in ended), ended
