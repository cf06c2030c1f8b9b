"""The HTTP SD source polls a real server: what counts as an answer, what keeps the last one, and how it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbcore.model import Endpoint, Health, Locality
from lbcore.source import HttpSd
from lbcore.sources.feed import Timing
from lbcore.sources.http_sd import HttpSdFeed
from tests.sources.following import Following

LIST = [{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"env": "prod"}}]


class TargetServer:
    """Answers what `answer` says and keeps the requests."""

    __test__ = False

    def __init__(self) -> None:
        self.answer: Any = LIST
        self.status = 200
        self.etag = ""
        self.requests: list[web.Request] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        headers = {"ETag": self.etag} if self.etag else {}
        if self.etag and request.headers.get("If-None-Match") == self.etag:
            return web.Response(status=304, headers=headers)
        if isinstance(self.answer, str):
            return web.Response(text=self.answer, status=self.status, headers=headers)
        return web.json_response(self.answer, status=self.status, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[TargetServer]:
    targets = TargetServer()
    application = web.Application()
    application.router.add_get("/sd", targets.handle)
    async with TestServer(application) as running:
        targets.url = str(running.make_url("/sd"))
        yield targets


def following(server: TargetServer, sleeps: list[float] | None = None, **fields: Any) -> Following:
    async def sleep(seconds: float) -> None:
        if sleeps is not None:
            sleeps.append(seconds)

    return Following(HttpSdFeed(HttpSd(server.url, **fields), Timing(sleep=sleep, random=lambda: 0.5)))


async def test_targets_are_endpoints_and_labels_metadata(server: TargetServer) -> None:
    async with following(server) as feed:
        assert (await feed.next()).endpoints == (
            Endpoint("10.0.0.1:80", metadata={"env": "prod"}),
            Endpoint("10.0.0.2:80", metadata={"env": "prod"}),
        )


async def test_labels_of_lbcore_are_fields_of_the_endpoint(server: TargetServer) -> None:
    labels = {"weight": "3", "locality": "eu/a", "priority": "1", "health": "draining", "hostname": "a"}
    labels["metadata"] = '{"canary": true}'
    server.answer = [{"targets": ["10.0.0.1:80"], "labels": {f"__meta_lbcore_{k}": v for k, v in labels.items()}}]
    expected = Endpoint(
        "10.0.0.1:80",
        weight=3,
        locality=Locality("eu", "a"),
        priority=1,
        health=Health.DRAINING,
        hostname="a",
        metadata={"canary": True},
    )
    async with following(server) as feed:
        assert (await feed.next()).endpoints == (expected,)


async def test_only_targets_with_the_labels_asked_for_count(server: TargetServer) -> None:
    server.answer = [*LIST, {"targets": ["10.0.0.3:80"], "labels": {"env": "test", "more": "x"}}, {"targets": ["x"]}]
    async with following(server, labels={"env": "test"}) as feed:
        assert await feed.addresses() == ["10.0.0.3:80"]


async def test_an_address_that_comes_twice_counts_once(server: TargetServer) -> None:
    server.answer = LIST + LIST
    async with following(server) as feed:
        assert await feed.addresses() == ["10.0.0.1:80", "10.0.0.2:80"]


async def test_an_empty_list_says_that_there_are_none(server: TargetServer) -> None:
    server.answer = []
    async with following(server) as feed:
        assert await feed.addresses() == []


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (500, "out of order", "500 Internal Server Error: 'out of order'"),
        (404, "", "404 Not Found"),
        (200, "", "not as expected: "),
        (200, "[", "not as expected: "),
        (200, "null", "not as expected: Expected `array`, got `null`"),
        (200, '{"targets": []}', "not as expected: Expected `array`, got `object`"),
        (200, '[{"labels": {}}]', "not as expected: Object missing required field `targets` - at `$[0]`"),
        (200, '[{"targets": [1]}]', "not as expected: Expected `str`, got `int` - at `$[0].targets[0]`"),
        (200, '[{"targets": ["10.0.0.1"]}]', "[0].targets[0]: address '10.0.0.1': expected \"IP:PORT\""),
        (200, '[{"targets": ["web.internal:80"]}]', "[0].targets[0]: target 'web.internal:80': expected an IP address"),
        (
            200,
            '[{"targets": ["10.0.0.1:80"], "labels": {"__meta_lbcore_weight": "-1"}}]',
            "[0].targets[0]: __meta_lbcore_weight '-1': expected a whole number",
        ),
        (
            200,
            '[{"targets": ["10.0.0.1:80"], "labels": {"__meta_lbcore_health": "ill"}}]',
            "[0].targets[0]: __meta_lbcore_health 'ill': expected one of unknown, healthy, ",
        ),
        (
            200,
            '[{"targets": ["10.0.0.1:80"], "labels": {"__meta_lbcore_metadata": "[]"}}]',
            "[0].targets[0]: __meta_lbcore_metadata '[]': expected a JSON object",
        ),
    ],
)
async def test_an_answer_that_is_no_list_says_nothing(
    server: TargetServer, status: int, answer: str, reason: str
) -> None:
    async with following(server) as feed:
        before = await feed.addresses()
        server.status, server.answer = status, answer
        assert reason in await feed.broken()
        server.status, server.answer = 200, LIST
        assert await feed.addresses() == before


async def test_an_unchanged_list_is_not_sent_again(server: TargetServer) -> None:
    server.etag = '"v1"'
    async with following(server) as feed:
        first = await feed.next()
        assert await feed.next() is first
        server.etag, server.answer = '"v2"', []
        assert await feed.addresses() == []
    assert [request.headers.get("If-None-Match") for request in server.requests] == [None, '"v1"', '"v1"']


async def test_it_asks_again_after_the_interval_and_a_little_more_at_random(server: TargetServer) -> None:
    sleeps: list[float] = []
    async with following(server, sleeps, refresh_interval=10) as feed:
        await feed.next()
        await feed.next()
    assert sleeps == [10.5]
    assert server.requests[0].headers["X-Prometheus-Refresh-Interval-Seconds"] == "10"


async def test_the_token_is_read_for_each_request(server: TargetServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with following(server, token_file=str(token)) as feed:
        await feed.next()
        token.write_text("two")
        await feed.next()
        token.unlink()
        assert "token_file" in await feed.broken()
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


async def test_nobody_at_the_address_is_a_failure() -> None:
    async with Following(HttpSdFeed(HttpSd("http://127.0.0.1:1/sd"), Timing())) as feed:
        assert "Cannot connect to host 127.0.0.1:1" in await feed.broken()


async def test_a_certificate_authority_that_cannot_be_read_is_a_failure(server: TargetServer) -> None:
    async with following(server, ca_file="nowhere.pem") as feed:
        assert "ca_file nowhere.pem: " in await feed.broken()
