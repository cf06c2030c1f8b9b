"""Writes to a real etcd that wait at the same time: made together, and none fails for another's sake."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aetcd import rpc

from lbcore.errors import InvalidSetting, StoreFailed
from lbcore.etcd.address import EtcdAddress
from lbcore.etcd.connection import EtcdConnection
from lbcore.registry.etcd.transactions import MOST_WRITES, PACE, Guard, Made, Transactions, Write
from tests.harness.etcd import Etcd, needs_etcd

pytestmark = needs_etcd

GUARD, NOBODY = Guard(b"guard"), Guard(b"nobody")


@pytest.fixture
def transactions(connection: EtcdConnection, etcd: Etcd) -> Transactions:
    """Transactions in an etcd that has the key of `GUARD`."""
    etcd.put("guard", "here")
    return Transactions(connection)


def put(*keys: str, value: str = "1", modified: int = 0) -> list[Write]:
    """Writes keys that are as of a revision."""
    return [Write(key.encode(), modified, value.encode()) for key in keys]


def content(etcd: Etcd) -> dict[str, str]:
    """What is in etcd beside the guard."""
    return {key: value for key, value in etcd.content().items() if key != "guard"}


async def test_what_waits_at_the_same_time_is_made_at_the_same_revision(transactions: Transactions, etcd: Etcd) -> None:
    made = await asyncio.gather(*(transactions.make(GUARD, put(f"k{n}")) for n in range(100)))
    assert all(each.revision for each in made)
    assert len({each.revision for each in made}) < 10
    assert content(etcd) == {f"k{n}": "1" for n in range(100)}


async def test_one_that_does_not_hold_fails_alone(transactions: Transactions, etcd: Etcd) -> None:
    etcd.put("k7", "theirs")
    made = await asyncio.gather(*(transactions.make(GUARD, put(f"k{n}")) for n in range(10)))
    assert [bool(each.revision) for each in made] == [n != 7 for n in range(10)]
    assert (made[7], content(etcd)["k7"]) == (Made(0, guarded=True), "theirs")


async def test_one_whose_guard_does_not_hold_fails_alone_and_is_told_why(
    transactions: Transactions, etcd: Etcd
) -> None:
    guards = [GUARD, NOBODY, Guard(b"nobody", there=False), Guard(b"guard", there=False), GUARD]
    made = await asyncio.gather(*(transactions.make(guard, put(f"k{n}")) for n, guard in enumerate(guards)))
    assert [(bool(each.revision), each.guarded) for each in made] == [
        (True, True),
        (False, False),
        (True, True),
        (False, False),
        (True, True),
    ]
    assert content(etcd) == {"k0": "1", "k2": "1", "k4": "1"}


async def test_of_two_that_write_the_same_the_second_sees_the_first(transactions: Transactions, etcd: Etcd) -> None:
    made = await asyncio.gather(*(transactions.make(GUARD, put("k", value=str(n))) for n in range(5)))
    assert [bool(each.revision) for each in made].count(True) == 1
    assert content(etcd) == {"k": str(next(n for n, each in enumerate(made) if each.revision))}


async def test_a_key_that_is_as_it_was_said_is_overwritten_or_deleted(transactions: Transactions, etcd: Etcd) -> None:
    old, other = etcd.put("old", "1"), etcd.put("other", "1")
    made = await transactions.make(
        GUARD, [Write(b"old", old, None), Write(b"other", other, b"2"), *put("new", value="3")]
    )
    assert (bool(made.revision), content(etcd)) == (True, {"other": "2", "new": "3"})
    assert not (await transactions.make(GUARD, [Write(b"other", other, None)])).revision


async def test_large_and_small_ones_are_all_made(transactions: Transactions, etcd: Etcd) -> None:
    sizes = [MOST_WRITES, 1, 90, 10, 11, 1, MOST_WRITES - 1, 1, 64, 64, 3, *[2] * 40]
    asked = [put(*(f"{place}/{n}" for n in range(size))) for place, size in enumerate(sizes)]
    guards = [GUARD if place % 3 else Guard(f"{place}".encode(), there=False) for place in range(len(sizes))]
    made = await asyncio.gather(*map(transactions.make, guards, asked))
    assert all(each.revision for each in made)
    assert len(content(etcd)) == sum(sizes)


async def test_what_comes_one_by_one_in_a_moment_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []
    connection = EtcdConnection(EtcdAddress.parse("etcd://127.0.0.1:1"))

    async def answered_at_once(_: str, __: str, request: Any) -> Any:
        requests.append(request)
        return rpc.TxnResponse(header=rpc.ResponseHeader(revision=len(requests)), succeeded=True)

    monkeypatch.setattr(connection, "call", answered_at_once)
    transactions, loop = Transactions(connection), asyncio.get_running_loop()
    begun = loop.time()
    making = []
    for n in range(60):
        making.append(asyncio.ensure_future(transactions.make(GUARD, put(f"k{n}"))))
        await asyncio.sleep(0)
    assert all(each.revision for each in await asyncio.gather(*making))
    assert sum(len(request.success) for request in requests) == 60
    assert len(requests) <= 1 + (loop.time() - begun) / PACE


async def test_what_is_more_than_etcd_takes_at_once_goes_in_parts(transactions: Transactions, etcd: Etcd) -> None:
    large = [put(f"k{n}", value="x" * 100_000) for n in range(25)]
    huge = put("huge", value="x" * 1_200_000)  # more than is sent together, and less than etcd takes
    made = await asyncio.gather(*(transactions.make(GUARD, each) for each in [*large, huge, put("small")]))
    assert all(each.revision for each in made)
    assert len(content(etcd)) == 27


async def test_an_outage_fails_all_that_wait(transactions: Transactions, etcd: Etcd) -> None:
    etcd.kill()
    made = await asyncio.gather(*(transactions.make(GUARD, put(f"k{n}")) for n in range(200)), return_exceptions=True)
    assert {type(each) for each in made} == {StoreFailed}


async def test_any_failure_reaches_who_waits(connection: EtcdConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Any:
        raise InvalidSetting("ca_file: cannot be read")

    monkeypatch.setattr(connection, "call", broken)
    transactions = Transactions(connection)
    waiting = [asyncio.ensure_future(transactions.make(GUARD, put(key))) for key in "ab"]
    done, pending = await asyncio.wait(waiting, timeout=20)
    assert (len(done), [type(each.exception()) for each in done]) == (2, [InvalidSetting] * 2), pending


async def test_nobody_waits_for_a_connection_that_is_closed(
    transactions: Transactions, connection: EtcdConnection, etcd: Etcd
) -> None:
    await transactions.make(GUARD, put("before"))
    etcd.stop_the_clock()
    waiting = [asyncio.ensure_future(transactions.make(GUARD, put(key))) for key in "abcde"]
    await asyncio.sleep(0.05)  # so that some are under way
    await connection.close()
    _, pending = await asyncio.wait(waiting, timeout=20)
    assert not pending
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, StoreFailed | asyncio.CancelledError) for each in ended), ended


async def test_one_under_a_lease_that_is_no_more_fails_alone(transactions: Transactions, etcd: Etcd) -> None:
    under = [Write(b"k3", 0, b"1", lease=12345)]
    writes = [put("k0"), put("k1"), put("k2"), under, put("k4")]
    made = await asyncio.gather(*(transactions.make(GUARD, each) for each in writes), return_exceptions=True)
    assert [isinstance(each, StoreFailed) for each in made] == [False, False, False, True, False]
    assert content(etcd).keys() == {"k0", "k1", "k2", "k4"}


async def test_one_that_is_cancelled_before_it_is_begun_is_not_made(transactions: Transactions, etcd: Etcd) -> None:
    made = [asyncio.ensure_future(transactions.make(GUARD, put(f"k{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    made[1].cancel()
    await asyncio.wait(made)
    assert (await transactions.make(GUARD, put("other"))).revision
    assert content(etcd).keys() == {"k0", "k2", "other"}
    assert (transactions._writes, len(transactions._waiting)) == (0, 0)
