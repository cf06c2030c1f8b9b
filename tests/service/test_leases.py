"""The table of leases that remote callers hold."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore.errors import Overloaded
from lbcore.service.leases import LeaseTable

SECOND = 1_000_000_000


class Clock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_a_lease_is_taken_once() -> None:
    table: LeaseTable[str] = LeaseTable()
    granted = table.grant("lease", ttl=10)
    assert table.take(granted) == "lease"
    assert table.take(granted) is None


def test_a_lease_is_unknown_when_its_time_is_over_even_before_anyone_looked() -> None:
    clock = Clock()
    table: LeaseTable[str] = LeaseTable(clock=clock)
    granted = table.grant("lease", ttl=2)
    clock.now = 2 * SECOND
    assert table.take(granted) is None
    assert table.expired == 1


def test_a_lease_is_held_up_to_its_last_nanosecond() -> None:
    clock = Clock()
    table: LeaseTable[str] = LeaseTable(clock=clock)
    granted = table.grant("lease", ttl=2)
    clock.now = 2 * SECOND - 1
    assert table.expire() == 0
    assert table.take(granted) == "lease"


def test_expiry_drops_the_last_reference_to_a_lease() -> None:
    ended: list[str] = []

    class Held:
        def __del__(self) -> None:
            ended.append("ended")

    clock = Clock()
    table: LeaseTable[Held] = LeaseTable(clock=clock)
    table.grant(Held(), ttl=1)
    clock.now = SECOND
    table.expire()
    assert ended == ["ended"]


def test_a_full_table_refuses_and_says_how_many_it_holds() -> None:
    table: LeaseTable[str] = LeaseTable(limit=2)
    table.grant("a", ttl=10)
    table.grant("b", ttl=10)
    with pytest.raises(Overloaded, match="2 leases"):
        table.make_room()


def test_a_full_table_makes_room_by_dropping_what_is_due() -> None:
    clock = Clock()
    table: LeaseTable[str] = LeaseTable(clock=clock, limit=1)
    table.grant("a", ttl=1)
    clock.now = SECOND
    table.make_room()
    assert len(table) == 0


def test_ids_of_two_tables_differ() -> None:
    assert LeaseTable[str]().grant("a", ttl=1) != LeaseTable[str]().grant("a", ttl=1)


def test_reported_leases_do_not_pile_up_until_they_would_have_expired() -> None:
    table: LeaseTable[str] = LeaseTable()
    for _ in range(10_000):
        table.take(table.grant("lease", ttl=3600))
    assert len(table._deadlines) < 2000


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("grant"), st.integers(1, 50)),
            st.tuples(st.just("take"), st.integers(0, 30)),
            st.tuples(st.just("wait"), st.integers(0, 40)),
        )
    )
)
def test_every_lease_ends_once_by_report_or_at_its_time(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    table: LeaseTable[int] = LeaseTable(clock=clock)
    ids: list[int] = []
    live: dict[int, int] = {}  # position among the ids -> the second at which it is due
    for step, value in steps:
        if step == "grant":
            live[len(ids)] = clock.now // SECOND + value
            ids.append(table.grant(len(ids), ttl=value))
        elif step == "take" and value < len(ids):
            expected = value if live.pop(value, 0) > clock.now // SECOND else None
            assert table.take(ids[value]) == expected
        elif step == "wait":
            clock.now += value * SECOND
            table.expire()
        live = {position: due for position, due in live.items() if due > clock.now // SECOND}
    table.expire()
    assert len(table) == len(live)


async def test_a_shorter_lease_granted_later_expires_first() -> None:
    ended = asyncio.Event()

    class Held:
        def __del__(self) -> None:
            ended.set()

    table: LeaseTable[Held] = LeaseTable()
    running = asyncio.ensure_future(table.run())
    try:
        table.grant(Held(), ttl=60)
        await asyncio.sleep(0)
        table.grant(Held(), ttl=0.02)
        await asyncio.wait_for(ended.wait(), 30)
        assert len(table) == 1
    finally:
        running.cancel()
