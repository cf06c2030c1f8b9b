"""`lbcore nodes`: the xDS clients of a running service, as a table, as JSON, and followed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.harness.process import Process, wait_until
from tests.harness.service import LBCORE, LbcoreService, lbcore, web_with
from tests.xds.clients import CDS, EDS, SotwClient

Start = Callable[[str], LbcoreService]
WEB = web_with("127.0.0.1:8081")
REASON = "no good: port is closed"


@pytest.fixture
def service(start_service: Start) -> LbcoreService:
    return start_service(WEB)


@contextmanager
def client_that_refuses(service: LbcoreService) -> Iterator[None]:
    """An xDS client, `edge-1`, that has accepted its clusters and refused its endpoints."""
    loop = asyncio.new_event_loop()

    async def connect() -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(service.grpc)
        method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        client = SotwClient(channel, method, None, {"id": "edge-1", "user_agent_name": "envoy"})
        await client.ask(CDS)
        await client.settle(CDS)
        await client.ask(EDS, "web")
        await client.receive(EDS)
        await client.refuse(EDS, "web", error=REASON)
        await client.taken_in()
        return channel

    channel = loop.run_until_complete(connect())
    try:
        yield
    finally:
        loop.run_until_complete(channel.close())
        loop.close()


def nodes(service: LbcoreService, *arguments: str) -> list[dict[str, Any]]:
    shown = lbcore("nodes", "--server", service.grpc, "--json", *arguments)
    assert shown.code == 0, shown.stderr
    listed: list[dict[str, Any]] = json.loads(shown.stdout)["nodes"]
    return listed


def test_s5_a_nack_is_seen_with_node_type_version_and_message(service: LbcoreService) -> None:
    with client_that_refuses(service):
        wait_until(lambda: "ERROR" in {each["status"] for each in nodes(service)}, "the refusal")
        clusters, assignments = nodes(service)
        assert clusters["status"] == "SYNCED"
        assert assignments["node"] == "edge-1"
        assert assignments["type_url"] == EDS.type_url
        assert assignments["status"] == "ERROR"
        assert assignments["resources"] == {"ERROR": 1}
        assert assignments["message"] == REASON
        assert assignments["refused_version"] == assignments["version"]
        assert nodes(service, "somebody-else") == []
        table = lbcore("nodes", "edge-1", "--server", service.grpc).stdout
        assert [line.split()[0] for line in table.splitlines()] == ["NODE", "edge-1", "edge-1"]
        assert REASON in table
        metrics = service.get("/metrics").body.decode()
        assert f'lbcore_xds_nacks_total{{node="edge-1",type="{EDS.type_url}"}} 1.0' in metrics
        service.process.wait_for_output(REASON, stream="stderr")


def test_nodes_are_followed(service: LbcoreService) -> None:
    with Process([*LBCORE, "nodes", "--watch", "--json", "--server", service.grpc]) as following:
        following.wait_for_output(re.escape('{"nodes": []}'))
        with client_that_refuses(service):
            following.wait_for_output(REASON)


def test_nodes_without_a_service_say_so() -> None:
    shown = lbcore("nodes", "--server", "127.0.0.1:1")
    assert shown.code == 1
    assert "127.0.0.1:1" in shown.stderr
