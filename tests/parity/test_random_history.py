"""Rule V8: whatever is published, no real client refuses any of it; and each ends up with exactly what was last."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbcore.directory import ServiceSnapshot
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.model import MAX_WEIGHT, Endpoint, Health, Locality
from lbcore.policy import Jump, LeastRequest, Maglev, Random, Rendezvous, RingHash, RoundRobin
from lbcore.request_hash import Cookie, FilterState, HashPolicy, Header, SourceIp
from lbcore.retry import RETRY_ON, RetryBackOff, RetryPolicy
from lbcore.routing import Listener, Route, RouteAction
from lbcore.settings import CircuitBreakers, DropOverload, LocalityWeighted, OutlierDetection, SlowStart, ZoneAware
from lbcore.subset import Subsets, SubsetSelector
from tests.harness.control_plane import ControlPlane
from tests.harness.envoy import Envoy
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until

ROOT = Path(__file__).parents[2]
NAMES = ["web", "ns/api", "wéb", "d"]
LOCALITIES = ["", "eu", "eu/a", "eu/a/rack"]
POLICIES = [
    RoundRobin(),
    RoundRobin(slow_start=SlowStart(5.0)),
    Random(),
    LeastRequest(choice_count=3),
    LeastRequest(selection_method="full_scan", active_request_bias=2.0),
    RingHash(maximum_ring_size=4096),  # or very unequal weights make Envoy build rings of 8 million points
    RingHash(maximum_ring_size=2048, hash_function="murmur_hash_2", hash_balance_factor=130),
    Maglev(table_size=251),
    Rendezvous(),
    Jump(),
]
LOCALITY_POLICIES = [
    None,
    LocalityWeighted(),
    ZoneAware(local_service="web"),
    ZoneAware(routing_enabled=0.5, min_cluster_size=0, force_local_zone_min_size=0, fail_traffic_on_panic=True),
]
SUBSETS = [
    None,
    Subsets(),
    Subsets(
        selectors=[
            SubsetSelector(keys=["tags", "hash_key"], fallback_policy="keys_subset", fallback_keys_subset=["tags"]),
            SubsetSelector(keys=["hash_key"], single_host_per_subset=True),
        ],
        fallback_policy="default_subset",
        default_subset={"tags": ["a", None]},
        list_as_any=True,
        locality_weight_aware=True,
        scale_locality_weight=True,
        panic_mode_any=True,
    ),
]
HASHES = [
    None,
    HashPolicy(Header("x-user")),
    HashPolicy(Cookie("c", ttl=1)),
    HashPolicy([SourceIp(), FilterState("f")]),
]
ACTIONS: list[dict[str, Any]] = [
    {},
    {"timeout": 0.0},
    {"timeout": 2.5, "retry": RetryPolicy(retry_on=RETRY_ON, num_retries=9, retriable_status_codes=(429,))},
    {
        "retry": RetryPolicy(
            retry_on=("5xx",),
            per_try_timeout=60.0,
            retry_back_off=RetryBackOff(base_interval=0.001, max_interval=0.001),
        )
    },
    {"fault": Fault(abort=FaultAbort(http_status=200, percentage=0.0001), max_active_faults=0)},
    {
        "fault": Fault(
            abort=FaultAbort(grpc_status=16, percentage=100), delay=FaultDelay(fixed_delay=0.001, percentage=0.0)
        )
    },
]
STEPS = 1000
TYPES = ("Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration")
EVERYTHING = {(node, kind) for node in ("envoy-1", "grpc-client-1") for kind in TYPES}


def any_endpoint(dice: random.Random, number: int) -> Endpoint:
    address = dice.choice([f"127.0.0.{number}:1", f"[::1]:{number}", f"unix:/run/none-{number}"])
    return Endpoint(
        address,
        weight=dice.choice([1, 2, 100, MAX_WEIGHT // 32]),
        locality=dice.choice(LOCALITIES),
        priority=dice.choice([0, 0, 0, 1, 5, 128]),
        health=dice.choice(list(Health)),
        hostname=dice.choice(["", f"host-{number}"]),
        additional_addresses=()
        if address.startswith("unix:") or dice.random() < 0.8
        else (f"127.0.1.{number}:1", f"[::2]:{number}"),
        metadata=dice.choice([{}, {"hash_key": str(number), "tags": ["a", None, {"b": 1.5}]}]),
    )


def any_service(dice: random.Random, name: str) -> ServiceSnapshot:
    weights = {Locality.parse(place): dice.randint(1, 1000) for place in dice.sample(LOCALITIES, dice.randint(0, 4))}
    return ServiceSnapshot(
        name=name,
        endpoints=tuple(any_endpoint(dice, number) for number in dice.sample(range(1, 200), dice.randint(0, 30))),
        policy=dice.choice(POLICIES),
        hash_on=dice.choice(HASHES),
        subsets=dice.choice(SUBSETS),
        locality_policy=dice.choice(LOCALITY_POLICIES),
        locality_weights=weights,
        overprovisioning_factor=dice.choice([100, 140, 1000]),
        panic_threshold=dice.choice([0.0, 50.0, 100.0]),
        fail_traffic_on_panic=dice.choice([False, True]),
        outlier_detection=dice.choice([None, OutlierDetection(interval=dice.choice([1.0, 2.5]))]),
        circuit_breakers=dice.choice([None, CircuitBreakers(max_requests=dice.randint(0, 9))]),
        drop_overload=dice.choice([None, DropOverload(category="some", percent=dice.choice([0.0, 0.01, 100.0]))]),
        protocol=dice.choice(["http1", "http2"]),
        connect_timeout=dice.choice([0.001, 5.0, 86400.0]),
        nearest_first=dice.choice([False, True]),
        ttl=dice.choice([None, 3600.0]),
        route=dice.choice([None, RouteAction(services=any_shares(dice, NAMES), **dice.choice(ACTIONS))]),
    )


def any_shares(dice: random.Random, names: list[str]) -> dict[str, int]:
    """Some services with shares, not all of them 0; or none."""
    shares = {name: dice.choice([0, 1, 90]) for name in dice.sample(names, dice.randint(0, len(names)))}
    return shares if sum(shares.values()) else {}


def any_listener(dice: random.Random, names: list[str], port: int) -> Listener:
    hash_on, subset = dice.choice(HASHES), dice.choice([None, {}, {"hash_key": "7"}, {"tags": "a", "hash_key": "7"}])
    routes = tuple(
        Route(
            prefix=dice.choice(["/", "/a", "/a/b"]),
            **({"services": shares} if (shares := any_shares(dice, names)) else {"service": name}),
            hash_on=hash_on,
            subset=subset,
            **dice.choice(ACTIONS),
        )
        for name in dice.sample(names, dice.randint(0, len(names)))
    )
    return Listener(name="in", address=f"127.0.0.1:{port}", routes=routes)


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_v8_no_real_client_refuses_anything_of_a_random_history(
    api_type: str, start_envoy: Callable[..., Envoy]
) -> None:
    dice = random.Random(api_type)
    port = free_port()
    with ControlPlane() as control_plane, grpc_client(control_plane):
        control_plane.publish(*(any_service(dice, name) for name in NAMES))
        envoy = start_envoy(envoy_bootstrap(control_plane, api_type))
        services: dict[str, ServiceSnapshot] = {}
        for _ in range(STEPS):
            name = dice.choice(NAMES)
            if dice.random() < 0.2:
                services.pop(name, None)
            else:
                services[name] = any_service(dice, name)
            listeners = [any_listener(dice, sorted(services), port)] if services and dice.random() < 0.9 else []
            control_plane.publish(*services.values(), listeners=listeners)
            time.sleep(dice.choice([0, 0, 0.002, 0.01]))
        services["web"] = ServiceSnapshot(name="web", endpoints=(Endpoint("127.0.0.1:7"),))
        control_plane.publish(*services.values())
        wait_until(lambda: envoy.clusters().keys() == {*services, "lbcore"}, "all services")
        for name, service in services.items():
            addresses = {endpoint.address for endpoint in service.endpoints}
            wait_until(lambda: envoy.hosts(name).keys() == addresses, f"the endpoints of {name}", 30)  # noqa: B023
        wait_until(lambda: set(control_plane.acks) >= EVERYTHING, "an ACK of each type from each client", 60)
        assert control_plane.nacks == []


def envoy_bootstrap(control_plane: ControlPlane, api_type: str) -> dict[str, Any]:
    text = (ROOT / "examples" / "envoy.yaml").read_text()
    configuration: dict[str, Any] = yaml.safe_load(text.replace("18000", str(control_plane.port)))
    configuration["dynamic_resources"]["ads_config"]["api_type"] = api_type
    return configuration


def grpc_client(control_plane: ControlPlane) -> Process:
    bootstrap = json.loads((ROOT / "examples" / "grpc-bootstrap.json").read_text())
    bootstrap["xds_servers"][0]["server_uri"] = control_plane.address
    environment = {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "tests.parity.grpc_caller", "sync", "xds:///web"]
    return Process(argv, env=environment, cwd=ROOT)
