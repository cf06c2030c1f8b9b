"""The HTTP client of the sources, beyond what the tests of each show: how it notices a peer that has vanished."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web
from aiohttp.test_utils import TestServer

from lbcore.source import Consul
from lbcore.sources.http import HttpClient


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
