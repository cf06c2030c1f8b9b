"""`lbcore.connect`: a cluster from a target, its first members, how it follows them, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

import lbcore
from lbcore.errors import InvalidSetting, SourceTimedOut, UnknownService
from lbcore.source import Dns
from tests.harness.etcd import Etcd, needs_etcd
from tests.harness.name_server import NameServer
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService, web_with
from tests.xds.clients import eventually

FILE = "services: {{web: {{policy: {policy}, endpoints: [{addresses}]}}, api: {{}}}}"


def addresses(cluster: lbcore.Cluster) -> list[str]:
    return [endpoint.address for endpoint in cluster.endpoints]


def write(path: Path, *wanted: str, policy: str = "random") -> Path:
    beside = path.with_suffix(".new")
    beside.write_text(FILE.format(addresses=", ".join(wanted), policy=policy))
    return beside.rename(path)


async def test_addresses_in_the_target_need_no_source() -> None:
    async with lbcore.connect("ipv4:10.0.0.1:80,10.0.0.2:80", policy=lbcore.RoundRobin(), seed=1) as cluster:
        assert {cluster.pick().address for _ in range(2)} == {"10.0.0.1:80", "10.0.0.2:80"}
        assert cluster.stale == ""


async def test_a_name_is_resolved_and_followed_through_an_outage(tmp_path: Path) -> None:
    with NameServer(tmp_path, "host-record=web.internal,10.0.0.1,1") as server:
        target = f"dns://{server.address}/web.internal:80?min_ttl=50ms&timeout=1s&dns_lookup_family=v4_only"
        async with lbcore.connect(target, policy=lbcore.Random()) as cluster:
            assert (cluster.name, addresses(cluster), cluster.stale) == ("web.internal", ["10.0.0.1:80"], "")
            server.stop()
            await eventually(lambda: cluster.stale == "A web.internal: no answer within 1 s")
            assert addresses(cluster) == ["10.0.0.1:80"]
            server.change("host-record=web.internal,10.0.0.2,1")
            await eventually(lambda: addresses(cluster) == ["10.0.0.2:80"])
            assert cluster.stale == ""


async def test_a_source_may_stand_for_the_target(tmp_path: Path) -> None:
    with NameServer(tmp_path, "host-record=web.internal,10.0.0.1") as server:
        source = Dns("web.internal", port=80, resolvers=(server.address,), dns_lookup_family="v4_only")
        cluster = await lbcore.connect(source, name="shop")
        assert (cluster.name, addresses(cluster)) == ("shop", ["10.0.0.1:80"])
        await cluster.aclose()
        await cluster.aclose()
        assert addresses(cluster) == ["10.0.0.1:80"]


async def test_requests_in_flight_survive_a_change_of_members(tmp_path: Path) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    async with lbcore.connect(f"file://{path}?service=web") as cluster:
        lease = cluster.acquire()
        write(path, "10.0.0.1:80", "10.0.0.2:80")
        await eventually(lambda: len(cluster.endpoints) == 2)
        assert cluster.stats().active == 1
        lease.done()


async def test_a_file_gives_its_service_s_settings_unless_the_caller_does(tmp_path: Path) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80", policy="maglev")
    async with lbcore.connect(f"file://{path}?service=web") as cluster:
        assert (cluster.name, cluster.policy) == ("web", lbcore.Maglev())
    async with lbcore.connect(f"file://{path}?service=web", policy=lbcore.Random()) as cluster:
        assert cluster.policy == lbcore.Random()


async def test_a_service_that_leaves_its_file_has_no_members(tmp_path: Path) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    async with lbcore.connect(f"file://{path}?service=web") as cluster:
        path.write_text("services: {}")
        await eventually(lambda: addresses(cluster) == [])


async def test_a_file_that_goes_bad_keeps_the_members_and_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    async with lbcore.connect(f"file://{path}?service=web") as cluster:
        path.write_text("services: [")
        await eventually(lambda: cluster.stale)
        assert addresses(cluster) == ["10.0.0.1:80"]


async def test_a_service_of_a_file_may_have_a_source(tmp_path: Path) -> None:
    with NameServer(tmp_path, "host-record=web.internal,10.0.0.1") as server:
        path = tmp_path / "lb.yaml"
        dns = f"{{name: web.internal, port: 80, resolvers: ['{server.address}'], dns_lookup_family: v4_only}}"
        path.write_text(f"services: {{web: {{policy: maglev, source: {{dns: {dns}}}}}}}")
        async with lbcore.connect(f"file://{path}") as cluster:
            assert (addresses(cluster), cluster.policy) == (["10.0.0.1:80"], lbcore.Maglev())


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("", InvalidSetting, "has 2 services: expected \\?service=NAME after the path"),
        ("?service=wob", UnknownService, "service 'wob': unknown in"),
    ],
)
async def test_the_service_of_a_file_must_be_there(
    tmp_path: Path, query: str, error: type[Exception], message: str
) -> None:
    path = write(tmp_path / "lb.yaml")
    with pytest.raises(error, match=message):
        await lbcore.connect(f"file://{path}{query}")


async def test_a_source_that_does_not_answer_in_time_is_told_with_its_failure() -> None:
    with pytest.raises(SourceTimedOut, match=r"dns://.*: not heard from within 2 s: AAAA web.internal: no answer"):
        await lbcore.connect("dns://127.0.0.1:1/web.internal:80?timeout=100ms", timeout=2.0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("web.internal:80", {}, "target 'web.internal:80': unknown scheme 'web.internal'"),
        (80, {}, "target 80: expected text such as dns:///web.internal:80, or a source"),
        ("ipv4:10.0.0.1:80", {"policy": "random"}, "policy 'random': expected one of"),
        ("dns:///web.internal:80", {"timeout": 0}, "timeout 0: expected a number, more than 0"),
    ],
)
async def test_bad_input_is_refused_at_once(target: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        await lbcore.connect(target, **settings)


async def test_a_cluster_that_nobody_holds_any_more_is_followed_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    cluster = await lbcore.connect(f"file://{path}?service=web")
    assert len(asyncio.all_tasks()) > 1
    del cluster
    gc.collect()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    connecting = asyncio.ensure_future(asyncio.wait_for(lbcore.connect("dns://127.0.0.1:1/web.internal:80"), 0.1))
    with pytest.raises(asyncio.TimeoutError):
        await connecting
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_source_in_a_file_is_waited_for_as_long_as_the_caller_says(tmp_path: Path) -> None:
    """Not for as long as answers of a service would be held back for it, after which there is a cluster of nobody."""
    path = tmp_path / "lb.yaml"
    dns = "{name: web.internal, port: 80, resolvers: ['127.0.0.1:1'], timeout: 100ms, initial_fetch_timeout: 50ms}"
    path.write_text(f"services: {{web: {{source: {{dns: {dns}}}}}}}")
    with pytest.raises(SourceTimedOut, match=r"not heard from within 1 s: AAAA web\.internal: no answer"):
        await lbcore.connect(f"file://{path}", timeout=1.0)


async def test_two_clusters_of_one_target_share_nothing(tmp_path: Path) -> None:
    with NameServer(tmp_path, "host-record=web.internal,10.0.0.1,1") as server:
        target = f"dns://{server.address}/web.internal:80?min_ttl=50ms&timeout=1s&dns_lookup_family=v4_only"
        one, two = await asyncio.gather(lbcore.connect(target), lbcore.connect(target, policy=lbcore.Random()))
        lease = one.acquire()
        assert (one.stats().active, two.stats().active) == (1, 0)
        await one.aclose()
        server.change("host-record=web.internal,10.0.0.2,1")
        await eventually(lambda: addresses(two) == ["10.0.0.2:80"])
        assert addresses(one) == ["10.0.0.1:80"]
        lease.done()
        await two.aclose()


async def test_a_defect_while_following_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    async with lbcore.connect(f"file://{path}?service=web") as cluster:
        with pytest.MonkeyPatch.context() as defect:
            defect.setattr("lbcore.sources.connecting._update", lambda *_: 1 / 0)
            write(path, "10.0.0.2:80")
            await eventually(lambda: cluster.stale)
        assert cluster.stale == "followed no more: ZeroDivisionError('division by zero')"
        assert "a cluster follows its source no more" in caplog.text
        assert cluster.pick().address == "10.0.0.1:80"


def test_a_program_without_a_loop_may_run_one_in_a_thread_and_pick_from_any_other(tmp_path: Path) -> None:
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        connecting = lbcore.connect(f"file://{path}?service=web")
        cluster = asyncio.run_coroutine_threadsafe(awaited(connecting), loop).result(30)
        assert cluster.pick().address == "10.0.0.1:80"
        write(path, "10.0.0.2:80")
        wait_until(lambda: cluster.pick().address == "10.0.0.2:80", "the change")
        asyncio.run_coroutine_threadsafe(cluster.aclose(), loop).result(30)
        left = asyncio.run_coroutine_threadsafe(others(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
    assert left == set()


async def awaited(connecting: Any) -> Any:
    return await connecting


async def others() -> set[Any]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@needs_etcd
async def test_a_closed_cluster_leaves_nothing_behind_whatever_its_source(tmp_path: Path, etcd: Etcd) -> None:
    etcd.put("services/web/a", '{"Addr": "10.0.0.1:80"}')
    path = write(tmp_path / "lb.yaml", "10.0.0.1:80")
    configuration = web_with("10.0.0.1:80")
    (tmp_path / "served").mkdir()
    with (
        NameServer(tmp_path, "host-record=web.internal,10.0.0.1,1") as server,
        LbcoreService(tmp_path / "served", configuration) as service,
    ):
        for target in (
            f"dns://{server.address}/web.internal:80?dns_lookup_family=v4_only",
            f"http://{service.admin}/sd?service=web",
            f"xds://{service.grpc}/web",
            f"xds://{service.grpc}/web?api_type=grpc",
            f"xds://{service.grpc}/web?cds=false",
            f"etcd://{etcd.address}/services/web",
            f"file://{path}?service=web",
        ):
            cluster = await lbcore.connect(target)
            assert addresses(cluster) == ["10.0.0.1:80"], target
            await cluster.aclose()
            ours = {task for task in await others() if "lbcore" in repr(task)}
            assert ours == set(), target
            await eventually(lambda: len(asyncio.all_tasks()) == 1)  # gRPC's own end within a moment
