"""The HTTP SD source polls a real server: what counts as an answer, what keeps the last one, and how it is asked."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbcore.model import Endpoint, Health, Locality
from lbcore.source import HttpSd
from lbcore.sources.feed import Timing
from lbcore.sources.http import MAX_BODY
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
        (200, f'[{{"targets": [], "more": {"[" * 5000}{"]" * 5000}}}]', "not as expected: maximum recursion depth"),
        (
            200,
            f'[{{"targets": ["10.0.0.1:80"], "labels": {{"__meta_lbcore_metadata": "{"[" * 5000}"}}}}]',
            "expected a JSON object",
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


@pytest.mark.parametrize(
    ("interval", "header"), [(1, "1"), (0.05, "0.05"), (1.5, "1.5"), (100, "100"), (2_592_000, "2592000")]
)
async def test_the_interval_is_told_in_plain_seconds(server: TargetServer, interval: float, header: str) -> None:
    async with following(server, refresh_interval=interval) as feed:
        await feed.next()
    assert server.requests[0].headers["X-Prometheus-Refresh-Interval-Seconds"] == header
    assert server.requests[0].headers["Accept"] == "application/json"


async def test_labels_that_are_null_are_none(server: TargetServer) -> None:
    server.answer = [{"targets": ["10.0.0.1:80"], "labels": None}]
    async with following(server) as feed:
        assert (await feed.next()).endpoints == (Endpoint("10.0.0.1:80"),)


async def test_a_list_that_is_the_same_is_read_once_whether_or_not_the_server_says_so(server: TargetServer) -> None:
    async with following(server) as feed:
        first = await feed.next()
        assert await feed.next() is first
        server.answer = [LIST[0]] * 2
        assert await feed.next() is not first


async def test_a_list_that_could_not_be_read_is_read_again_although_it_bears_a_tag(server: TargetServer) -> None:
    server.etag, server.answer = '"v1"', "["
    async with following(server) as feed:
        assert "not as expected" in await feed.broken()
        server.answer = LIST
        assert await feed.addresses() == ["10.0.0.1:80", "10.0.0.2:80"]


BAD = [("10.0.0.1:0", "a port from 1 to 65535"), ("10.0.0.1:99999", "a port from 1 to 65535"), ("", "IP:PORT")]


@pytest.mark.parametrize(("target", "reason"), [*BAD, ("[::1]", "IP:PORT"), ("10.0.0.1:80/metrics", "a port")])
async def test_a_target_that_is_no_address_is_named(server: TargetServer, target: str, reason: str) -> None:
    server.answer = [*LIST, {"targets": ["10.0.0.3:80", target]}]
    async with following(server) as feed:
        broken = await feed.broken()
    assert broken.startswith("not as expected: [1].targets[1]: address ")
    assert reason in broken


@pytest.mark.parametrize("weight", ["0", "4294967296", "1e3", " 1", "\u0661"])
async def test_a_weight_that_is_none_is_named(server: TargetServer, weight: str) -> None:
    server.answer = [{"targets": ["10.0.0.1:80"], "labels": {"__meta_lbcore_weight": weight}}]
    async with following(server) as feed:
        assert "weight" in await feed.broken()


class Misbehaving:
    """A server that does what `handle` does."""

    def __init__(self, handle: Any) -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", handle)
        self._server = TestServer(application)

    async def __aenter__(self) -> str:
        await self._server.start_server()
        return str(self._server.make_url("/sd"))

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()


async def stall(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await asyncio.sleep(3600)
    return response


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"[")
    assert request.transport is not None
    request.transport.abort()
    return response


async def circle(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(f"/{'b' if request.path == '/a' else 'a'}")


async def elsewhere(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("file:///etc/passwd")


async def no_gzip(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"nonsense", headers={"Content-Encoding": "gzip"})


async def bomb(_: web.Request) -> web.StreamResponse:
    """Far too much in a few kilobytes."""
    content = zlib.compress(b" " * (MAX_BODY + 1))
    return web.Response(body=content, headers={"Content-Encoding": "deflate"})


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (stall, "no answer in time"),
        (cut_off, "payload"),
        (circle, "more than 10 redirections, the last from http://127.0.0.1"),
        (elsewhere, "file:///etc/passwd"),
        (no_gzip, "gzip"),
        (bomb, ""),
    ],
)
async def test_a_server_that_misbehaves_says_nothing(handle: Any, reason: str) -> None:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response(LIST)

    async def respond(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = await handles[-1](request)
        return response

    handles: list[Any] = [behave]
    async with Misbehaving(respond) as url:

        async def sleep(_: float) -> None: ...

        timeout = 30.0 if handle is bomb else 2.0
        async with Following(HttpSdFeed(HttpSd(url, timeout=timeout), Timing(sleep=sleep))) as feed:
            before = await feed.addresses()
            handles.append(handle)
            assert reason in await feed.broken()
            handles.pop()
            assert await feed.addresses() == before


async def test_a_compressed_list_is_read() -> None:
    async def compressed(_: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(json.dumps(LIST).encode()), headers={"Content-Encoding": "gzip"})

    async with Misbehaving(compressed) as url, Following(HttpSdFeed(HttpSd(url), Timing())) as feed:
        assert await feed.addresses() == ["10.0.0.1:80", "10.0.0.2:80"]


async def test_others_go_on_while_a_list_of_ten_megabytes_is_read(server: TargetServer) -> None:
    targets = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:{80 + n % 7}" for n in range(20_000)]
    server.answer = json.dumps([{"targets": [target], "labels": {"rack": "x" * 480}} for target in targets])
    async with following(server, timeout=60) as feed:
        reading = asyncio.ensure_future(feed.next())
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert len((await reading).endpoints) == 20_000
    assert turns > 20
