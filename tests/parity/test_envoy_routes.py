"""What a route says, done by the real Envoy: shares, retries, timeouts, faults; HTTP/2, Happy Eyeballs, nearness."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from lbcore.directory import ServiceSnapshot
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.model import Endpoint
from lbcore.retry import RetryBackOff, RetryPolicy
from lbcore.routing import Listener, Route
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.parity.example_envoy import bootstrap, listening


def service(name: str, *addresses: str, **settings: Any) -> ServiceSnapshot:
    return ServiceSnapshot(name=name, endpoints=tuple(map(Endpoint, addresses)), **settings)


def ingress(*routes: Route) -> Listener:
    return Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=routes)


def test_shares_retries_timeouts_and_faults(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * 4)
    stable, canary, broken, slow = backends.addresses
    backends.behave(broken, status=503)
    backends.behave(slow, delay=2.0)
    retry = RetryPolicy(
        retry_on=("5xx", "unavailable"), num_retries=4, retry_back_off=RetryBackOff(base_interval=0.001)
    )
    listener = ingress(
        Route(prefix="/shares", services={"web": 90, "canary": 10}),
        Route(prefix="/retry", service="half", retry=retry),
        Route(prefix="/timeout", service="slow", timeout=0.2),
        Route(prefix="/abort", service="web", fault=Fault(abort=FaultAbort(http_status=418))),
        Route(prefix="/delay", service="web", fault=Fault(delay=FaultDelay(fixed_delay=1.0), max_active_faults=10)),
    )
    services = service("web", stable), service("canary", canary), service("half", stable, broken), service("slow", slow)
    control_plane.publish(*services, listeners=[listener])
    with HttpClient(listening(start_envoy(bootstrap(control_plane, "GRPC")))) as client:
        shares = Counter(client.get("/shares").headers["x-backend"] for _ in range(400))
        assert 15 <= shares[canary] <= 75  # 40 expected, of a binomial distribution with sigma 6
        assert shares[canary] + shares[stable] == 400
        assert [client.get("/retry").status for _ in range(20)] == [200] * 20
        assert client.get("/timeout").status == 504
        assert client.get("/abort").status == 418
        before = time.monotonic()
        assert client.get("/delay").status == 200
        assert time.monotonic() - before >= 0.5  # of 1.0; without the fault it takes milliseconds
    assert control_plane.nacks == []


def test_http2_and_a_second_address(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    (alive,) = start_backends(["127.0.0.1"]).addresses
    dead = f"[::1]:{free_port()}"
    with GrpcBackends(["127.0.0.1:0"]) as grpc_backends:
        control_plane.publish(
            service("rpc", *grpc_backends.addresses, protocol="http2", connect_timeout=2.0),
            ServiceSnapshot(name="dual", endpoints=(Endpoint(dead, additional_addresses=(alive,)),)),
            listeners=[ingress(Route(prefix="/rpc", service="rpc"), Route(prefix="/", service="dual"))],
        )
        envoy = start_envoy(bootstrap(control_plane, "DELTA_GRPC"))
        with HttpClient(listening(envoy)) as client:
            assert client.get("/").headers["x-backend"] == alive
            client.get("/rpc")
        connections = envoy.stats("cluster")
        assert connections["cluster.rpc.upstream_cx_http2_total"] == 1
        assert connections["cluster.dual.upstream_cx_http1_total"] >= 1
    assert control_plane.nacks == []


def test_the_nearest_endpoints_come_first(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    zones = ("us/c", "eu/b", "eu/a")
    backends = start_backends(["127.0.0.1"] * 3)
    by_zone = dict(zip(zones, backends.addresses, strict=True))

    def publish(*, nearest_first: bool = True, **health: Any) -> None:
        endpoints = tuple(
            Endpoint(by_zone[zone], locality=zone) for zone in zones if zone not in health.get("gone", ())
        )
        web = ServiceSnapshot(name="web", endpoints=endpoints, nearest_first=nearest_first)
        control_plane.publish(web, listeners=[listener])

    listener = ingress(Route(prefix="/", service="web"))
    publish()
    configuration = bootstrap(control_plane, "GRPC")
    configuration["node"]["locality"] = {"region": "eu", "zone": "a"}
    with HttpClient(listening(start_envoy(configuration))) as client:

        def answering() -> set[str]:
            return {client.get().headers["x-backend"] for _ in range(12)}

        assert answering() == {by_zone["eu/a"]}
        publish(gone=("eu/a",))
        wait_until(lambda: answering() == {by_zone["eu/b"]}, "the same region")
        publish(nearest_first=False)
        wait_until(lambda: answering() == set(backends.addresses), "all of them")
    assert control_plane.nacks == []
