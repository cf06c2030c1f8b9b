"""Endpoints that announce themselves, and the real Envoy under load: no request to a living one fails."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from lbcore.client import Registration
from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.harness.service import ROOT, LbcoreService
from tests.harness.traffic import HttpTraffic


class World:
    """Three backends that announce themselves as `web`, and requests without a pause through Envoy."""

    def __init__(self, api_type: str, running: ExitStack, start_service: Callable[[str], LbcoreService]) -> None:
        ingress = f"127.0.0.1:{free_port()}"
        listener = {"name": "ingress", "address": ingress, "routes": [{"prefix": "/", "service": "web"}]}
        self.service = start_service(json.dumps({"services": {"web": {}}, "listeners": [listener]}))
        self.backends = running.enter_context(HttpBackends(["127.0.0.1"] * 3))
        self.registrations = [self.announce(address) for address in self.backends.addresses]
        running.callback(lambda: [each.stop(drain=False) for each in self.registrations])
        envoy = running.enter_context(Envoy(self._bootstrap(api_type)))
        wait_until(lambda: "ingress" in envoy.listeners(), "the listener")
        wait_until(lambda: len(envoy.hosts("web")) == 3, "the endpoints")
        self.load = running.enter_context(HttpTraffic(ingress))

    def announce(self, address: str) -> Registration:
        return Registration("web", address, target=self.service.grpc, drain_time=1.0, ttl=10).start()

    def wait_for(self, addresses: list[str], time_limit: float = 30.0) -> None:
        """Waits until exactly these get requests."""

        def settled() -> bool:
            mark = self.load.mark()
            wait_until(lambda: sum(self.load.since(mark).values()) >= 50, "50 more requests")
            return self.load.since(mark).keys() == set(addresses)

        wait_until(settled, f"requests to {addresses} alone", time_limit)

    def _bootstrap(self, api_type: str) -> dict[str, Any]:
        bootstrap: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "envoy.yaml").read_text())
        bootstrap["dynamic_resources"]["ads_config"]["api_type"] = api_type
        (cluster,) = bootstrap["static_resources"]["clusters"]
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        port = int(self.service.grpc.rpartition(":")[2])
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
        return bootstrap


@pytest.fixture(params=["GRPC", "DELTA_GRPC"])
def world(request: pytest.FixtureRequest, start_service: Callable[[str], LbcoreService]) -> Iterator[World]:
    with ExitStack() as running:
        yield World(request.param, running, start_service)


def test_endpoints_come_drain_and_go_and_the_service_is_killed_without_a_failed_request(world: World) -> None:
    world.wait_for(world.backends.addresses)
    world.registrations.pop().stop()  # drains for a second; only then may the backend end
    *others, gone = world.backends.addresses
    world.wait_for(others)
    world.backends.stop(gone)

    world.service.end(signal.SIGKILL)
    world.wait_for(others)
    world.service.restart()
    for registration in world.registrations:
        wait_until(lambda each=registration: each.registered, "the agents to come back")  # type: ignore[misc]
    world.wait_for(others)

    world.registrations.append(world.announce(world.backends.add("127.0.0.1")))
    world.wait_for([*others, world.backends.addresses[-1]], 40)
    assert world.load.failures == []
