"""End to end: a file, `lbcore serve`, and the real Envoy and unmodified gRPC clients that it steers.

Envoy starts from `examples/envoy.yaml`, gRPC from `examples/grpc-bootstrap.json`, each with the service's address.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
import yaml

from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until
from tests.harness.service import ROOT, LbcoreService
from tests.harness.traffic import HttpTraffic

EXAMPLES = ROOT / "examples"


class Load(Protocol):
    """Requests without a pause."""

    @property
    def failures(self) -> list[str]: ...
    def mark(self) -> int: ...
    def since(self, mark: int) -> Counter[str]: ...


class GrpcLoad:
    """A gRPC client, a process of its own, that calls without a pause."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def failures(self) -> list[str]:
        return [line for line in self._lines() if line.startswith("FAIL")]

    def mark(self) -> int:
        return len(self._lines())

    def since(self, mark: int) -> Counter[str]:
        return Counter(self._lines()[mark:])

    def _lines(self) -> list[str]:
        assert self._process.alive, self._process.report()
        return self._process.stdout.splitlines()


class World:
    """Three backends, a service whose file names some of them, and a client under load."""

    def __init__(self, kind: str, running: ExitStack, start_service: Callable[[str], LbcoreService]) -> None:
        over_envoy = kind in ("GRPC", "DELTA_GRPC")
        backends: HttpBackends | GrpcBackends
        backends = HttpBackends(["127.0.0.1"] * 3) if over_envoy else GrpcBackends(["127.0.0.1:0"] * 3)
        self.addresses = running.enter_context(backends).addresses
        self._ingress = f"127.0.0.1:{free_port()}"
        self.service = start_service(self._configuration(self.addresses[:2]))
        start = self._envoy_load if over_envoy else self._grpc_load
        self.load: Load = start(kind, running)

    def serve(self, addresses: list[str]) -> None:
        self.service.replace(self._configuration(addresses))

    def wait_for(self, addresses: list[str], time_limit: float = 30.0) -> None:
        """Waits until exactly these get requests."""
        wanted = set(addresses)

        def settled() -> bool:
            mark = self.load.mark()
            self.wait_for_requests(mark)
            return self.load.since(mark).keys() == wanted

        wait_until(settled, f"requests to {addresses} alone", time_limit)

    def wait_for_requests(self, mark: int, count: int = 50) -> None:
        wait_until(lambda: sum(self.load.since(mark).values()) >= count, f"{count} more requests")

    def _configuration(self, addresses: list[str]) -> str:
        routes = [{"prefix": "/", "service": "web"}]
        listener = {"name": "ingress", "address": self._ingress, "routes": routes}
        web = {"policy": "round_robin", "endpoints": addresses}
        return json.dumps({"services": {"web": web}, "listeners": [listener]})

    def _envoy_load(self, api_type: str, running: ExitStack) -> Load:
        bootstrap: dict[str, Any] = yaml.safe_load((EXAMPLES / "envoy.yaml").read_text())
        bootstrap["dynamic_resources"]["ads_config"]["api_type"] = api_type
        (cluster,) = bootstrap["static_resources"]["clusters"]
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        port = int(self.service.grpc.rpartition(":")[2])
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
        envoy = running.enter_context(Envoy(bootstrap))
        wait_until(lambda: "ingress" in envoy.listeners(), "the listener")
        return running.enter_context(HttpTraffic(self._ingress))

    def _grpc_load(self, kind: str, running: ExitStack) -> Load:
        bootstrap: dict[str, Any] = json.loads((EXAMPLES / "grpc-bootstrap.json").read_text())
        bootstrap["xds_servers"][0]["server_uri"] = self.service.grpc
        argv = [sys.executable, "-m", "tests.parity.grpc_caller", kind, "xds:///web"]
        environment = {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "PYTHONPATH": str(ROOT)}
        return GrpcLoad(running.enter_context(Process(argv, env=environment, cwd=ROOT)))


@pytest.fixture(params=["GRPC", "DELTA_GRPC", "sync", "aio"])
def world(request: pytest.FixtureRequest, start_service: Callable[[str], LbcoreService]) -> Iterator[World]:
    with ExitStack() as running:
        yield World(request.param, running, start_service)


def test_a_change_of_the_file_is_followed_without_a_failed_request(world: World) -> None:
    one, two, three = world.addresses
    world.wait_for([one, two])
    start = world.load.mark()
    world.serve([two, three])
    wait_until(lambda: three in world.load.since(start), "the new endpoint")
    world.wait_for([two, three])
    assert world.load.failures == []


def test_a_broken_file_takes_nothing_away(world: World) -> None:
    one, two, _ = world.addresses
    world.wait_for([one, two])
    world.service.replace("services: {web: {endpoints: [")
    world.service.process.wait_for_output("last good configuration stays", stream="stderr")
    world.wait_for([one, two])
    assert world.load.failures == []


def test_a_restart_costs_no_request_and_a_changed_file_is_followed(world: World) -> None:
    one, two, three = world.addresses
    world.wait_for([one, two])
    assert world.service.end() == 0
    world.wait_for([one, two])
    world.serve([two, three])
    world.service.restart()
    world.wait_for([two, three], 40)
    assert world.load.failures == []
