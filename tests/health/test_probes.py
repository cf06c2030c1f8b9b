"""One check at a time, against real servers that answer, fail, hang, reset and talk nonsense."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lbcore import Endpoint, InvalidSetting
from lbcore.health import Cause, GrpcCheck, HealthCheck, HttpCheck, Outcome, TcpCheck
from lbcore.health.probe import Probe, make_probe
from lbcore.settings import CheckTls
from tests.harness.tcp_server import tcp_server
from tests.harness.unreliable import Mood, UnreliableBackends

TIMEOUT = 0.3  # seconds
PATIENT = 20.0  # for checks that are to pass

Make = Callable[..., Probe]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    """`make(check)`: its probe for the service `web`, closed with the test."""
    async with AsyncExitStack() as probes:

        def probe_of(check: HealthCheck) -> Probe:
            probe = make_probe("web", check)
            probes.push_async_callback(probe.close)
            return probe

        yield probe_of


@pytest_asyncio.fixture
async def backends() -> AsyncIterator[UnreliableBackends]:
    async with UnreliableBackends(1) as one:
        yield one


async def check_http(make: Make, backends: UnreliableBackends, mood: Mood, **settings: Any) -> Outcome:
    (address,) = backends.addresses
    backends.become(address, mood)
    return await make(HttpCheck("/healthz", **{"timeout": PATIENT, **settings})).check(Endpoint(address))


class TestHttp:
    async def test_200_passes_and_the_request_says_what_it_is(self, make: Make, backends: UnreliableBackends) -> None:
        assert await check_http(make, backends, Mood.ANSWERS) == Outcome()
        request, *headers = backends.last.lower().split("\r\n")
        assert request == "get /healthz http/1.1"
        assert {"host: web", "user-agent: lbcore/hc"} <= set(headers)

    async def test_host_and_method_are_as_set(self, make: Make, backends: UnreliableBackends) -> None:
        assert (await check_http(make, backends, Mood.ANSWERS, host="a.internal", method="POST", send=b"{}")).passed
        assert backends.last.startswith("POST /healthz")
        assert "Host: a.internal" in backends.last
        assert "content-length: 2" in backends.last.lower()

    async def test_another_status_fails_at_once(self, make: Make, backends: UnreliableBackends) -> None:
        outcome = await check_http(make, backends, Mood.FAILS)
        assert (outcome.cause, outcome.counts, outcome.reason) == (Cause.ACTIVE, False, "status 503")

    async def test_a_retriable_status_counts_to_the_threshold(self, make: Make, backends: UnreliableBackends) -> None:
        outcome = await check_http(make, backends, Mood.FAILS, retriable_statuses=[range(500, 600)])
        assert (outcome.cause, outcome.counts) == (Cause.ACTIVE, True)

    async def test_expected_statuses_replace_200(self, make: Make, backends: UnreliableBackends) -> None:
        assert (await check_http(make, backends, Mood.FAILS, expected_statuses=[503])).passed
        assert not (await check_http(make, backends, Mood.ANSWERS, expected_statuses=[503])).passed
        assert (await check_http(make, backends, Mood.FAILS, expected_statuses=[503], retriable_statuses=[503])).passed

    @pytest.mark.parametrize(
        ("body", "receive", "passes"),
        [
            (b"all is well", b"well", True),
            (b"all is well", [b"all", b"well"], True),
            (b"all is well", [b"well", b"all"], False),
            (b"", b"well", False),
            (b"." * 1024 + b"well", b"well", False),
            (b"." * 1020 + b"well", b"well", True),
        ],
    )
    async def test_the_body_must_hold_what_is_received(
        self, make: Make, backends: UnreliableBackends, body: bytes, receive: Any, passes: bool
    ) -> None:
        backends.body = body
        outcome = await check_http(make, backends, Mood.ANSWERS, receive=receive)
        assert outcome.passed == passes
        assert passes or not outcome.counts

    async def test_all_of_the_body_is_looked_at_where_the_buffer_has_no_limit(
        self, make: Make, backends: UnreliableBackends
    ) -> None:
        backends.body = b"." * 200_000 + b"well"
        assert (await check_http(make, backends, Mood.ANSWERS, receive=b"well", response_buffer_size=0)).passed

    async def test_degraded_and_leaving_are_heard(self, make: Make, backends: UnreliableBackends) -> None:
        assert (await check_http(make, backends, Mood.DEGRADED)).degraded
        assert (await check_http(make, backends, Mood.LEAVES)).excluded

    @pytest.mark.parametrize(
        ("mood", "cause"),
        [
            (Mood.HANGS, Cause.NETWORK_TIMEOUT),
            (Mood.RESETS, Cause.NETWORK),
            (Mood.GARBAGE, Cause.NETWORK),
        ],
    )
    async def test_failures_of_the_network_count(
        self, make: Make, backends: UnreliableBackends, mood: Mood, cause: Cause
    ) -> None:
        timeout = TIMEOUT if cause is Cause.NETWORK_TIMEOUT else PATIENT
        outcome = await check_http(make, backends, mood, timeout=timeout)
        assert (outcome.cause, outcome.counts) == (cause, True)
        assert outcome.reason

    async def test_a_refused_connection_is_one_too(self, make: Make, backends: UnreliableBackends) -> None:
        await backends.refuse(backends.addresses[0])
        outcome = await check_http(make, backends, Mood.ANSWERS)
        assert outcome.cause is Cause.NETWORK

    async def test_one_connection_serves_all_checks_of_an_endpoint(
        self, make: Make, backends: UnreliableBackends
    ) -> None:
        endpoint = Endpoint(backends.addresses[0])
        probe = make(HttpCheck(timeout=PATIENT))
        assert all([(await probe.check(endpoint)).passed for _ in range(5)])
        assert backends.connections[endpoint.address] == 1

    async def test_and_none_is_kept_where_that_is_asked(self, make: Make, backends: UnreliableBackends) -> None:
        endpoint = Endpoint(backends.addresses[0])
        probe = make(HttpCheck(timeout=PATIENT, reuse_connection=False))
        assert all([(await probe.check(endpoint)).passed for _ in range(3)])
        assert backends.connections[endpoint.address] == 3

    async def test_a_restarted_backend_passes_again(self, make: Make, backends: UnreliableBackends) -> None:
        endpoint = Endpoint(backends.addresses[0])
        probe = make(HttpCheck(timeout=PATIENT))
        assert (await probe.check(endpoint)).passed
        await backends.refuse(endpoint.address)
        assert not (await probe.check(endpoint)).passed
        await backends.listen(endpoint.address)
        assert (await probe.check(endpoint)).passed

    async def test_unix_sockets(self, make: Make, tmp_path: Path) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        async with tcp_server(answer, f"unix:{tmp_path}/web.sock"):
            probe = make(HttpCheck(timeout=PATIENT))
            assert (await probe.check(Endpoint(f"unix:{tmp_path}/web.sock"))).passed
            assert not (await probe.check(Endpoint(f"unix:{tmp_path}/none.sock"))).passed


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("web.internal").configure_cert(context)
    return context


class TestTls:
    @pytest.fixture
    def ca_file(self, authority: trustme.CA, tmp_path: Path) -> str:
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(path))
        return str(path)

    @pytest.mark.parametrize("kind", [HttpCheck, TcpCheck])
    async def test_the_certificate_decides(
        self, make: Make, server_context: ssl.SSLContext, ca_file: str, kind: Callable[..., HealthCheck]
    ) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.read(1):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        async with tcp_server(answer, context=server_context) as address:
            named = Endpoint(address, hostname="web.internal")
            nameless = Endpoint(address)

            async def check(endpoint: Endpoint, tls: CheckTls) -> Outcome:
                return await make(kind(timeout=PATIENT, tls=tls, checked_by="service")).check(endpoint)

            trusting = CheckTls(ca_file=ca_file)
            assert (await check(named, trusting)).passed
            assert (await check(nameless, CheckTls(ca_file=ca_file, server_name="web.internal"))).passed
            assert (await check(nameless, trusting)).cause is Cause.NETWORK
            assert (await check(named, CheckTls())).cause is Cause.NETWORK
            assert (await check(nameless, CheckTls(verify=False))).passed


class TestTcp:
    @staticmethod
    async def check(make: Make, answers: Callable[[bytes], bytes], **settings: Any) -> Outcome:
        """Against a server that answers each thing it reads; empty: it hangs."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while asked := await reader.read(1000):
                for each in answers(asked).split(b"|"):
                    writer.write(each)
                    await asyncio.sleep(0.01)

        async with tcp_server(serve) as address:
            endpoint = Endpoint(address)
            probe = make(TcpCheck(**{"timeout": PATIENT, **settings}))
            first = await probe.check(endpoint)
            assert await probe.check(endpoint) == first  # on the kept connection, or a new one
            await probe.close()
            return first

    async def test_connecting_is_enough(self, make: Make) -> None:
        assert (await self.check(make, lambda asked: asked)).passed

    async def test_an_answer_in_parts_passes(self, make: Make) -> None:
        outcome = await self.check(make, lambda _: b"+PO|NG\r\n", send=b"PING\r\n", receive=b"+PONG")
        assert outcome.passed

    async def test_a_wrong_answer_ends_with_the_time_limit(self, make: Make) -> None:
        outcome = await self.check(make, lambda _: b"-ERR", send=b"PING", receive=b"+PONG", timeout=TIMEOUT)
        assert outcome.cause is Cause.NETWORK_TIMEOUT

    async def test_nobody_listens(self, make: Make, backends: UnreliableBackends) -> None:
        (address,) = backends.addresses
        await backends.refuse(address)
        outcome = await make(TcpCheck(timeout=PATIENT)).check(Endpoint(address))
        assert (outcome.cause, outcome.counts) == (Cause.NETWORK, True)

    async def test_a_connection_closed_early_fails(self, make: Make, backends: UnreliableBackends) -> None:
        (address,) = backends.addresses
        backends.become(address, Mood.RESETS)
        check = TcpCheck(send=b"GET / HTTP/1.1\r\n\r\n", receive=b"200", timeout=PATIENT)
        assert (await make(check).check(Endpoint(address))).cause is Cause.NETWORK


class TestGrpc:
    @pytest_asyncio.fixture
    async def servicer(self) -> health.aio.HealthServicer:  # type: ignore[name-defined]
        return health.aio.HealthServicer()  # type: ignore[attr-defined]

    @pytest_asyncio.fixture
    async def endpoint(self, servicer: Any) -> AsyncIterator[Endpoint]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield Endpoint(f"127.0.0.1:{port}")
        await server.stop(None)

    async def test_serving_passes_and_all_else_fails_at_once(
        self, make: Make, servicer: Any, endpoint: Endpoint
    ) -> None:
        probe = make(GrpcCheck("shop", timeout=PATIENT))
        status = health_pb2.HealthCheckResponse
        await servicer.set("shop", status.SERVING)
        assert (await probe.check(endpoint)).passed
        await servicer.set("shop", status.NOT_SERVING)
        assert await probe.check(endpoint) == Outcome(Cause.ACTIVE, "NOT_SERVING")
        assert (await make(GrpcCheck("other", timeout=PATIENT)).check(endpoint)).reason.startswith("NOT_FOUND")
        assert (await make(GrpcCheck(timeout=PATIENT)).check(endpoint)).passed  # the server as a whole

    async def test_a_watch_wakes_when_the_status_changes(self, make: Make, servicer: Any, endpoint: Endpoint) -> None:
        heard = asyncio.Event()
        probe = make(GrpcCheck("shop", watch=True))
        watching = asyncio.ensure_future(probe.watch(endpoint, heard.set))
        await asyncio.wait_for(heard.wait(), PATIENT)
        heard.clear()
        await servicer.set("shop", health_pb2.HealthCheckResponse.NOT_SERVING)
        await asyncio.wait_for(heard.wait(), PATIENT)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    async def test_without_watch_nothing_is_watched(self, make: Make, endpoint: Endpoint) -> None:
        await asyncio.wait_for(make(GrpcCheck()).watch(endpoint, lambda: None), PATIENT)

    @pytest.mark.parametrize(
        ("mood", "cause"),
        [(Mood.RESETS, Cause.NETWORK), (Mood.GARBAGE, Cause.NETWORK), (Mood.HANGS, Cause.NETWORK_TIMEOUT)],
    )
    async def test_what_is_no_grpc_server_fails(
        self, make: Make, backends: UnreliableBackends, mood: Mood, cause: Cause
    ) -> None:
        (address,) = backends.addresses
        backends.become(address, mood)
        timeout = TIMEOUT if cause is Cause.NETWORK_TIMEOUT else PATIENT
        assert (await make(GrpcCheck(timeout=timeout)).check(Endpoint(address))).cause is cause

    async def test_a_status_unavailable_is_an_answer_not_a_lost_connection(self, make: Make) -> None:
        async def refuse(_request: bytes, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {"Check": grpc.unary_unary_rpc_method_handler(refuse)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        outcome = await make(GrpcCheck(timeout=PATIENT)).check(Endpoint(f"127.0.0.1:{port}"))
        await server.stop(None)
        assert outcome == Outcome(Cause.ACTIVE, "UNAVAILABLE: not now")

    def test_certificates_are_always_verified(self) -> None:
        with pytest.raises(InvalidSetting, match="verify False: expected true for grpc"):
            make_probe("web", GrpcCheck(tls=CheckTls(verify=False), checked_by="service"))
