"""The HTTP client of the sources, beyond what the tests of each show: peers that vanish or trickle."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbcore.source import Consul, HttpSd, Kubernetes
from lbcore.sources.consul import ConsulFeed
from lbcore.sources.feed import Feed, Timing
from lbcore.sources.http import HttpClient
from lbcore.sources.http_sd import HttpSdFeed
from lbcore.sources.kubernetes import KubernetesFeed
from tests.sources.following import Following


@asynccontextmanager
async def trickling() -> AsyncIterator[str]:
    """A server that says a byte now and then, for ever: no read waits for long."""

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    application = web.Application()
    application.router.add_get("/{path:.*}", trickle)
    async with TestServer(application) as server:
        yield str(server.make_url(""))


@pytest.mark.parametrize(
    "open_feed",
    [
        lambda url: ConsulFeed(Consul("web", url=url, timeout=1.0), Timing()),
        lambda url: KubernetesFeed(Kubernetes("web", url=url, timeout=1.0), Timing()),
        lambda url: HttpSdFeed(HttpSd(url, timeout=1.0), Timing()),
    ],
)
async def test_a_server_that_trickles_is_one_that_does_not_answer(open_feed: Callable[[str], Feed]) -> None:
    async with trickling() as url, Following(open_feed(url)) as feed:
        assert await feed.broken() == "no answer in time"


async def test_an_answer_that_is_to_be_endless_may_go_on_for_longer_than_an_answer_may_take() -> None:
    client = HttpClient(Consul("web", timeout=2.0))
    async with (
        trickling() as url,
        client.session() as session,
        client.get(session, url, endless=True) as response,
    ):
        enough = asyncio.get_running_loop().time() + 2.5
        while asyncio.get_running_loop().time() < enough:
            assert await response.content.readany()


async def test_a_connection_probes_its_peer_while_it_waits() -> None:
    done = asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await done.wait()
        return response

    application = web.Application()
    application.router.add_get("/", hold)
    client = HttpClient(Consul("web"))
    async with (
        TestServer(application) as server,
        client.session() as session,
        client.get(session, str(server.make_url("/"))) as response,
    ):
        assert response.connection is not None
        assert response.connection.transport is not None
        connected = response.connection.transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, probes = (
            connected.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * probes <= 60
        done.set()
