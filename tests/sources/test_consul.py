"""The Consul source against an agent that keeps Consul's documented contract: health, weights, indices, outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbcore.model import Endpoint, Health, Locality
from lbcore.source import Consul
from lbcore.sources.consul import ConsulFeed
from lbcore.sources.feed import Timing
from tests.harness.consul_agent import ConsulAgent, instance
from tests.sources.following import Following
from tests.xds.clients import eventually


@pytest.fixture
async def agent() -> ConsulAgent:
    return ConsulAgent()


@pytest.fixture
async def url(agent: ConsulAgent) -> AsyncIterator[str]:
    async with TestServer(agent.application()) as server:
        yield str(server.make_url(""))


async def no_sleep(_: float) -> None:
    pass


def following(url: str, **fields: Any) -> Following:
    return Following(ConsulFeed(Consul(fields.pop("service", "web"), url=url, **fields), Timing(sleep=no_sleep)))


async def test_an_instance_is_an_endpoint_with_all_that_consul_says_of_it(agent: ConsulAgent, url: str) -> None:
    shown = instance("a", "10.0.0.1", 8080, "passing", Tags=["v1"], Meta={"hash_key": "a"})
    shown["Service"]["Weights"] = {"Passing": 10, "Warning": 2}
    shown["Node"]["Meta"] = {"rack": "r1"}
    await agent.put(shown)
    metadata = {"rack": "r1", "hash_key": "a", "consul_node": "a-node", "consul_id": "a", "consul_tags": ["v1"]}
    async with following(url) as feed:
        assert (await feed.next()).endpoints == (
            Endpoint("10.0.0.1:8080", weight=10, health=Health.HEALTHY, locality="dc1", metadata=metadata),
        )


@pytest.mark.parametrize(
    ("statuses", "warning", "health", "weight"),
    [
        ((), "degraded", Health.HEALTHY, 10),
        (("passing", "passing"), "degraded", Health.HEALTHY, 10),
        (("passing", "warning"), "degraded", Health.DEGRADED, 2),
        (("passing", "warning"), "healthy", Health.HEALTHY, 2),
        (("passing", "warning"), "unhealthy", Health.UNHEALTHY, 2),
        (("warning", "critical"), "degraded", Health.UNHEALTHY, 10),
        (("passing", "unheard of"), "degraded", Health.UNHEALTHY, 10),
    ],
)
async def test_the_worst_check_decides(
    agent: ConsulAgent, url: str, statuses: tuple[str, ...], warning: str, health: Health, weight: int
) -> None:
    await agent.put(instance("a", "10.0.0.1", 80, *statuses, Weights={"Passing": 10, "Warning": 2}))
    async with following(url, warning=warning) as feed:
        (endpoint,) = (await feed.next()).endpoints
    assert (endpoint.health, endpoint.weight) == (health, weight)


async def test_a_weight_of_zero_takes_an_instance_out(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1", 80, "warning", Weights={"Passing": 1, "Warning": 0}))
    async with following(url) as feed:
        assert [each.health for each in (await feed.next()).endpoints] == [Health.UNHEALTHY]


@pytest.mark.parametrize("check", ["_node_maintenance", "_service_maintenance:a"])
async def test_maintenance_drains(agent: ConsulAgent, url: str, check: str) -> None:
    shown = instance("a", "10.0.0.1", 80, "passing", "critical")
    shown["Checks"][1]["CheckID"] = check
    await agent.put(shown)
    async with following(url) as feed:
        assert [each.health for each in (await feed.next()).endpoints] == [Health.DRAINING]


async def test_where_an_instance_is(agent: ConsulAgent, url: str) -> None:
    away = instance("b", "", 80)
    away["Node"]["Locality"] = {"Region": "eu", "Zone": "eu-a"}
    nearer = instance("c", "fd00::3", 80, Locality={"Region": "eu", "Zone": "eu-b"})
    await agent.put(away, nearer)
    async with following(url) as feed:
        found = {each.address: each.locality for each in (await feed.next()).endpoints}
    assert found == {"10.9.9.9:80": Locality("eu", "eu-a"), "[fd00::3]:80": Locality("eu", "eu-b")}


async def test_an_instance_without_an_address_to_connect_to_is_left_out(
    agent: ConsulAgent, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await agent.put(instance("a", "a.internal"), instance("b", "10.0.0.2", 0), instance("c", "10.0.0.3"))
    async with following(url) as feed:
        assert await feed.addresses() == ["10.0.0.3:80"]
        await agent.wake()
        await feed.next()
    assert len([record for record in caplog.records if "is left out" in record.message]) == 2


PORTS = [{"Name": "http", "Port": 8080, "Default": True}, {"Name": "metrics", "Port": 9090, "Default": False}]


@pytest.mark.parametrize(
    ("shown", "port", "number"),
    [
        ({"Port": 80}, "", 80),
        ({"Port": 8080, "Ports": PORTS}, "", 8080),
        ({"Port": 0, "Ports": PORTS}, "", 8080),
        ({"Port": 0, "Ports": PORTS}, "metrics", 9090),
    ],
)
async def test_a_port_is_found_by_name(
    agent: ConsulAgent, url: str, shown: dict[str, Any], port: str, number: int
) -> None:
    await agent.put(instance("a", "10.0.0.1", **shown))
    async with following(url, port=port) as feed:
        assert await feed.addresses() == [f"10.0.0.1:{number}"]


async def test_instances_that_are_all_of_no_use_are_a_failure(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1", Ports=PORTS))
    async with following(url, port="grpc") as feed:
        reason = "no instance is of use: 'a': port 'grpc': no such port; there are: http 8080, metrics 9090"
        assert await feed.broken() == reason
        await agent.put(instance("a", "10.0.0.1", Ports=[{"Name": "grpc", "Port": 50051, "Default": True}]))
        assert await feed.addresses() == ["10.0.0.1:50051"]
    assert [request.get("index") for request in agent.requests] == [None, "11"]


async def test_of_two_at_one_address_the_one_that_works_counts(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1", 80, "critical"), instance("b", "10.0.0.1", 80, "passing"))
    async with following(url) as feed:
        assert [each.metadata["consul_id"] for each in (await feed.next()).endpoints] == ["b"]


async def test_a_change_is_told_at_once_by_a_query_that_waits(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url, datacenter="dc2", tag="", wait=60) as feed:
        await feed.next()
        waiting = asyncio.ensure_future(feed.addresses())
        await eventually(lambda: len(agent.requests) == 2)
        await agent.put(instance("b", "10.0.0.2"))
        assert await waiting == ["10.0.0.2:80"]
    assert agent.requests == [
        {"dc": "dc2", "stale": ""},
        {"dc": "dc2", "stale": "", "index": "11", "wait": "60s"},
    ]


async def test_a_query_that_ends_without_a_change_says_the_same_again(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url, wait=1) as feed:
        assert await feed.next() == await feed.next()


async def test_an_index_that_goes_backwards_begins_anew(agent: ConsulAgent, url: str) -> None:
    await agent.restore(instance("a", "10.0.0.1"), index=100)
    async with following(url) as feed:
        await feed.next()
        waiting = asyncio.ensure_future(feed.addresses())
        await eventually(lambda: len(agent.requests) == 2)
        await agent.restore(instance("b", "10.0.0.2"), index=5)
        assert await waiting == ["10.0.0.2:80"]
        await agent.put(instance("c", "10.0.0.3"))
        assert await feed.addresses() == ["10.0.0.3:80"]
    assert [request.get("index") for request in agent.requests] == [None, "100", None, "5"]


@pytest.mark.parametrize("streaming", [True, False])
async def test_changes_are_told_by_both_of_consuls_backends(agent: ConsulAgent, url: str, streaming: bool) -> None:
    agent.streaming = streaming
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url) as feed:
        await feed.next()
        for n in range(2, 5):
            await agent.put(instance("a", f"10.0.0.{n}"))
            assert await feed.addresses() == [f"10.0.0.{n}:80"]
    assert [request.get("index") for request in agent.requests] == [None, "11", "12", "13"]


async def test_a_stream_that_is_not_loaded_takes_nobody_away(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url) as feed:
        await feed.next()
        agent.loaded = False
        await agent.wake()
        assert await feed.addresses() == ["10.0.0.1:80"]
    assert [request.get("index") for request in agent.requests] == [None, "11", None]


async def test_a_stream_that_stays_unloaded_does_not_make_the_source_hammer_the_servers(
    agent: ConsulAgent, url: str
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await agent.wake()

    await agent.put(instance("a", "10.0.0.1"))
    agent.loaded = False
    async with Following(ConsulFeed(Consul("web", url=url), Timing(clock=lambda: 0.0, sleep=sleep))) as feed:
        for _ in range(4):
            assert await feed.addresses() == ["10.0.0.1:80"]
    assert slept == [0.1, 1.0, 1.0]


async def test_a_token_that_loses_its_rights_takes_nobody_away(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url) as feed:
        await feed.next()
        agent.filtered = True
        await agent.wake()
        assert await feed.broken() == "the token may not see any instance: expected service:read and node:read"
    assert [request.get("index") for request in agent.requests] == [None, "11", None]


async def test_after_a_stream_told_nothing_for_long_the_servers_are_asked(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url, wait=1) as feed:
        for _ in range(3):
            assert await feed.addresses() == ["10.0.0.1:80"]
    assert [request.get("index") for request in agent.requests] == [None, "11", None]


async def test_after_an_outage_it_asks_at_once_what_there_is(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url) as feed:
        await feed.next()
        agent.failing = True
        await agent.wake()
        assert await feed.broken() == "500 Internal Server Error: 'rpc error: No cluster leader'"
        agent.failing = False
        assert await feed.addresses() == ["10.0.0.1:80"]


async def test_the_last_instance_that_leaves_leaves_none(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url) as feed:
        await feed.next()
        await agent.put()
        assert await feed.addresses() == []


async def test_only_instances_with_the_tag_count(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1", Tags=["blue"]), instance("b", "10.0.0.2", Tags=["green"]))
    async with following(url, tag="green", stale=False) as feed:
        assert await feed.addresses() == ["10.0.0.2:80"]
    assert agent.requests == [{"tag": "green"}]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X-Consul-Knownleader": "false"}, "the agent knows no leader"),
        ({"X-Consul-Lastcontact": "31000"}, "has not heard from the leader for 31 s"),
    ],
)
async def test_an_agent_that_is_cut_off_says_nothing(
    agent: ConsulAgent, url: str, headers: dict[str, str], reason: str
) -> None:
    agent.headers |= headers
    async with following(url) as feed:
        assert reason in await feed.broken()


async def test_the_token_is_sent_as_it_is_at_each_query(agent: ConsulAgent, url: str, tmp_path: Path) -> None:
    agent.token = "first"
    token = tmp_path / "token"
    token.write_text("first\n")
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url, token_file=str(token)) as feed:
        await feed.next()
        agent.token = "second"
        assert await feed.broken() == "403 Forbidden: 'ACL not found'"
        token.write_text("second\n")
        assert await feed.addresses() == ["10.0.0.1:80"]


async def test_another_server_is_not_taken_for_consul() -> None:
    async def show(_: web.Request) -> web.Response:
        return web.json_response([])

    application = web.Application()
    application.router.add_get("/v1/health/service/web", show)
    async with TestServer(application) as server, following(str(server.make_url(""))) as feed:
        assert await feed.broken() == "no X-Consul-Index in the answer: expected Consul"


async def test_an_agent_that_never_asks_the_servers_is_not_asked_again_and_again(agent: ConsulAgent, url: str) -> None:
    await agent.put(instance("a", "10.0.0.1"))
    async with following(url) as feed:
        assert await feed.addresses() == ["10.0.0.1:80"]
        agent.headers["X-Consul-Query-Backend"] = "streaming"
        await agent.put()
        assert "the stream says nobody" in await feed.broken()
        assert len(agent.requests) == 3
