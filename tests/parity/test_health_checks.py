"""What lbcore's own checks find, in the real Envoy that it feeds; by EDS alone, because Envoy is asked for none."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import yaml

from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.harness.service import ROOT, LbcoreService
from tests.harness.traffic import HttpTraffic

CHECK = {"http": {"path": "/healthz"}, "interval": "50ms", "timeout": "2s", "healthy_threshold": 2}


def test_envoy_leaves_a_host_that_fails_its_check_and_returns_to_it(
    start_service: Callable[[str], LbcoreService],
    start_backends: Callable[..., HttpBackends],
    start_envoy: Callable[..., Envoy],
) -> None:
    backends = start_backends(["127.0.0.1"] * 3)
    one, two, three = backends.addresses
    ingress = f"127.0.0.1:{free_port()}"
    web = {"endpoints": [one, two, three], "health_check": {**CHECK, "checked_by": "service"}}
    listener = {"name": "ingress", "address": ingress, "routes": [{"prefix": "/", "service": "web"}]}
    service = start_service(json.dumps({"services": {"web": web}, "listeners": [listener]}))
    bootstrap: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "envoy.yaml").read_text())
    (cluster,) = bootstrap["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = int(service.grpc.rpartition(":")[2])
    envoy = start_envoy(bootstrap)
    wait_until(lambda: "ingress" in envoy.listeners(), "the listener")

    def settled(load: HttpTraffic, wanted: set[str]) -> Callable[[], bool]:
        def now() -> bool:
            mark = load.mark()
            wait_until(lambda: sum(load.since(mark).values()) >= 30, "30 more requests")
            return set(load.since(mark)) == wanted

        return now

    with ExitStack() as running:
        load = running.enter_context(HttpTraffic(ingress))
        wait_until(settled(load, {one, two, three}), "requests to all three")
        backends.behave(one, status=503)
        wait_until(settled(load, {two, three}), "requests to the two that pass")
        backends.behave(one)
        wait_until(settled(load, {one, two, three}), "requests to all three again")
