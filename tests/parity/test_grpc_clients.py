"""Unmodified gRPC clients, `grpc` and `grpc.aio`, fed by lbcore: `xds:///SERVICE` and a bootstrap is all they need.

The bootstrap is `examples/grpc-bootstrap.json`, with the address of the server under test. Each client is a process of
its own, because gRPC reads its bootstrap from the environment once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

from lbcore import Cluster
from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import LeastRequest, Policy, RingHash
from lbcore.request_hash import HashPolicy, Header, RegexRewrite, SourceIp
from lbcore.settings import CircuitBreakers, DropOverload, OutlierDetection
from tests.harness.control_plane import ControlPlane
from tests.harness.grpc_backends import GrpcBackends
from tests.harness.process import wait_until
from tests.parity.example_client import Caller

Call = Callable[..., Caller]


@pytest.fixture(params=["sync", "aio"])
def call(request: pytest.FixtureRequest, call_as: Callable[..., Caller]) -> Call:
    """`call(target)` with either kind of client."""
    return lambda *args, **env: call_as(request.param, *args, **env)


@pytest.fixture
def backends() -> Iterator[list[str]]:
    """The addresses of three backends."""
    with GrpcBackends(["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"]) as running:
        yield running.addresses


def service(name: str, *addresses: str, **settings: Any) -> ServiceSnapshot:
    return ServiceSnapshot(name=name, endpoints=tuple(map(Endpoint, addresses)), **settings)


def test_a_client_routes_to_all_endpoints_of_a_service(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    control_plane.publish(service("web", *backends))
    caller = call("xds:///web")
    wait_until(lambda: caller.since(0).keys() == set(backends), "answers of all")
    assert control_plane.nacks == []


def test_a_client_follows_an_endpoint_removed_and_one_added_without_a_failed_call(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    one, two, three = backends
    control_plane.publish(service("web", one, two))
    caller = call("xds:///web")
    wait_until(lambda: caller.since(0).keys() == {one, two}, "answers of both")
    control_plane.publish(service("web", two, three))
    wait_until(lambda: three in caller.since(0), "the new endpoint")
    settled = caller.mark()
    caller.wait_for_more(settled, 50)
    assert caller.since(settled).keys() == {two, three}
    assert caller.failures == []
    assert control_plane.nacks == []


def test_a_restart_costs_no_call_and_the_client_converges(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    one, two, three = backends
    control_plane.publish(service("web", one, two))
    caller = call("xds:///web")
    wait_until(lambda: caller.since(0).keys() == {one, two}, "answers of both")
    control_plane.stop()
    gone = caller.mark()
    caller.wait_for_more(gone, 50)
    assert caller.since(gone).keys() == {one, two}
    control_plane.start()
    control_plane.publish(service("web", two, three))
    wait_until(lambda: three in caller.since(gone), "the new endpoint")
    settled = caller.mark()
    caller.wait_for_more(settled, 50)
    assert caller.since(settled).keys() == {two, three}
    assert caller.failures == []
    assert control_plane.nacks == []


def test_a_changed_cluster_costs_no_call(control_plane: ControlPlane, call: Call, backends: list[str]) -> None:
    control_plane.publish(service("web", *backends))
    caller = call("xds:///web")
    wait_until(lambda: caller.since(0), "an answer")
    control_plane.publish(service("web", *backends, policy=RingHash()))
    wait_until(lambda: accepted_clusters(control_plane) == 2, "the new cluster")
    caller.wait_for_more(caller.mark(), 50)
    assert caller.failures == []
    assert control_plane.nacks == []


def test_a_client_keeps_to_its_health_priorities_and_weights_of_localities(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    one, two, three = backends
    endpoints = (
        Endpoint(one, priority=5),
        Endpoint(two, priority=5, health=Health.UNHEALTHY),
        Endpoint(three, priority=9),
    )
    control_plane.publish(ServiceSnapshot(name="web", endpoints=endpoints))
    caller = call("xds:///web")
    wait_until(lambda: sum(caller.since(0).values()) >= 50, "answers")
    assert caller.since(0).keys() == {one}
    by_locality = (Endpoint(one, locality="eu"), Endpoint(two, locality="us"), Endpoint(three, locality="us"))
    weights = {Locality("eu"): 9, Locality("us"): 1}
    control_plane.publish(ServiceSnapshot(name="web", endpoints=by_locality, locality_weights=weights))
    wait_until(lambda: three in caller.since(0), "the other locality")
    settled = caller.mark()
    caller.wait_for_more(settled, 400)
    answers = caller.since(settled)
    assert 0.8 < answers[one] / sum(answers.values()) < 0.99  # 6 sigma
    assert caller.failures == []


def test_services_with_awkward_names_are_reached(control_plane: ControlPlane, call: Call, backends: list[str]) -> None:
    control_plane.publish(service("ns/wéb", backends[0]), service("a:b", backends[1]))
    for target, address in (("xds:///ns/w%C3%A9b", backends[0]), ("xds:///a:b", backends[1])):
        caller = call(target)
        wait_until(lambda: caller.since(0).keys() == {address}, "an answer")  # noqa: B023


def test_a_unix_socket_is_kept_from_clients_that_would_refuse_it(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    control_plane.publish(service("web", backends[0], "unix:/run/none"))
    caller = call("xds:///web")
    wait_until(lambda: caller.since(0).keys() == {backends[0]}, "an answer")
    assert control_plane.nacks == []


def test_a_service_that_does_not_exist_fails_at_once_with_its_name(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    control_plane.publish(service("web", backends[0]))
    caller = call("xds:///nowhere", GRPC_EXPERIMENTAL_XDS_DATA_ERROR_HANDLING="true")
    wait_until(lambda: caller.failures, "a failure", 12)  # without resource_errors: after 15 s
    assert "nowhere" in caller.failures[0]
    assert "UNAVAILABLE" in caller.failures[0]
    control_plane.publish(service("web", backends[0]), service("nowhere", backends[1]))
    wait_until(lambda: backends[1] in caller.since(0), "an answer once it exists")


def test_a_removed_service_fails_at_once_and_is_back_at_once(
    control_plane: ControlPlane, call: Call, backends: list[str]
) -> None:
    control_plane.publish(service("web", backends[0]))
    caller = call("xds:///web")
    wait_until(lambda: caller.since(0), "an answer")
    control_plane.publish()
    wait_until(lambda: caller.failures, "a failure")
    removed = caller.mark()
    control_plane.publish(service("web", backends[0]))
    wait_until(lambda: backends[0] in caller.since(removed), "an answer")


def test_a_key_reaches_the_endpoint_that_lbcore_picks(
    control_plane: ControlPlane, call_as: Callable[..., Caller], backends: list[str]
) -> None:
    hash_on = HashPolicy([Header("x-user", regex_rewrite=RegexRewrite("-.*"), terminal=True), SourceIp()])
    control_plane.publish(service("web", *backends, policy=RingHash(), hash_on=hash_on))
    cluster = Cluster("web", map(Endpoint, backends), policy=RingHash())
    users = [f"user{number}-x" for number in range(4)]
    callers = {user: call_as("sync", "xds:///web", f"x-user={user}") for user in users}
    wanted = {user: cluster.pick(hash_on.hash({"x-user": user})).address for user in users}
    assert len(set(wanted.values())) > 1
    for user, caller in callers.items():
        caller.wait_for_more(0, 20)
        assert caller.since(0).keys() == {wanted[user]}
    assert control_plane.nacks == []


SETTINGS: list[dict[str, Any]] = [
    *({"policy": kind()} for kind in get_args(Policy)),
    *({"policy": kind(), "locality_weights": {Locality(): 3}} for kind in get_args(Policy)),
    {"policy": LeastRequest(choice_count=100)},
    {"policy": RingHash(minimum_ring_size=7, maximum_ring_size=9, hash_function="murmur_hash_2")},
    {"outlier_detection": OutlierDetection()},
    {"outlier_detection": OutlierDetection(base_ejection_time=600.0)},
    {"drop_overload": DropOverload(category="throttle", percent=0.0)},
]


def test_a_client_takes_every_setting(
    control_plane: ControlPlane, call_as: Callable[..., Caller], backends: list[str]
) -> None:
    caller: Caller | None = None
    for number, settings in enumerate(SETTINGS, start=1):
        limit = CircuitBreakers(max_requests=1000 + number)  # makes each cluster differ from the one before
        control_plane.publish(service("web", *backends, **{"circuit_breakers": limit, **settings}))
        caller = caller or call_as("sync", "xds:///web")
        wait_until(lambda: control_plane.nacks or accepted_clusters(control_plane) == number, str(settings))  # noqa: B023
        assert control_plane.nacks == [], settings
        caller.wait_for_more(caller.mark(), 10)
    assert caller is not None
    assert caller.failures == []


def accepted_clusters(control_plane: ControlPlane) -> int:
    return control_plane.acks.count(("grpc-client-1", "Cluster"))
