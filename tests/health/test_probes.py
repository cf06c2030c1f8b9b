"""One check at a time, against real servers that answer, fail, hang, reset and talk nonsense."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lbcore import Endpoint, InvalidSetting
from lbcore.health import Cause, GrpcCheck, HeaderValue, HealthCheck, HttpCheck, Outcome, StringMatcher, TcpCheck
from lbcore.health.probe import Probe, make_probe
from lbcore.settings import CheckTls
from tests.harness.tcp_server import tcp_server
from tests.harness.unreliable import Mood, UnreliableBackends

TIMEOUT = 0.3  # seconds
PATIENT = 20.0  # for checks that are to pass

Make = Callable[..., Probe]


@pytest_asyncio.fixture
async def backends() -> AsyncIterator[UnreliableBackends]:
    async with UnreliableBackends(1) as one:
        yield one


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(0.005)


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

    async def test_headers_are_added_and_removed(self, make: Make, backends: UnreliableBackends) -> None:
        added = {"x-probe": "100%", "user-agent": "ours"}
        outcome = await check_http(
            make, backends, Mood.ANSWERS, request_headers_to_add=added, request_headers_to_remove=["user-agent"]
        )
        assert outcome.passed
        lines = backends.last.lower().splitlines()
        assert "x-probe: 100%" in lines
        assert [line for line in lines if line.startswith("user-agent")] == ["user-agent: ours"]

    @pytest.mark.parametrize(
        ("action", "agents"),
        [
            ("append_if_exists_or_add", ["lbcore/HC", "a"]),
            ("overwrite_if_exists_or_add", ["a"]),
            ("overwrite_if_exists", ["a"]),
            ("add_if_absent", ["lbcore/HC"]),
        ],
    )
    async def test_what_becomes_of_a_header_that_is_there(
        self, make: Make, backends: UnreliableBackends, action: Any, agents: list[str]
    ) -> None:
        header = HeaderValue(key="User-Agent", value="a", append_action=action)
        absent = HeaderValue(key="x-new", value="b", append_action=action)
        await check_http(make, backends, Mood.ANSWERS, request_headers_to_add=[header, absent])
        lines = [line.partition(": ") for line in backends.last.splitlines()]
        assert [value for name, _, value in lines if name == "User-Agent"] == agents
        assert ("X-New", ": ", "b") in lines or action == "overwrite_if_exists"

    @pytest.mark.parametrize(
        ("matcher", "name", "passes"),
        [
            ({"exact": "cart"}, "cart", True),
            ({"exact": "cart"}, "cart2", False),
            ({"prefix": "ca"}, "cart", True),
            ({"suffix": "RT", "ignore_case": True}, "cart", True),
            ({"suffix": "RT"}, "cart", False),
            ({"contains": "ar"}, "cart", True),
            ({"safe_regex": "c[a-z]+"}, "cart", True),
            ({"safe_regex": "c[a-z]"}, "cart", False),
            ({"exact": "cart"}, None, False),
            ({"exact": ""}, None, True),
        ],
    )
    async def test_the_service_that_answers_must_be_the_right_one(
        self, make: Make, backends: UnreliableBackends, matcher: Any, name: str | None, passes: bool
    ) -> None:
        backends.headers = f"X-Envoy-Upstream-Healthchecked-Cluster: {name}\r\n" if name else ""
        outcome = await check_http(make, backends, Mood.ANSWERS, service_name_matcher=StringMatcher(**matcher))
        assert (outcome.passed, outcome.counts) == (passes, False)
        assert passes or outcome.reason == f"service {name or ''!r} answered"

    @pytest.mark.parametrize("kind", [HttpCheck, TcpCheck])
    async def test_another_port_may_be_checked(
        self, make: Make, backends: UnreliableBackends, kind: Callable[..., HealthCheck]
    ) -> None:
        (address,) = backends.addresses
        await backends.listen("127.0.0.1:0")
        other = next(each for each in backends.addresses if each != address)
        await backends.refuse(address)
        check = kind(timeout=PATIENT, alt_port=int(other.rpartition(":")[2]))
        assert (await make(check).check(Endpoint(address))).passed
        assert not (await make(kind(timeout=PATIENT)).check(Endpoint(address))).passed

    @pytest.mark.parametrize(
        ("answer", "passes"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\nends with the connection", True),
            (b"HTTP/1.0 200 OK\r\n\r\n", True),
            (b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
            (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", True),
            (b"HTTP/1.1 204 No Content\r\n\r\n", True),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", False),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok", False),
            (b"HTTP/1.1 200 OK\r\ncontent-le", False),
            (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000, False),
            (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", False),
            (b"HTTP/9.9 200\r\n\r\n", False),
            (b"\x00" * 50, False),
            (b"", False),
        ],
    )
    async def test_answers_as_servers_may_give_them(self, make: Make, answer: bytes, passes: bool) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

        async with tcp_server(serve) as address:
            probe = make(HttpCheck(timeout=PATIENT, expected_statuses=[range(200, 300)]))
            for _ in range(2):  # the second is not misled by the first
                outcome = await probe.check(Endpoint(address))
                assert outcome.passed == passes, outcome.reason
                assert passes or outcome.reason

    async def test_a_head_request_needs_no_body(self, make: Make) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")

        async with tcp_server(serve) as address:
            probe = make(HttpCheck(method="HEAD", timeout=PATIENT))
            assert all([(await probe.check(Endpoint(address))).passed for _ in range(3)])

    async def test_a_kept_connection_that_closes_as_a_check_begins_is_no_failure(self, make: Make) -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")  # and closes without an answer

        async with tcp_server(serve) as address:
            probe = make(HttpCheck(timeout=PATIENT))
            assert all([(await probe.check(Endpoint(address))).passed for _ in range(4)])
        assert connections == 4

    async def test_a_check_that_is_cancelled_leaves_no_connection(
        self, make: Make, backends: UnreliableBackends
    ) -> None:
        (address,) = backends.addresses
        backends.become(address, Mood.HANGS)
        checking = asyncio.ensure_future(make(HttpCheck(timeout=PATIENT)).check(Endpoint(address)))
        await until(lambda: backends.requests[address])
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
        await until(lambda: not backends.open[address])


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

    async def test_a_connection_that_the_server_has_half_closed_is_closed_and_replaced(self, make: Make) -> None:
        closed = asyncio.Event()
        opened = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal opened
            opened += 1
            await reader.read(1000)
            writer.write(b"+PONG")
            if opened == 1:
                writer.write_eof()
            with suppress(OSError):
                await reader.read()
            closed.set()

        async with tcp_server(serve) as address:
            endpoint = Endpoint(address)
            probe: Any = make(TcpCheck(timeout=PATIENT, send=b"PING", receive=b"+PONG"))
            assert (await probe.check(endpoint)).passed
            first = probe._kept[address]
            await until(first[0].at_eof)
            assert (await probe.check(endpoint)).passed
            assert opened == 2
            await asyncio.wait_for(closed.wait(), PATIENT)

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
