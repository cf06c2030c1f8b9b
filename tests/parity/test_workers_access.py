"""TLS and grants with worker processes: the workers hold the port, so they prove who calls and judge by it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.load_stats.v3 import lrs_pb2
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.client import PickerClient
from lbcore.client.channel import tls_credentials
from lbcore.errors import LbError
from tests.harness.certificates import Authority, IssuedFiles
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService, lbcore
from tests.xds.clients import LDS, TIME_LIMIT, DeltaClient, SotwClient, method_path

IDENTITY = "spiffe://example.org/a"
GRANT = {"identity": IDENTITY, "services": ["web", "late-*"], "allow": ["xds", "pick"]}
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"


class Credentials:
    """Certificates of a server and of one client, in files, and what the two sides make of them."""

    def __init__(self, folder: Path) -> None:
        authority = Authority()
        self.root = folder / "ca.pem"
        self.root.write_bytes(authority.root)
        self.server = authority.issue_server().write(folder, "server")
        self.client: IssuedFiles = authority.issue(uris=[IDENTITY]).write(folder, "client")

    def tls(self, *, mutual: bool = True, **settings: Any) -> dict[str, Any]:
        """For the configuration."""
        files = {"certificate_file": str(self.server.certificate), "private_key_file": str(self.server.key)}
        return {**files, **({"client_ca_file": str(self.root)} if mutual else {}), **settings}

    def options(self, *, certificate: bool = True) -> list[str | Path]:
        """For the command line."""
        own = ["--certificate-file", self.client.certificate, "--private-key-file", self.client.key]
        return ["--ca-file", self.root, *(own if certificate else ())]

    @asynccontextmanager
    async def channel(self, target: str) -> AsyncIterator[Any]:
        files = (self.root, self.client.key, self.client.certificate)
        credentials = grpc.ssl_channel_credentials(*(each.read_bytes() for each in files))
        async with grpc.aio.secure_channel(target, credentials) as channel:
            yield channel


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path)


def configuration(*services: str, **more: Any) -> str:
    return json.dumps({"services": {name: {"endpoints": ["127.0.0.1:1"]} for name in services}, **more})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], LbcoreService]]:
    """`start(configuration)`: a service with one worker, so that every stream is with it."""
    running: list[LbcoreService] = []

    def one(text: str) -> LbcoreService:
        running.append(LbcoreService(tmp_path, text, "--workers", "1"))
        return running[-1]

    yield one
    for service in running:
        service.__exit__(None, None, None)


def worker_of(service: LbcoreService) -> int:
    """The process id of its worker; 0 while there is none."""
    pid = service.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def test_workers_prove_who_calls(start: Callable[[str], LbcoreService], credentials: Credentials) -> None:
    service = start(configuration("web", "pay", tls=credentials.tls(), access=[GRANT]))
    options = ["--server", service.grpc, *credentials.options()]
    assert lbcore("pick", "web", *options).stdout == "127.0.0.1:1\n"
    assert "unknown" in lbcore("pick", "pay", *options).stderr
    assert "status is not granted" in lbcore("nodes", *options).stderr
    stranger = lbcore("pick", "web", "--server", service.grpc, *credentials.options(certificate=False))
    assert stranger.code == 1


async def test_a_stream_of_load_reports_outlives_every_look_at_who_is_connected(
    start: Callable[[str], LbcoreService], credentials: Credentials
) -> None:
    tls = credentials.tls(check_interval=0.1)

    def granting(late: list[str]) -> str:
        return configuration("web", "pay", *late, tls=tls, access=[GRANT])

    service = await asyncio.to_thread(start, granting([]))
    async with credentials.channel(service.grpc) as channel:
        reporter = Reporter(channel)
        for count in range(4):  # everybody is looked at whenever the configuration changes
            late = [f"late-{number}" for number in range(count)]
            service.replace(granting(late))
            await reporter.reports_until_asked_of({"web", *late})
        reporter.end()


class Reporter:
    """A stream of load reports; its server says anew of what it wants them where that has changed."""

    def __init__(self, channel: Any) -> None:
        self._call = channel.stream_stream(LRS)()
        self._asked: set[str] = set()
        self._reading = asyncio.ensure_future(self._read())

    async def reports_until_asked_of(self, services: set[str]) -> None:
        deadline = asyncio.get_running_loop().time() + TIME_LIMIT
        while self._asked != services:
            assert not self._reading.done(), await self._call.details()
            assert asyncio.get_running_loop().time() < deadline, self._asked
            await self._call.write(lrs_pb2.LoadStatsRequest(node={"id": "edge"}).SerializeToString())
            await asyncio.sleep(0.02)

    def end(self) -> None:
        self._reading.cancel()
        self._call.cancel()

    async def _read(self) -> None:
        while (message := await self._call.read()) is not EOF:
            self._asked = set(lrs_pb2.LoadStatsResponse.FromString(message).clusters)


@pytest.mark.parametrize("client", [SotwClient, DeltaClient])
@pytest.mark.parametrize("program", ["envoy", "gRPC"])
async def test_a_listener_that_stays_as_it_is_comes_into_sight_and_goes_with_where_it_leads(
    start: Callable[[str], LbcoreService], credentials: Credentials, client: type[Any], program: str
) -> None:
    def leading_to(*services: str) -> str:
        shares = dict.fromkeys(services, 1)
        web = {"endpoints": ["127.0.0.1:1"], "route": {"services": shares}}
        listener = {"name": "web", "address": "127.0.0.1:1", "routes": [{"prefix": "/", "services": shares}]}
        return json.dumps(
            {
                "services": {"web": web, "pay": {"endpoints": ["127.0.0.1:1"]}},
                "listeners": [listener],
                "tls": credentials.tls(),
                "access": [GRANT],
            }
        )

    service = await asyncio.to_thread(start, leading_to("web"))
    async with credentials.channel(service.grpc) as channel:
        stream = client(
            channel,
            method_path("Stream" if client is SotwClient else "Delta", None),
            None,
            {
                "id": "edge",
                "user_agent_name": program,
            },
        )
        names = ("web",) if program == "gRPC" else ()
        await stream.ask(LDS, *names)
        for services, seen in ((None, True), (["web", "pay"], False), (["web"], True), (["pay", "web"], False)):
            if services:
                service.replace(leading_to(*services))
            assert await sees_web(stream, *names) is seen
        stream.cancel()


async def sees_web(stream: Any, *names: str) -> bool:
    """Whether the listener is in the next response, which says it or its end."""
    if isinstance(stream, SotwClient):
        return "web" in await stream.settle(LDS, *names)
    there, gone = await stream.settle(LDS)
    assert ("web" in there) != ("web" in gone)
    return "web" in there


class TestKindOfPort:
    """Whether a port has TLS, and asks for certificates, stays as it was at the start, in later workers as well."""

    @staticmethod
    def security(kind: str, credentials: Credentials) -> dict[str, Any]:
        if kind == "plain":
            return {}
        return {"tls": credentials.tls(mutual=kind == "mutual"), **({"access": [GRANT]} if kind == "mutual" else {})}

    @staticmethod
    def client(service: LbcoreService, kind: str, credentials: Credentials) -> PickerClient:
        """One that expects a port of this kind."""
        if kind == "plain":
            return PickerClient(service.grpc)
        own = (str(credentials.client.certificate), str(credentials.client.key)) if kind == "mutual" else ()
        return PickerClient(service.grpc, credentials=tls_credentials(str(credentials.root), *own))

    @pytest.mark.parametrize(
        ("first", "then", "stranger"),
        [
            ("plain", "mutual", "tls"),
            ("tls", "plain", "plain"),
            ("tls", "mutual", "plain"),
            ("mutual", "tls", "tls"),
            ("mutual", "plain", "plain"),
        ],
    )
    def test_it_stays_when_the_configuration_changes_and_workers_die(
        self,
        start: Callable[[str], LbcoreService],
        credentials: Credentials,
        first: str,
        then: str,
        stranger: str,
    ) -> None:
        service = start(configuration("web", **self.security(first, credentials)))
        service.replace(configuration("web", "late-1", **self.security(then, credentials)))

        def picks(kind: str, name: str) -> bool:
            with self.client(service, kind, credentials) as picker, suppress(LbError):
                return bool(picker.pick(name).address)
            return False

        wait_until(lambda: picks(first, "late-1"), "the new configuration, by the port as it was", 60)
        before = worker_of(service)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: worker_of(service) not in (0, before), "another worker")
        wait_until(lambda: picks(first, "web"), "the port as it was, by another worker", 60)
        assert not picks(stranger, "web")
