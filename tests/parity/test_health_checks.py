"""What lbcore's own checks find, in the real Envoy that it feeds; by EDS alone, because Envoy is asked for none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import yaml

from lbcore import Availability, Cluster
from lbcore.directory import ServiceSnapshot
from lbcore.health import HealthChecker, HttpCheck, StringMatcher
from lbcore.model import Endpoint
from lbcore.settings import HealthCheck
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.harness.service import ROOT, LbcoreService
from tests.harness.traffic import HttpTraffic
from tests.parity.example_envoy import bootstrap as envoy_bootstrap

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


async def found_here(check: HealthCheck, addresses: list[str]) -> set[str]:
    """The addresses that pass the check, made by lbcore itself."""
    cluster = Cluster("web", map(Endpoint, addresses), panic_threshold=0)
    async with HealthChecker(cluster, check):
        endpoints = cluster.stats().endpoints
    return {each.endpoint.address for each in endpoints if each.availability is Availability.HEALTHY}


def test_envoy_checks_by_the_same_settings_and_finds_the_same(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    """Headers, the name of the service, and another port; HTTP/2, which these backends do not speak."""
    backends = start_backends(["127.0.0.1", "127.0.0.2", "127.0.0.1"])
    one, two, checked = backends.addresses
    backends.behave(one, status=503)
    backends.behave(checked, headers={"x-envoy-upstream-healthchecked-cluster": "cart-blue"})
    times: dict[str, Any] = {"interval": 0.1, "no_traffic_interval": 0.1, "timeout": 10.0, "checked_by": "clients"}
    port = int(checked.rpartition(":")[2])
    headers: dict[str, Any] = {
        "request_headers_to_remove": ["user-agent"],
        "request_headers_to_add": {"x-probe": "100%", "user-agent": "ours"},
    }

    def check(name: str, **settings: Any) -> HealthCheck:
        matcher = StringMatcher(prefix=name, ignore_case=True)
        return HttpCheck("/healthz", service_name_matcher=matcher, **headers, **times, **settings)

    checks = {
        "right": check("CART", alt_port=port),
        "wrong-name": check("shop", alt_port=port),
        "wrong-port": check("cart"),
        "http2": check("cart", alt_port=port, codec_client_type="http2"),
    }
    endpoints = (Endpoint(one), Endpoint(two))
    control_plane.publish(
        *(ServiceSnapshot(name=name, endpoints=endpoints, health_check=each) for name, each in checks.items())
    )
    envoy = start_envoy(envoy_bootstrap(control_plane, "DELTA_GRPC"))
    for name, each in checks.items():
        expected = asyncio.run(found_here(each, [one, two]))
        assert expected == ({one} if name == "right" else set())  # nobody listens at 127.0.0.2 on that port
        wait_until(lambda: passing(envoy, name) == expected, f"{name}: {expected} pass")  # noqa: B023
    seen = backends.asked[checked]
    assert (seen["x-probe"], seen["user-agent"]) == ("100%", "ours")
    assert control_plane.nacks == []


def passing(envoy: Envoy, service: str) -> set[str] | None:
    """The hosts that pass their checks; None before all have been checked."""
    states = {address: host["health_status"] for address, host in envoy.hosts(service).items()}
    if len(states) < 2 or any(state.get("pending_active_hc", False) for state in states.values()):
        return None
    return {address for address, state in states.items() if not state.get("failed_active_health_check", False)}
