"""Probes for load, answered by real servers; the cluster then picks by what they found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
import pytest
from aiohttp import web
from xds.data.orca.v3 import orca_load_report_pb2

from lbcore import Cluster, Endpoint, InvalidSetting, LoadReport, Prequal
from lbcore.health.load_probes import GrpcLoadProbe, HttpLoadProbe
from lbcore.health.prober import Prober
from tests.harness.tcp_server import tcp_server

KEEPS = Prequal(removals_per_pick=0.0, max_age=3600.0)


@asynccontextmanager
async def http_server(header: str, *, status: int = 200, delay: float = 0.0) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/load"
        await asyncio.sleep(delay)
        return web.Response(status=status, headers={"endpoint-load-metrics": header} if header else {})

    app = web.Application()
    app.router.add_get("/load", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def grpc_server(rif: int, code: grpc.StatusCode = grpc.StatusCode.OK) -> AsyncIterator[str]:
    report = orca_load_report_pb2.OrcaLoadReport(named_metrics={"rif": rif, "latency": 0.25})

    async def check(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        text = f"TEXT named_metrics.rif={rif}, named_metrics.latency=0.25"
        context.set_trailing_metadata((("endpoint-load-metrics", text),))
        if code is not grpc.StatusCode.OK:
            context.set_code(code)
        return b""

    async def metrics(_: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        while True:
            yield report.SerializeToString()
            await asyncio.sleep(30.0)

    handlers = {
        "grpc.health.v1.Health": {"Check": grpc.unary_unary_rpc_method_handler(check)},
        "xds.service.orca.v3.OpenRcaService": {"StreamCoreMetrics": grpc.unary_stream_rpc_method_handler(metrics)},
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(service, methods) for service, methods in handlers.items())
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(6000):
        if reached():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not reached within 30 s")


def scores(cluster: Cluster) -> dict[str, float | None]:
    return {each.endpoint.address: each.score for each in cluster.explain().candidates}


async def test_http_probes_have_the_cluster_pick_the_quickest_that_is_not_hot() -> None:
    async with AsyncExitStack() as stack:
        slow, quick, silent, wrong = [
            await stack.enter_async_context(http_server(header, status=status))
            for header, status in (
                ("TEXT named_metrics.rif=1, named_metrics.latency=0.3", 200),
                ('JSON {"named_metrics": {"rif": 1, "latency": 0.1}}', 503),
                ("", 200),
                ("nonsense", 200),
            )
        ]
        cluster = Cluster("web", [Endpoint(each) for each in (slow, quick, silent, wrong)], policy=KEEPS, seed=1)
        async with Prober(cluster, HttpLoadProbe("/load", timeout=20.0), probes=4) as prober:
            prober.picked()
            await until(lambda: prober.counts.total() == 4)
        assert prober.counts == {"observed": 2, "failed": 2}
        assert {cluster.pick().address for _ in range(20)} == {quick}
        assert scores(cluster)[slow] == pytest.approx(0.3)


@pytest.mark.parametrize("method", [None, "/grpc.health.v1.Health/Check"])
@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE])
async def test_grpc_probes_ask_the_orca_service_or_read_trailers_whatever_the_status(
    method: str | None, code: grpc.StatusCode
) -> None:
    async with grpc_server(7, code) as address:
        cluster = Cluster("web", [Endpoint(address), Endpoint("127.0.0.1:1")], policy=KEEPS, seed=1)
        async with Prober(cluster, GrpcLoadProbe(method, timeout=20.0), probes=2) as prober:
            prober.picked()
            await until(lambda: prober.counts.total() == 2)
        assert prober.counts == {"observed": 1, "failed": 1}
        assert scores(cluster)[address] == pytest.approx(0.25)


async def test_an_interval_goes_on_and_follows_the_membership() -> None:
    async with http_server("TEXT named_metrics.rif=2") as one, http_server("TEXT named_metrics.rif=0") as other:
        cluster = Cluster("web", [Endpoint(one)], policy=KEEPS, seed=1)
        async with Prober(cluster, HttpLoadProbe("/load"), probes=1, interval=0.01, seed=1) as prober:
            await until(lambda: prober.counts["observed"] >= 3)
            cluster.update([Endpoint(other)])
            await until(lambda: (scores(cluster)[other] or 0.0) < 1e12)


async def test_a_server_that_does_not_answer_in_time_costs_its_probe_alone() -> None:
    async with http_server("TEXT named_metrics.rif=2", delay=30.0) as address:
        cluster = Cluster("web", [Endpoint(address)], policy=KEEPS, seed=1)
        async with Prober(cluster, HttpLoadProbe("/load", timeout=0.05), probes=1) as prober:
            prober.picked()
            await until(lambda: prober.counts["failed"] == 1)


async def test_a_probe_that_raises_counts_as_failed_and_the_next_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Raising:
        asked = 0

        async def ask(self, _: Endpoint) -> LoadReport | None:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("of the caller's own making")
            return LoadReport(rif=1)

        async def close(self) -> None: ...

    cluster = Cluster("web", [Endpoint("10.0.0.1:80")], policy=KEEPS)
    async with Prober(cluster, Raising(), probes=1) as prober:
        for count in (1, 2):
            prober.picked()
            await until(lambda count=count: prober.counts.total() == count)  # type: ignore[misc]
    assert prober.counts == {"failed": 1, "observed": 1}
    assert "of the caller's own making" in caplog.text


async def test_channels_of_endpoints_that_have_left_are_closed() -> None:
    opened, closed = [], []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(reader)
        writer.write(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # SETTINGS: gRPC closes nothing before it has them
        try:
            while await reader.read(4096):
                pass
        finally:
            closed.append(reader)

    async with AsyncExitStack() as stack:
        leaves = await stack.enter_async_context(tcp_server(silent))
        stays = await stack.enter_async_context(grpc_server(3))
        cluster = Cluster("web", [Endpoint(leaves), Endpoint(stays)], policy=KEEPS)
        async with Prober(cluster, GrpcLoadProbe(timeout=0.2), probes=2) as prober:
            prober.picked()
            await until(lambda: prober.counts.total() == 2 and bool(opened))
            assert closed == []
            cluster.update([Endpoint(stays)])
            prober.picked()
            await until(lambda: closed == opened)
            await until(lambda: prober.counts["observed"] == 2)


async def test_an_endpoint_is_forgotten_once_its_last_probe_has_ended_and_not_where_it_comes_back() -> None:
    class Keeping:
        def __init__(self) -> None:
            self.told: list[str] = []
            self.answer = asyncio.Event()

        async def ask(self, endpoint: Endpoint) -> LoadReport | None:
            await self.answer.wait()
            self.told.append(f"asked {endpoint.address}")
            return None

        async def forget(self, endpoint: Endpoint) -> None:
            self.told.append(f"forgot {endpoint.address}")
            raise RuntimeError("of the caller's own making")

        async def close(self) -> None: ...

    one, two, three = map(Endpoint, ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
    cluster = Cluster("web", [one, two], policy=KEEPS)
    probe = Keeping()
    async with Prober(cluster, probe, probes=2) as prober:
        prober.picked()
        for members in ([three], [three, two]):
            cluster.update(members)
            prober.picked()
        await asyncio.sleep(0.01)
        assert probe.told == []
        probe.answer.set()
        await until(lambda: "forgot 10.0.0.1:80" in probe.told)
        assert probe.told.index("forgot 10.0.0.1:80") > probe.told.index("asked 10.0.0.1:80")
        await until(lambda: prober.counts.total() == 5)
        assert "forgot 10.0.0.2:80" not in probe.told


class Hanging:
    closed = False

    async def ask(self, _: Endpoint) -> LoadReport | None:
        await asyncio.Event().wait()
        return None

    async def close(self) -> None:
        self.closed = True


async def test_no_more_than_the_limit_are_under_way_and_all_end_with_the_prober() -> None:
    cluster = Cluster("web", [Endpoint(f"10.0.0.{i}:80") for i in range(10)], policy=KEEPS)
    probe = Hanging()
    async with Prober(cluster, probe, probes=2.5, max_concurrent=4) as prober:
        for _ in range(4):
            prober.picked()
        assert prober.counts == {"skipped": 6}
    assert probe.closed


async def test_a_cluster_without_endpoints_is_asked_nothing() -> None:
    async with Prober(Cluster("web", policy=KEEPS), Hanging()) as prober:
        prober.picked()
        assert not prober.counts


@pytest.mark.parametrize("setting", [{"probes": -1}, {"interval": 0}, {"max_concurrent": 0}])
def test_settings_out_of_range_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(setting))):
        Prober(Cluster("web", policy=KEEPS), Hanging(), **setting)  # type: ignore[arg-type]
