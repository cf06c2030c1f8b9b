"""The etcd source in front of a real etcd: the keys of gRPC naming, what breaks it and how it resumes."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing

import pytest

import lbcore
from lbcore.membership import Membership
from lbcore.source import Etcd as EtcdSource
from lbcore.sources.etcd import EtcdFeed
from lbcore.sources.feed import FeedBroken
from tests.harness.etcd import Etcd, needs_etcd

pytestmark = needs_etcd

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"


def name(etcd: Etcd, key: str, address: str, **metadata: object) -> None:
    etcd.put(f"services/web/{key}", json.dumps({"Op": 0, "Addr": address, "Metadata": metadata or None}))


def feed_of(etcd: Etcd) -> EtcdFeed:
    return EtcdFeed(EtcdSource(f"etcd://{etcd.address}/services/web"))


async def until(feed: EtcdFeed, addresses: set[str]) -> Membership:
    async def reached() -> Membership:
        async with aclosing(feed.follow()) as said:
            async for membership in said:
                if {each.address for each in membership.endpoints} == addresses:
                    return membership
        raise AssertionError

    return await asyncio.wait_for(reached(), 30)


async def test_names_become_endpoints_and_changes_are_followed(etcd: Etcd) -> None:
    name(etcd, "a", ONE, weight=3, zone="a")
    etcd.put("services/web2/b", json.dumps({"Addr": "10.9.9.9:80"}))
    async with aclosing(feed_of(etcd).follow()) as said:
        first = await asyncio.wait_for(anext(said), 30)
        name(etcd, "b", TWO)
        async for membership in said:
            if len(membership.endpoints) == 2:
                break
        etcd.delete("services/web/a")
        async for membership in said:
            if len(membership.endpoints) == 1:
                break
    [endpoint] = first.endpoints
    assert (endpoint.address, endpoint.weight, endpoint.metadata["zone"]) == (ONE, 3, "a")
    assert [each.address for each in membership.endpoints] == [TWO]


async def test_what_is_no_name_is_left_out_and_said(etcd: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    name(etcd, "a", ONE)
    for key, value in (
        ("b", "nonsense"),
        ("c", "{}"),
        ("d", '{"Addr": "db.internal:80"}'),
        ("e", '{"Addr": "1.2.3.4"}'),
    ):
        etcd.put(f"services/web/{key}", value)
    with caplog.at_level(logging.WARNING):
        await until(feed_of(etcd), {ONE})
    assert all(f"services/web/{key} is left out" in caplog.text for key in "bcde")


async def test_a_feed_that_broke_goes_on_where_it_was(etcd: Etcd) -> None:
    name(etcd, "a", ONE)
    feed = feed_of(etcd)
    async with aclosing(feed.follow()) as said:
        await anext(said)
        etcd.kill()
        with pytest.raises(FeedBroken, match="etcd 127"):
            async for _ in said:
                pass
    await asyncio.to_thread(etcd.restart)
    name(etcd, "b", TWO)
    await until(feed, {ONE, TWO})


async def test_a_program_connects_by_a_target(etcd: Etcd) -> None:
    name(etcd, "a", ONE)
    async with lbcore.connect(f"etcd://{etcd.address}/services/web") as cluster:
        assert cluster.pick().address == ONE
