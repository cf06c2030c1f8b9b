"""`lbcore serve --workers 2`: one process builds, two carry the streams, and nobody can tell the difference."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from lbcore.client import PickerClient
from lbcore.client.nodes import fetch_nodes
from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.harness.service import LbcoreService, lbcore
from tests.harness.traffic import HttpTraffic
from tests.parity.example_client import Caller, caller_process
from tests.parity.example_envoy import bootstrap
from tests.xds.clients import EDS, DeltaClient, SotwClient, method_path, ports, resources

WORKERS = 2


def configuration(ingress: str, endpoints: list[str], **services: Any) -> str:
    listener = {"name": "in", "address": ingress, "routes": [{"prefix": "/", "service": "web"}]}
    web = {"policy": "round_robin", "endpoints": endpoints}
    return json.dumps(
        {
            "services": {"web": web, **services},
            "listeners": [listener],
            "xds": {"load_reporting_interval": "1s"},
        }
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], LbcoreService]]:
    with ExitStack() as running:
        yield lambda text: running.enter_context(LbcoreService(tmp_path, text, "--workers", str(WORKERS)))


def workers_of(service: LbcoreService) -> list[int]:
    """The process ids of its workers."""
    pid = service.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def metric(service: LbcoreService, name: str) -> float:
    """The sum over all labels."""
    lines = service.get("/metrics").body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC", "sync"])
def test_real_clients_are_served_while_workers_die(start: Callable[[str], LbcoreService], kind: str) -> None:
    ingress = f"127.0.0.1:{free_port()}"
    over_envoy = kind != "sync"
    with ExitStack() as running:
        backends: Any = HttpBackends(["127.0.0.1"] * 2) if over_envoy else GrpcBackends(["127.0.0.1:0"] * 2)
        one, two = running.enter_context(backends).addresses
        service = start(configuration(ingress, [one]))
        load: Any
        if over_envoy:
            envoy = running.enter_context(Envoy(bootstrap(service, kind)))
            wait_until(lambda: "in" in envoy.listeners(), "the listener")
            load = running.enter_context(HttpTraffic(ingress))
        else:
            load = Caller(running.enter_context(caller_process(service.grpc, "sync", "xds:///web")))
        wait_until(lambda: load.since(0)[one] > 20, "requests")
        wait_until(lambda: fetch_nodes("", service.grpc), "the client among the nodes")
        wait_until(lambda: "::load::" in service.get("/clusters").body.decode(), "its load")
        assert metric(service, "lbcore_xds_acks_total") > 0

        before = workers_of(service)
        assert len(before) == WORKERS
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(set(workers_of(service)) - set(before)) == WORKERS, "new workers")
        mark = load.mark()
        service.replace(configuration(ingress, [two]))
        wait_until(lambda: load.since(mark)[two] > 20, "requests to the new endpoint", 60)
        assert load.failures == []
        wait_until(lambda: fetch_nodes("", service.grpc), "the client among the nodes")
        assert metric(service, "lbcore_worker_restarts_total") == WORKERS
        assert service.end() == 0
        assert all(not Path(f"/proc/{pid}").exists() for pid in before)


def test_workers_share_the_streams_and_tell_the_same(start: Callable[[str], LbcoreService]) -> None:
    near = {"endpoints": [{"address": "10.0.0.1:1", "locality": "eu/a"}, {"address": "10.0.0.2:2", "locality": "us"}]}
    service = start(configuration("127.0.0.1:1", ["10.0.0.9:9"], near={**near, "nearest_first": True}))
    asyncio.run(follow_with_many(service))

    argv = ["--grpc", service.grpc, "--admin", "127.0.0.1:0", "--workers", "2", "--store", "memory"]
    another = lbcore("serve", service.config, *argv)
    assert another.code == 1
    assert f"cannot listen on {service.grpc}" in another.stderr, "strangers do not share the port"

    workers = workers_of(service)
    service.process.signal(signal.SIGKILL)
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the end of workers without a builder"
    )


async def follow_with_many(service: LbcoreService) -> None:
    channels = [
        grpc.aio.insecure_channel(service.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(16)
    ]
    clients: list[Any] = []
    for index, channel in enumerate(channels):
        kind, prefix = ((SotwClient, "Stream"), (DeltaClient, "Delta"))[index % 2]
        only = EDS if index % 4 > 1 else None
        region = {"region": "us"} if index < 8 else {"region": "eu", "zone": "a"}
        node = {"id": f"raw-{index}", "locality": region}
        clients.append(kind(channel, method_path(prefix, only), only, node))
    versions: set[str] = set()
    for index, client in enumerate(clients):
        await client.ask(EDS, "web", "near")
        response = await client.receive(EDS)
        assert ports(resources(response)["near"]) == ([2, 1] if index < 8 else [1, 2])
        if isinstance(client, DeltaClient):
            await client.accept(EDS)
            versions |= {each.version for each in response.resources if each.name == "web"}
        else:
            client.versions[EDS] = response.version_info
            await client.ask(EDS, "web", "near")
    assert len(versions) == 1, "equal in every process"
    everybody = {f"raw-{index}" for index in range(len(clients))}
    await until(lambda: {each.node for each in fetch_nodes("", service.grpc)} == everybody)
    await until(lambda: metric(service, "lbcore_xds_streams") == len(clients))

    service.replace(configuration("127.0.0.1:1", ["10.0.0.9:10"]))
    for client in clients:
        response = await client.receive(EDS)
        assert ports(resources(response)["web"]) == [10]
    await clients[0].refuse(EDS, "web", "near", error="not to my taste")
    await until(lambda: metric(service, "lbcore_xds_nacks_total") == 1)
    (refused,) = fetch_nodes("raw-0", service.grpc)
    assert (refused.status, refused.message) == ("ERROR", "not to my taste")

    with PickerClient(service.grpc) as picker:  # answered by the process that builds
        assert (await asyncio.to_thread(picker.pick, "web")).address == "10.0.0.9:10"
    for client in clients:
        client.cancel()
    for channel in channels:
        await channel.close()
    await until(lambda: metric(service, "lbcore_xds_streams") == 0)


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition, "a condition")
