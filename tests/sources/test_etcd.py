"""The etcd source in front of a real etcd: the keys of gRPC naming, what breaks it and how it resumes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

import lbcore
from lbcore.errors import SourceTimedOut
from lbcore.membership import Membership
from lbcore.source import Etcd as EtcdSource
from lbcore.sources.etcd import EtcdFeed
from lbcore.sources.feed import FeedBroken
from tests.harness.etcd import Etcd, needs_etcd, secured_etcd

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


async def next_of(said: AsyncGenerator[Membership, None], length: int) -> Membership:
    """What is said next that has so many endpoints."""

    async def reached() -> Membership:
        async for membership in said:
            if len(membership.endpoints) == length:
                return membership
        raise AssertionError

    return await asyncio.wait_for(reached(), 30)


async def test_names_become_endpoints_and_changes_are_followed(etcd: Etcd) -> None:
    name(etcd, "a", ONE, weight=3, zone="a")
    etcd.put("services/web2/b", json.dumps({"Addr": "10.9.9.9:80"}))
    async with aclosing(feed_of(etcd).follow()) as said:
        first = await asyncio.wait_for(anext(said), 30)
        name(etcd, "b", TWO)
        await next_of(said, 2)
        etcd.delete("services/web/a")
        membership = await next_of(said, 1)
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


async def test_a_value_that_goes_bad_keeps_what_the_key_said_until_the_key_goes(
    etcd: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    name(etcd, "a", ONE)
    name(etcd, "b", TWO)
    async with aclosing(feed_of(etcd).follow()) as said:
        first = await asyncio.wait_for(anext(said), 30)
        etcd.put("services/web/b", "nonsense")
        etcd.put("services/web/a", '{"Addr": "10.0.0.1:80", "Metadata": {"weight": 0}}')
        name(etcd, "c", "10.0.0.3:80")
        membership = await next_of(said, 3)
        etcd.delete("services/web/b")
        last = await next_of(said, 2)
    assert [each.address for each in first.endpoints] == [ONE, TWO]
    assert [each.address for each in membership.endpoints] == [ONE, TWO, "10.0.0.3:80"]
    assert [each.address for each in last.endpoints] == [ONE, "10.0.0.3:80"]
    assert all(f"services/web/{key} stays as it was" in caplog.text for key in "ab")


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe",
        b"[" * 5000,
        b'{"Addr": 80}',
        b'{"Addr": null}',
        b'{"Addr": "10.0.0.9:0"}',
        b'{"Addr": "10.0.0.9:99999"}',
        b'{"Addr": "10.0.0.9:80", "Metadata": {"weight": 4294967296}}',
        b'{"Addr": "10.0.0.9:80", "Metadata": {"deep": ' + b"[" * 200 + b"]" * 200 + b"}}",
        b'{"Addr": "10.0.0.9:80", "Metadata": {"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b'{"Addr": "10.0.0.9:80", "Metadata": {"large": 1e999}}',
    ],
)
async def test_a_value_that_makes_no_sense_is_left_out_and_the_others_count(etcd: Etcd, value: bytes) -> None:
    etcd.put("services/web/a", value)
    name(etcd, "b", ONE)
    await until(feed_of(etcd), {ONE})


@pytest.mark.parametrize("metadata", [None, "text", 7, [1], {"weight": "heavy"}, {"weight": True}])
async def test_metadata_of_another_form_is_passed_over(etcd: Etcd, metadata: object) -> None:
    etcd.put("services/web/a", json.dumps({"Op": 0, "Addr": ONE, "Metadata": metadata}))
    [endpoint] = (await until(feed_of(etcd), {ONE})).endpoints
    assert (endpoint.weight, endpoint.metadata) == (1, metadata if isinstance(metadata, dict) else {})


async def test_two_keys_of_one_address_are_one_endpoint_until_both_are_gone(etcd: Etcd) -> None:
    name(etcd, "a", ONE)
    name(etcd, "b", ONE)
    async with aclosing(feed_of(etcd).follow()) as said:
        assert len((await asyncio.wait_for(anext(said), 30)).endpoints) == 1
        etcd.delete("services/web/a")
        name(etcd, "c", TWO)
        membership = await next_of(said, 2)
    assert [each.address for each in membership.endpoints] == [ONE, TWO]


async def test_a_sign_of_life_is_no_change(etcd: Etcd) -> None:
    name(etcd, "a", ONE)
    async with aclosing(feed_of(etcd).follow()) as said:
        first = await asyncio.wait_for(anext(said), 30)
        assert await asyncio.wait_for(anext(said), 30) is first


async def test_a_compaction_while_it_is_away_costs_a_list_and_nothing_else(etcd: Etcd) -> None:
    name(etcd, "a", ONE)
    name(etcd, "b", TWO)
    feed = feed_of(etcd)
    await until(feed, {ONE, TWO})
    etcd.delete("services/web/a")
    etcd.compact()
    async with aclosing(feed.follow()) as said:
        heard = [{each.address for each in (await asyncio.wait_for(anext(said), 30)).endpoints}]
        while heard[-1] != {TWO}:
            heard.append({each.address for each in (await asyncio.wait_for(anext(said), 30)).endpoints})
    assert set(map(frozenset, heard)) <= {frozenset({ONE, TWO}), frozenset({TWO})}


async def test_certificates_and_a_password_are_used_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with secured_etcd(tmp_path) as (etcd, options):
        etcd.put("services/web/a", json.dumps({"Addr": ONE}))
        etcd.put("services/web/b", "nonsense")
        good = EtcdFeed(EtcdSource(f"etcds://root:s3cret@{etcd.address}/services/web?{options}"))
        await until(good, {ONE})
        assert "services/web/b is left out" in caplog.text
        for target, why in (
            (f"etcds://root:wr0ng@{etcd.address}/services/web?{options}", "INVALID_ARGUMENT"),
            (f"etcds://{etcd.address}/services/web?{options}", "permission denied"),
            (f"etcd://root:s3cret@{etcd.address}/services/web", "UNAVAILABLE"),
        ):
            with pytest.raises(SourceTimedOut, match=why) as refused:
                await lbcore.connect(target, timeout=2.0)
            assert "s3cret" not in str(refused.value)
            assert "wr0ng" not in str(refused.value)
        assert "s3cret" not in caplog.text


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
