"""Checks over HTTP/2, against a server that speaks nothing else, and servers that do not speak it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from lbcore import Endpoint
from lbcore.health import Cause, HealthCheck, HttpCheck, StringMatcher
from lbcore.health.probe import Probe
from lbcore.settings import CheckTls
from tests.harness.http2_server import Http2Server, http2_server
from tests.harness.unreliable import Mood, UnreliableBackends

PATIENT = 20.0  # seconds
Make = Callable[..., Probe]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Http2Server]:
    async with http2_server() as running:
        yield running


async def until(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {PATIENT:g} s"
        await asyncio.sleep(0)


class TestHttp2:
    @staticmethod
    def check(**settings: Any) -> HealthCheck:
        return HttpCheck("/healthz", codec_client_type="http2", **{"timeout": PATIENT, **settings})

    async def test_one_connection_serves_all_checks(self, make: Make, server: Http2Server) -> None:
        probe = make(self.check(host="a.internal", request_headers_to_add={"x-probe": "1"}))
        assert all([(await probe.check(Endpoint(server.address))).passed for _ in range(5)])
        assert (server.connections, len(server.requests)) == (1, 5)
        wanted = {":method": "GET", ":scheme": "http", ":authority": "a.internal", ":path": "/healthz", "x-probe": "1"}
        assert wanted.items() <= server.requests[-1].items()

    async def test_status_headers_and_body_decide(self, make: Make, server: Http2Server) -> None:
        endpoint = Endpoint(server.address)
        probe = make(self.check(receive=b"well", service_name_matcher=StringMatcher(exact="cart")))
        server.body = b"all is well"
        server.headers = [("x-envoy-upstream-healthchecked-cluster", "cart"), ("x-envoy-degraded", "1")]
        assert (await probe.check(endpoint)).degraded
        server.body = b"all is not"
        assert (await probe.check(endpoint)).reason == "status 200, unexpected body"
        server.status = 503
        assert (await make(self.check()).check(endpoint)).reason == "status 503"

    async def test_a_body_larger_than_the_window_is_sent(self, make: Make, server: Http2Server) -> None:
        body = b"x" * 65_000
        assert (await make(self.check(method="POST", send=body)).check(Endpoint(server.address))).passed
        assert server.bodies == [body]

    async def test_a_large_answer_is_taken(self, make: Make, server: Http2Server) -> None:
        server.body = b"." * 16_000
        probe = make(self.check())
        assert all([(await probe.check(Endpoint(server.address))).passed for _ in range(8)])

    async def test_a_reset_is_a_failure_of_the_network(self, make: Make, server: Http2Server) -> None:
        server.resets = True
        outcome = await make(self.check()).check(Endpoint(server.address))
        assert (outcome.cause, outcome.reason.split(",")[0]) == (Cause.NETWORK, "RST_STREAM")

    async def test_a_server_that_goes_away_in_good_order_passes(self, make: Make, server: Http2Server) -> None:
        server.goes_away = "after"
        probe = make(self.check())
        assert all([(await probe.check(Endpoint(server.address))).passed for _ in range(3)])
        assert server.connections == 3

    async def test_an_answer_after_goaway_is_asked_for_on_a_new_connection(
        self, make: Make, server: Http2Server
    ) -> None:
        endpoint = Endpoint(server.address)
        probe = make(self.check())
        assert (await probe.check(endpoint)).passed
        server.goes_away = "before"  # as nginx does when a connection has had its number of requests
        checking = asyncio.ensure_future(probe.check(endpoint))
        await until(lambda: len(server.requests) == 2)
        server.goes_away = ""
        assert (await checking).passed
        assert server.connections == 2

    async def test_a_server_that_goes_away_between_checks_is_not_kept_waiting(
        self, make: Make, server: Http2Server
    ) -> None:
        endpoint = Endpoint(server.address)
        probe: Any = make(self.check())
        assert (await probe.check(endpoint)).passed
        server.go_away()
        await until(lambda: not probe._kept[server.address].reusable)
        assert (await probe.check(endpoint)).passed
        await until(lambda: server.closed == 1)

    @pytest.mark.parametrize("mood", [Mood.ANSWERS, Mood.GARBAGE, Mood.RESETS])
    async def test_what_is_no_http2_fails(self, make: Make, mood: Mood) -> None:
        async with UnreliableBackends(1) as backends:
            (address,) = backends.addresses
            backends.become(address, mood)
            outcome = await make(self.check()).check(Endpoint(address))
        assert (outcome.cause, bool(outcome.reason)) == (Cause.NETWORK, True)

    async def test_over_tls_it_is_agreed_upon(self, make: Make, server_context: ssl.SSLContext) -> None:
        async with http2_server(server_context) as server:
            tls = CheckTls(verify=False)
            assert (await make(self.check(tls=tls, checked_by="service")).check(Endpoint(server.address))).passed
            assert server.requests[0][":scheme"] == "https"
