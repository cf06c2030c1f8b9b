"""Subsets, zones and panic as the real Envoy does them from lbcore's resources: the hosts that `Cluster` picks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from lbcore import (
    Cluster,
    Endpoint,
    Health,
    LeastRequest,
    Locality,
    Maglev,
    NoEndpointAvailable,
    Random,
    RingHash,
    RoundRobin,
)
from lbcore.directory import ServiceSnapshot
from lbcore.policy import Policy
from lbcore.request_hash import HashPolicy, Header
from lbcore.routing import Listener, Route
from lbcore.settings import LocalityWeighted, ZoneAware
from lbcore.subset import Subsets, SubsetSelector
from tests.harness.backends import HttpBackends
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.http_client import HttpClient
from tests.harness.ports import free_port
from tests.parity.example_envoy import bootstrap, listening

StartEnvoy = Callable[..., Envoy]
StartBackends = Callable[..., HttpBackends]

KEYS = [f"user-{number}" for number in range(24)]
USER = HashPolicy(Header("x-user"))


def member(address: str, number: int) -> Endpoint:
    stage, version = ("prod", "prod", "dev", "test")[number % 4], number % 3
    metadata = {"stage": stage, "version": version, "zones": ["a", "b"] if number % 2 else "c"}
    health = Health.UNHEALTHY if stage == "test" else Health.UNKNOWN
    return Endpoint(address, metadata=metadata, health=health)


STAGE = SubsetSelector(keys=["stage"])
BOTH = SubsetSelector(keys=["version", "stage"], fallback_policy="keys_subset", fallback_keys_subset=["stage"])
SUBSETS: dict[str, Subsets] = {
    "none": Subsets(selectors=[STAGE]),
    "any": Subsets(selectors=[STAGE, BOTH], fallback_policy="any_endpoint"),
    "default": Subsets(selectors=[BOTH, STAGE], fallback_policy="default_subset", default_subset={"stage": "dev"}),
    "selector": Subsets(
        selectors=[
            SubsetSelector(keys=["version"], fallback_policy="any_endpoint"),
            SubsetSelector(keys=["stage"], fallback_policy="no_fallback"),
            SubsetSelector(keys=["zones"], fallback_policy="default_subset"),
        ],
        fallback_policy="any_endpoint",
        default_subset={"stage": "prod", "version": 1},
        list_as_any=True,
    ),
    "redundant": Subsets(selectors=[STAGE, BOTH], fallback_policy="any_endpoint", allow_redundant_keys=True),
    "alternatives": Subsets(selectors=[STAGE, BOTH], metadata_fallback_policy="fallback_list"),
    "panic": Subsets(
        selectors=[STAGE], fallback_policy="default_subset", default_subset={"stage": "none"}, panic_mode_any=True
    ),
    "single": Subsets(selectors=[SubsetSelector(keys=["stage"], single_host_per_subset=True)]),
}
CRITERIA: tuple[dict[str, Any] | None, ...] = (
    None,
    {},
    {"stage": "prod"},
    {"stage": "dev"},
    {"stage": "test"},
    {"stage": "none"},
    {"version": 2},
    {"version": "2"},
    {"stage": "prod", "version": 1},
    {"stage": "dev", "version": 9},
    {"zones": "a"},
    {"zones": ["a", "b"]},
    {"stage": "prod", "version": 1, "zones": "a"},
    {"fallback_list": [{"stage": "none"}, {"stage": "dev"}, {"stage": "prod"}]},
    {"stage": "prod", "fallback_list": [{"version": 9}, {"version": 1}]},
)


def embedded(service: ServiceSnapshot, **settings: Any) -> Cluster:
    return Cluster(
        service.name,
        service.endpoints,
        policy=service.policy,
        subsets=service.subsets,
        panic_threshold=service.panic_threshold,
        **settings,
    )


@pytest.mark.parametrize("policy", [Maglev(), RingHash()], ids=["maglev", "ring_hash"])
def test_a_key_reaches_the_same_host_of_a_subset(
    policy: Policy,
    control_plane: ControlPlane,
    start_envoy: StartEnvoy,
    start_backends: StartBackends,
) -> None:
    addresses = start_backends(["127.0.0.1"] * 12).addresses
    endpoints = tuple(member(address, number) for number, address in enumerate(addresses))
    services = [
        ServiceSnapshot(
            name=name, endpoints=endpoints, policy=policy, subsets=subsets, hash_on=USER, panic_threshold=threshold
        )
        for name, subsets in SUBSETS.items()
        for threshold in ([50.0, 0.0] if name in ("none", "alternatives") else [50.0])
        for name in [name if threshold else f"{name}-calm"]
    ]
    asked = {
        f"/{service.name}/{place}/": (service, criteria)
        for service in services
        for place, criteria in enumerate(CRITERIA)
    }
    routes = tuple(
        Route(prefix=prefix, service=service.name, subset=criteria) for prefix, (service, criteria) in asked.items()
    )
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=routes)
    control_plane.publish(*services, listeners=[listener])
    wrong = []
    with HttpClient(listening(start_envoy(bootstrap(control_plane, "GRPC")))) as client:
        for prefix, (service, criteria) in asked.items():
            view = embedded(service).subset(criteria or {})
            for key in KEYS[: 12 if view.endpoints else 1]:
                answer = client.get(prefix, headers={"x-user": key})
                theirs = answer.headers["x-backend"] if answer.status == 200 else answer.status
                try:
                    ours: object = view.pick(key).address
                except NoEndpointAvailable:
                    ours = 503
                if theirs != ours:
                    wrong.append((service.name, criteria, key, theirs, ours))
    assert control_plane.nacks == []
    assert wrong == []


@pytest.mark.parametrize(
    "policy", [RoundRobin(), Random(), LeastRequest(), Maglev()], ids=lambda policy: type(policy).__name__
)
def test_envoy_takes_every_way_with_localities(
    policy: Policy, control_plane: ControlPlane, start_envoy: StartEnvoy
) -> None:
    zones = ZoneAware(routing_enabled=12.5, min_cluster_size=0, force_local_zone_min_size=3, fail_traffic_on_panic=True)
    weighted = ZoneAware(local_service="callers", locality_basis="healthy_hosts_weight")
    scaled = Subsets(locality_weight_aware=True, scale_locality_weight=True)
    ways: list[dict[str, Any]] = [
        {"locality_policy": LocalityWeighted()},
        {"locality_policy": zones},
        {"locality_policy": weighted},
        {"fail_traffic_on_panic": True},
        {"subsets": scaled, "locality_weights": {Locality("eu"): 2}},
        {"subsets": Subsets(selectors=[STAGE]), "locality_policy": zones},
    ]
    endpoints = (Endpoint("127.0.0.1:1", locality="eu"), Endpoint("127.0.0.2:1", locality="us"))
    services = [ServiceSnapshot(name=f"s{i}", endpoints=endpoints, policy=policy, **way) for i, way in enumerate(ways)]
    control_plane.publish(*services, ServiceSnapshot(name="callers", endpoints=endpoints))
    envoy = start_envoy(bootstrap(control_plane, "GRPC"))
    assert envoy.clusters().keys() == {*(each.name for each in services), "callers", "lbcore"}
    assert control_plane.nacks == []


def test_envoy_keeps_requests_in_its_zone_by_the_callers_that_lbcore_names(
    control_plane: ControlPlane, start_envoy: StartEnvoy, start_backends: StartBackends
) -> None:
    addresses = start_backends(["127.0.0.1"] * 8).addresses
    web = tuple(
        Endpoint(address, locality="eu/a" if number < 2 else "eu/b") for number, address in enumerate(addresses)
    )
    callers = tuple(Endpoint(f"127.0.0.1:{number}", locality=f"eu/{zone}") for number, zone in enumerate("aab", 1))
    zones = ZoneAware(local_service="callers")
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=(Route(prefix="/", service="web"),))
    control_plane.publish(
        ServiceSnapshot(name="web", endpoints=web, locality_policy=zones),
        ServiceSnapshot(name="callers", endpoints=callers),
        listeners=[listener],
    )
    configuration = bootstrap(control_plane, "GRPC")
    configuration["node"]["locality"] = {"region": "eu", "zone": "a"}
    configuration["cluster_manager"] = {"local_cluster_name": "own"}
    configuration["static_resources"]["clusters"].append(
        {
            "name": "own",
            "type": "EDS",
            "eds_cluster_config": {
                "service_name": "callers",
                "eds_config": {"ads": {}, "resource_api_version": "V3"},
            },
        }
    )
    shares = (
        Cluster("web", web, locality_policy=ZoneAware(local_hosts={"eu/a": 2, "eu/b": 1}), local_locality="eu/a")
        .explain()
        .locality_shares
    )
    assert shares is not None
    with HttpClient(listening(start_envoy(configuration))) as client:
        answers = Counter(client.get().headers["x-backend"] for _ in range(1200))
    here = sum(count for address, count in answers.items() if address in addresses[:2])
    assert abs(here / 1200 - shares[Locality("eu", "a")]) < 0.09  # 6 sigma
    assert control_plane.nacks == []


@pytest.mark.parametrize("fails", [False, True])
def test_envoy_fails_in_panic_where_it_is_told_to(
    fails: bool,
    control_plane: ControlPlane,
    start_envoy: StartEnvoy,
    start_backends: StartBackends,
) -> None:
    healths = (Health.HEALTHY, Health.UNHEALTHY, Health.UNHEALTHY)
    addresses = start_backends(["127.0.0.1"] * 3).addresses
    endpoints = tuple(Endpoint(address, health=health) for address, health in zip(addresses, healths, strict=True))
    service = ServiceSnapshot(name="web", endpoints=endpoints, fail_traffic_on_panic=fails)
    listener = Listener(name="in", address=f"127.0.0.1:{free_port()}", routes=(Route(prefix="/", service="web"),))
    control_plane.publish(service, listeners=[listener])
    with HttpClient(listening(start_envoy(bootstrap(control_plane, "GRPC")))) as client:
        assert {client.get().status for _ in range(9)} == {503 if fails else 200}
    cluster = embedded(service, fail_traffic_on_panic=fails)
    if fails:
        with pytest.raises(NoEndpointAvailable):
            cluster.pick()
    else:
        assert {cluster.pick().address for _ in range(9)} == set(addresses)
