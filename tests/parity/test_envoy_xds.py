"""The real Envoy, fed by lbcore: it takes every resource, follows every change, and no request fails meanwhile.

Envoy starts from `examples/envoy.yaml`, with the address of the server under test; state of the world and delta.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from lbcore import Cluster
from lbcore.directory import ServiceSnapshot
from lbcore.health import GrpcCheck, HttpCheck, TcpCheck
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import LeastRequest, Maglev, Policy, Random, RingHash, RoundRobin
from lbcore.request_hash import HashPolicy, Header, RegexRewrite
from lbcore.routing import Listener, Route
from lbcore.settings import (
    CircuitBreakers,
    DropOverload,
    HealthCheck,
    HttpHealthCheck,
    OutlierDetection,
    SlowStart,
)
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.harness.process import wait_until
from tests.harness.traffic import HttpTraffic
from tests.parity.example_envoy import bootstrap, listening
from tests.parity.request_hash_policies import generated_policies

Start = Callable[[], Envoy]


@pytest.fixture(params=["GRPC", "DELTA_GRPC"])
def start(request: pytest.FixtureRequest, control_plane: ControlPlane, start_envoy: Callable[..., Envoy]) -> Start:
    """Starts Envoy as the example says, in state of the world or delta."""
    return lambda: start_envoy(bootstrap(control_plane, request.param))


def service(name: str, *addresses: str, **settings: Any) -> ServiceSnapshot:
    return ServiceSnapshot(name=name, endpoints=tuple(map(Endpoint, addresses)), **settings)


def ingress(*services: str, hash_on: HashPolicy | None = None, port: int = 0) -> Listener:
    """A listener on a free port; the first service has the prefix /, the others their name."""
    routes = [Route(prefix=f"/{name}", service=name, hash_on=hash_on) for name in services[1:]]
    routes.append(Route(prefix="/", service=services[0], hash_on=hash_on))
    return Listener(name="in", address=f"127.0.0.1:{port or free_port()}", routes=tuple(routes))


def test_envoy_routes_to_all_endpoints_of_a_service(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends], tmp_path: Path
) -> None:
    backends = start_backends(["127.0.0.1", "127.0.0.1", "::1", f"unix:{tmp_path}/backend"])
    control_plane.publish(service("web", *backends.addresses), listeners=[ingress("web")])
    with HttpClient(listening(start())) as client:
        answered = {client.get().headers["x-backend"] for _ in range(16)}
    assert answered == set(backends.addresses)
    assert control_plane.nacks == []


def test_envoy_follows_an_endpoint_removed_and_one_added_without_a_failed_request(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * 3)
    one, two, three = backends.addresses
    listener = ingress("web")
    control_plane.publish(service("web", one, two), listeners=[listener])
    with HttpTraffic(listening(start())) as traffic:
        wait_until(lambda: traffic.since(0).keys() == {one, two}, "requests to both")
        control_plane.publish(service("web", two, three), listeners=[listener])
        wait_until(lambda: three in traffic.since(0), "the new endpoint")
        settled = traffic.mark()
        wait_until(lambda: sum(traffic.since(settled).values()) > 50, "more requests")
        assert traffic.since(settled).keys() == {two, three}
    assert traffic.failures == []
    assert control_plane.nacks == []


def test_a_restart_costs_no_request_and_envoy_converges(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * 3)
    one, two, three = backends.addresses
    listener = ingress("web")
    control_plane.publish(service("web", one, two), listeners=[listener])
    with HttpTraffic(listening(start())) as traffic:
        wait_until(lambda: traffic.since(0).keys() == {one, two}, "requests to both")
        control_plane.stop()
        gone = traffic.mark()
        wait_until(lambda: sum(traffic.since(gone).values()) > 50, "requests without a control plane")
        assert traffic.since(gone).keys() == {one, two}
        control_plane.start()
        control_plane.publish(service("web", two, three), listeners=[listener])
        wait_until(lambda: three in traffic.since(gone), "the new endpoint")
        settled = traffic.mark()
        wait_until(lambda: sum(traffic.since(settled).values()) > 50, "more requests")
        assert traffic.since(settled).keys() == {two, three}
    assert traffic.failures == []
    assert control_plane.nacks == []


def test_two_hundred_changes_cost_no_request(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    """Of endpoints each time, every tenth time of the policy as well, and with two restarts of the control plane."""
    addresses = start_backends(["127.0.0.1"] * 5).addresses
    listener, draw = ingress("web"), random.Random(1)
    policies = itertools.cycle((RoundRobin(), LeastRequest(), Random(), Maglev(), RingHash()))
    policy: Policy = next(policies)
    control_plane.publish(service("web", *addresses), listeners=[listener])
    with HttpTraffic(listening(start())) as traffic:
        for number in range(200):
            if number in (70, 140):
                control_plane.stop()
                control_plane.start()
            if number % 10 == 9:
                policy = next(policies)
            some = draw.sample(addresses, draw.randint(1, 5))
            control_plane.publish(service("web", *some, policy=policy), listeners=[listener])
            answered = traffic.mark()
            wait_until(lambda mark=answered: traffic.since(mark), "a request after each change")
        control_plane.publish(service("web", addresses[0], policy=RoundRobin()), listeners=[listener])
        wait_until(lambda: traffic.since(traffic.mark() - 20).keys() == {addresses[0]}, "the last change")
    assert traffic.failures == []
    assert control_plane.nacks == []


def test_a_restart_before_the_sources_are_read_takes_nothing_away(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    (one,) = start_backends(["127.0.0.1"]).addresses
    control_plane.publish(service("web", one), listeners=[ingress("web")])
    envoy = start()
    with HttpTraffic(listening(envoy)) as traffic:
        wait_until(lambda: one in traffic.since(0), "requests")
        control_plane.stop()
        control_plane.start()
        wait_until(lambda: control_plane.stream_count == 1, "Envoy's new stream")
        settled = traffic.mark()
        wait_until(lambda: sum(traffic.since(settled).values()) > 50, "more requests")
        assert "web" in envoy.clusters()
    assert traffic.failures == []


def test_a_changed_cluster_warms_at_once(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    (one,) = start_backends(["127.0.0.1"]).addresses
    listener = ingress("web")
    control_plane.publish(service("web", one), listeners=[listener])
    envoy = start()
    with HttpTraffic(listening(envoy)) as traffic:
        control_plane.publish(service("web", one, policy=Maglev()), listeners=[listener])
        wait_until(lambda: "maglev" in active_cluster(envoy, "web"), "the new policy", 10)  # warming: 15 s
        assert envoy.stats("cluster_manager.warming_clusters") == {"cluster_manager.warming_clusters": 0}
        assert envoy.hosts("web").keys() == {one}
    assert traffic.failures == []


def active_cluster(envoy: Envoy, name: str) -> str:
    """The configuration of a cluster that has warmed up, as text."""
    (clusters,) = (each for each in envoy.config_dump() if each["@type"].endswith("ClustersConfigDump"))
    active = {each["cluster"]["name"]: each for each in clusters.get("dynamic_active_clusters", ())}
    return json.dumps(active.get(name))


def test_requests_move_from_one_service_to_a_new_one_without_a_failure(
    control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    backends = start_backends(["127.0.0.1"] * 2)
    one, two = backends.addresses
    listener = ingress("old")
    control_plane.publish(service("old", one), listeners=[listener])
    envoy = start()
    with HttpTraffic(listening(envoy)) as traffic:
        for turn in range(5):
            before = traffic.mark()
            name, address = (f"new-{turn}", two) if turn % 2 == 0 else (f"new-{turn}", one)
            moved = replace(listener, routes=(Route(prefix="/", service=name),))
            control_plane.publish(service(name, address), listeners=[moved])
            wait_until(lambda: address in traffic.since(before), "requests to the new service")  # noqa: B023
        wait_until(lambda: envoy.clusters().keys() == {"lbcore", "new-4"}, "the old services to go")
    assert traffic.failures == []
    assert control_plane.nacks == []


def test_a_removed_service_leaves_envoy(control_plane: ControlPlane, start: Start) -> None:
    control_plane.publish(service("web", "127.0.0.1:1"), service("api", "127.0.0.1:1"))
    envoy = start()
    wait_until(lambda: envoy.clusters().keys() == {"lbcore", "web", "api"}, "both services")
    control_plane.publish(service("api", "127.0.0.1:1"))
    wait_until(lambda: envoy.clusters().keys() == {"lbcore", "api"}, "one service")
    control_plane.publish()
    wait_until(lambda: envoy.clusters().keys() == {"lbcore"}, "no service")


def test_a_service_without_endpoints_empties_the_cluster(control_plane: ControlPlane, start: Start) -> None:
    control_plane.publish(service("web", "127.0.0.1:1"))
    envoy = start()
    wait_until(lambda: envoy.hosts("web"), "an endpoint")
    control_plane.publish(service("web"))
    wait_until(lambda: not envoy.hosts("web"), "no endpoint")
    assert "web" in envoy.clusters()


SETTINGS: list[dict[str, Any]] = [
    *({"policy": kind()} for kind in get_args(Policy)),
    *({"policy": kind(), "locality_weights": {Locality("eu"): 3}} for kind in get_args(Policy)),
    {"policy": RoundRobin(slow_start=SlowStart(30.0, aggression=2.0, min_weight_percent=5.0))},
    {"policy": LeastRequest(choice_count=5, active_request_bias=0.5, slow_start=SlowStart(1.0))},
    {"policy": LeastRequest(selection_method="full_scan")},
    {"policy": RingHash(minimum_ring_size=7, maximum_ring_size=9, hash_function="murmur_hash_2")},
    {"policy": RingHash(use_hostname_for_hashing=True, hash_balance_factor=120)},
    {"policy": Maglev(table_size=101, use_hostname_for_hashing=True, hash_balance_factor=100)},
    {"policy": Random(), "panic_threshold": 0.0, "overprovisioning_factor": 100},
    {"circuit_breakers": CircuitBreakers(max_connections=1, max_requests=0)},
    {"outlier_detection": OutlierDetection()},
    {"outlier_detection": OutlierDetection(base_ejection_time=600.0, split_external_local_origin_errors=True)},
    {"health_check": HealthCheck(http=HttpHealthCheck(path="/healthz", host="web"), interval=0.5, timeout=0.25)},
    *(
        {"health_check": check}
        for check in (
            HttpCheck(
                method="POST",
                send=b"{}",
                expected_statuses=[range(200, 300)],
                retriable_statuses=[range(500, 600)],
                receive=[b"ok"],
                response_buffer_size=0,
                interval_jitter_percent=10,
                interval_jitter=0.5,
                initial_jitter=1.0,
                unhealthy_interval=3.0,
                unhealthy_edge_interval=2.0,
                healthy_edge_interval=1.0,
                no_traffic_interval=30.0,
                no_traffic_healthy_interval=45.0,
                reuse_connection=False,
            ),
            TcpCheck(),
            TcpCheck(send=b"PING", receive=b"PONG"),
            GrpcCheck(),
        )
    ),
    {"health_check": GrpcCheck("shop.Cart", authority="cart.internal", watch=True), "protocol": "http2"},
    {"drop_overload": DropOverload(category="throttle", percent=0.5)},
]
AWKWARD = (
    Endpoint("[2001:db8::1]:80", priority=3, locality="eu/a/rack", health=Health.DRAINING, weight=7),
    Endpoint("10.0.0.1:65535", priority=9, health=Health.DEGRADED, metadata={"hash_key": "k", "nested": {"a": [1]}}),
    Endpoint("10.0.0.2:1", priority=9, locality="eu", hostname="web-2", health=Health.TIMEOUT),
)


def test_envoy_takes_every_setting(control_plane: ControlPlane, start: Start) -> None:
    services = [ServiceSnapshot(name=f"s{i}", endpoints=AWKWARD, **each) for i, each in enumerate(SETTINGS)]
    names = [each.name for each in services]
    hashes = [None, *generated_policies(10)]
    listeners = [replace(ingress(*names, hash_on=each), name=f"l{i}") for i, each in enumerate(hashes)]
    control_plane.publish(*services, ServiceSnapshot(name="ns/wéb:80"), listeners=listeners)
    envoy = start()
    assert control_plane.nacks == []
    wait_until(lambda: {each for _, each in control_plane.acks} == TYPES, "an ACK of each type")
    assert envoy.clusters().keys() == {*names, "ns/wéb:80", "lbcore"}
    assert all(len(envoy.hosts(name)) == len(AWKWARD) for name in names)
    wait_until(lambda: envoy.listeners().keys() == {each.name for each in listeners}, "all listeners")


@pytest.mark.parametrize("said_by", ["route", "service"])
def test_envoy_sends_a_key_where_lbcore_does(
    said_by: str, control_plane: ControlPlane, start: Start, start_backends: Callable[..., HttpBackends]
) -> None:
    addresses = start_backends(["127.0.0.1"] * 20).addresses
    hash_on = HashPolicy([Header("x-user", regex_rewrite=RegexRewrite("-.*"), terminal=True), Header("x-tenant")])
    settings = {"policy": Maglev(), "hash_on": hash_on if said_by == "service" else None}
    listener = ingress("web", hash_on=hash_on if said_by == "route" else None)
    control_plane.publish(service("web", *addresses, **settings), listeners=[listener])
    cluster = Cluster("web", map(Endpoint, addresses), policy=Maglev())
    with HttpClient(listening(start())) as client:
        for number in range(30):
            headers = {"x-user": f"ann{number}-{number % 7}"} if number % 3 else {"x-tenant": str(number)}
            wanted = cluster.pick(hash_on.hash(headers)).address
            assert client.get(headers=headers).headers["x-backend"] == wanted
    assert control_plane.nacks == []


TYPES = {"Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"}


def test_a2_endpoints_come_by_a_service_of_their_own(
    control_plane: ControlPlane, start_envoy: Callable[..., Envoy], start_backends: Callable[..., HttpBackends]
) -> None:
    (one,) = start_backends(["127.0.0.1"]).addresses
    control_plane.publish(service("web", one))
    configuration = bootstrap(control_plane, "GRPC")
    del configuration["dynamic_resources"]
    for api_type in ("GRPC", "DELTA_GRPC"):
        source = {
            "api_type": api_type,
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "lbcore"}}],
        }
        eds = {"resource_api_version": "V3", "api_config_source": source}
        configuration["static_resources"]["clusters"].append(
            {
                "name": api_type,
                "type": "EDS",
                "eds_cluster_config": {"service_name": "web", "eds_config": eds},
            }
        )
    envoy = start_envoy(configuration)
    assert envoy.hosts("GRPC").keys() == envoy.hosts("DELTA_GRPC").keys() == {one}
