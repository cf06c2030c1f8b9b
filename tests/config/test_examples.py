"""Whole files and the exact values that they decode to."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore.config import Configuration, parse
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import LeastRequest, Maglev, Policy, Random, RingHash, RoundRobin
from lbcore.request_hash import Cookie, FilterState, HashPolicy, Header, QueryParameter, RegexRewrite, SourceIp
from lbcore.routing import Listener, Route
from lbcore.settings import (
    CircuitBreakers,
    DropOverload,
    HealthCheck,
    HttpHealthCheck,
    LocalityWeighted,
    OutlierDetection,
    SlowStart,
    ZoneAware,
)
from lbcore.snapshot import ServiceSnapshot
from lbcore.subset import Subsets, SubsetSelector

FLEET = """
services:
  web:
    policy: ring_hash                 # or {ring_hash: {minimum_ring_size: 4096}}
    endpoints:
      - 127.0.0.1:8081
      - {address: "127.0.0.1:8082", weight: 2, locality: eu/a, priority: 1, health: draining, metadata: {hash_key: b}}
    localities: {eu/a: {weight: 3}}   # locality weights
    overprovisioning_factor: 140
    panic_threshold: 50
    health_check: {http: {path: /healthz}, interval: 5s, timeout: 1s, healthy_threshold: 2, unhealthy_threshold: 3}
    outlier_detection: {consecutive_5xx: 5}
    drop_overload: {category: throttle, percent: 10}
listeners:                            # only for Envoys that take their listeners from here
  - {name: ingress, address: 127.0.0.1:10000, routes: [{prefix: /, service: web, hash_on: {header: x-user}}]}
"""


def the_service(settings: str) -> ServiceSnapshot:
    (service,) = parse(f"services: {{web: {settings}}}", "lb.yaml").services
    return service


def test_the_example_of_a_fleet() -> None:
    web = ServiceSnapshot(
        name="web",
        policy=RingHash(),
        endpoints=(
            Endpoint("127.0.0.1:8081"),
            Endpoint(
                "127.0.0.1:8082",
                weight=2,
                locality=Locality("eu", "a"),
                priority=1,
                health=Health.DRAINING,
                metadata={"hash_key": "b"},
            ),
        ),
        locality_weights={Locality("eu", "a"): 3},
        overprovisioning_factor=140,
        panic_threshold=50.0,
        health_check=HealthCheck(
            http=HttpHealthCheck(path="/healthz"),
            interval=5.0,
            timeout=1.0,
            healthy_threshold=2,
            unhealthy_threshold=3,
        ),
        outlier_detection=OutlierDetection(consecutive_5xx=5),
        drop_overload=DropOverload(category="throttle", percent=10.0),
    )
    route = Route(prefix="/", service="web", hash_on=HashPolicy(Header("x-user")))
    ingress = Listener(name="ingress", address="127.0.0.1:10000", routes=(route,))
    assert parse(FLEET, "lb.yaml") == Configuration(services=(web,), listeners=(ingress,))


def test_no_services_are_valid() -> None:
    assert parse("services: {}", "lb.yaml") == Configuration()


def test_a_service_without_endpoints_is_valid() -> None:
    assert the_service("{}") == ServiceSnapshot(name="web")


def test_services_and_endpoints_keep_the_order_of_the_file() -> None:
    configuration = parse("services: {b: {endpoints: [10.0.0.2:1, 10.0.0.1:1]}, a: {}}", "lb.yaml")
    assert [service.name for service in configuration.services] == ["b", "a"]
    assert [each.address for each in configuration.services[0].endpoints] == ["10.0.0.2:1", "10.0.0.1:1"]


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ("round_robin", RoundRobin()),
        ("random", Random()),
        ("{random: {}}", Random()),
        ("{round_robin: {slow_start: {slow_start_window: 1m}}}", RoundRobin(slow_start=SlowStart(60.0))),
        ("{least_request: {selection_method: full_scan}}", LeastRequest(selection_method="full_scan")),
        ("{ring_hash: {minimum_ring_size: 4096}}", RingHash(minimum_ring_size=4096)),
        ("{ring_hash: {hash_function: murmur_hash_2}}", RingHash(hash_function="murmur_hash_2")),
        ("{ring_hash: {hash_balance_factor: null}}", RingHash()),
        ("{maglev: {table_size: 65537}}", Maglev(table_size=65537)),
    ],
)
def test_a_policy_is_its_name_or_its_name_with_settings(written: str, policy: Policy) -> None:
    assert the_service(f"{{policy: {written}}}").policy == policy


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("5s", 5.0),
        ("250ms", 0.25),
        ("1m", 60.0),
        ("2h", 7200.0),
        ("1.5s", 1.5),
        ("0.1s", 0.1),
        ("55ms", 0.055),
        ("5", 5.0),
        ("0.25", 0.25),
        ("2.5e-1", 0.25),
        ('"5s"', 5.0),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(written: str, seconds: float) -> None:
    interval = the_service(f"{{outlier_detection: {{interval: {written}}}}}").outlier_detection.interval  # type: ignore[union-attr]
    assert (interval, type(interval)) == (seconds, float)


@pytest.mark.parametrize("health", list(Health))
def test_a_health_is_written_in_lower_case(health: Health) -> None:
    endpoint = f"{{address: 10.0.0.1:80, health: {health.name.lower()}}}"
    assert the_service(f"{{endpoints: [{endpoint}]}}").endpoints[0].health is health


@pytest.mark.parametrize(
    ("written", "locality"),
    [
        ("eu", Locality("eu")),
        ("eu/a/rack1", Locality("eu", "a", "rack1")),
        ("/a", Locality("", "a")),
        ("{region: eu, sub_zone: rack1}", Locality("eu", "", "rack1")),
        ("no", Locality("no")),
    ],
)
def test_a_locality_is_text_or_its_parts(written: str, locality: Locality) -> None:
    endpoint = f"{{address: 10.0.0.1:80, locality: {written}}}"
    assert the_service(f"{{endpoints: [{endpoint}]}}").endpoints[0].locality == locality


@pytest.mark.parametrize("address", ["10.0.0.1:80", "[::1]:80", "unix:/run/app.sock"])
def test_an_endpoint_is_its_address_or_a_mapping(address: str) -> None:
    assert the_service(f"{{endpoints: ['{address}']}}") == the_service(f"{{endpoints: [{{address: '{address}'}}]}}")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("b", "b"),
        ('"1"', "1"),
        ("1", 1),
        ("010", 10),
        ("0x10", 16),
        ("-1.5e3", -1500.0),
        ("1e3", 1000.0),
        ("true", True),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("null", None),
        ("~", None),
        ("[1, a, {b: []}]", [1, "a", {"b": []}]),
        ("{1: x, true: y}", {"1": "x", "true": "y"}),
    ],
)
def test_metadata_means_what_the_core_schema_of_yaml_says(written: str, value: Any) -> None:
    endpoint = f"{{address: 10.0.0.1:80, metadata: {{key: {written}}}}}"
    read = the_service(f"{{endpoints: [{endpoint}]}}").endpoints[0].metadata["key"]
    assert (read, type(read)) == (value, type(value))


def test_optional_settings_may_be_null() -> None:
    assert the_service("{health_check: null, circuit_breakers: ~, outlier_detection: }") == ServiceSnapshot(name="web")


def test_circuit_breakers_and_slow_start() -> None:
    service = the_service(
        "{circuit_breakers: {max_requests: 10}, "
        "policy: {least_request: {slow_start: {slow_start_window: 30s, aggression: 2, min_weight_percent: 5}}}}"
    )
    assert service.circuit_breakers == CircuitBreakers(max_requests=10)
    assert service.policy == LeastRequest(
        slow_start=SlowStart(slow_start_window=30.0, aggression=2.0, min_weight_percent=5.0)
    )


def test_names_of_any_kind_that_xds_takes_are_kept() -> None:
    names = ["ns/web", "wéb", "日本", "10", "on", "a:b"]
    listed = ", ".join(f'"{name}": {{}}' for name in names)
    assert [service.name for service in parse(f"services: {{{listed}}}", "lb.yaml").services] == names


def test_anchors_aliases_and_merge_keys() -> None:
    text = """
services:
  one: &base
    policy: &ring {ring_hash: {minimum_ring_size: 10}}
    endpoints: &hosts [10.0.0.1:80]
    panic_threshold: 40
  two:
    <<: *base
    panic_threshold: 30
  three:
    <<: [{panic_threshold: 20}, *base]
    policy: *ring
    endpoints: *hosts
"""
    one, two, three = parse(text, "lb.yaml").services
    assert [each.panic_threshold for each in (one, two, three)] == [40.0, 30.0, 20.0]
    assert one.policy == two.policy == three.policy == RingHash(minimum_ring_size=10)
    assert one.endpoints == two.endpoints == three.endpoints == (Endpoint("10.0.0.1:80"),)


REWRITE = r"""{pattern: '^/user/(\d+)', substitution: '\1'}"""


@pytest.mark.parametrize(
    ("written", "hash_on"),
    [
        ("{header: x-user}", HashPolicy(Header("x-user"))),
        ("{cookie: session}", HashPolicy(Cookie("session"))),
        ("{query_parameter: q}", HashPolicy(QueryParameter("q"))),
        ("{source_ip: true}", HashPolicy(SourceIp())),
        ("source_ip", HashPolicy(SourceIp())),
        ("{filter_state: tenant}", HashPolicy(FilterState("tenant"))),
        ("{header: {name: X-User, terminal: true}}", HashPolicy(Header("x-user", terminal=True))),
        (
            f"{{header: {{name: x-path, regex_rewrite: {REWRITE}}}}}",
            HashPolicy(Header("x-path", regex_rewrite=RegexRewrite(r"^/user/(\d+)", r"\1"))),
        ),
        (
            "{cookie: {name: c, ttl: 1h, path: /, attributes: {SameSite: Lax, Secure: ''}}}",
            HashPolicy(Cookie("c", ttl=3600, path="/", attributes={"SameSite": "Lax", "Secure": ""})),
        ),
        (
            "[{header: {name: x-user, terminal: true}}, {cookie: session}, source_ip]",
            HashPolicy([Header("x-user", terminal=True), Cookie("session"), SourceIp()]),
        ),
        ("[]", HashPolicy([])),
    ],
)
def test_routes_and_services_hash_on_one_thing_or_several(written: str, hash_on: HashPolicy) -> None:
    text = (
        f"services: {{web: {{hash_on: {written}}}}}\n"
        f"listeners: [{{name: in, address: '[::]:80', routes: [{{prefix: /, service: web, hash_on: {written}}}]}}]"
    )
    configuration = parse(text, "lb.yaml")
    assert configuration.services[0].hash_on == configuration.listeners[0].routes[0].hash_on == hash_on


def test_localities_subsets_and_panic() -> None:
    service = the_service(
        "{locality_policy: {zone_aware: {local_hosts: {eu/a: 3}, locality_basis: healthy_hosts_weight}}, "
        "local_locality: eu/a, fail_traffic_on_panic: true, subsets: {selectors: [{keys: [stage, version], "
        "fallback_policy: keys_subset, fallback_keys_subset: [stage]}], default_subset: {stage: prod}}}"
    )
    place = Locality("eu", "a")
    assert service.locality_policy == ZoneAware(local_hosts={place: 3}, locality_basis="healthy_hosts_weight")
    assert (service.local_locality, service.fail_traffic_on_panic) == (place, True)
    selector = SubsetSelector(keys=["stage", "version"], fallback_policy="keys_subset", fallback_keys_subset=["stage"])
    assert service.subsets == Subsets(selectors=[selector], default_subset={"stage": "prod"})


@pytest.mark.parametrize("written", ["locality_weighted", "{locality_weighted: {}}"])
def test_locality_weights_may_all_be_one(written: str) -> None:
    service = the_service(f"{{locality_policy: {written}}}")
    assert service.locality_policy == LocalityWeighted()
    assert service.is_locality_weighted


def test_a_route_may_name_a_subset() -> None:
    routes = "[{prefix: /, service: web, subset: {version: 2}}]"
    text = f"services: {{web: {{}}}}\nlisteners: [{{name: in, address: '[::]:80', routes: {routes}}}]"
    assert parse(text, "lb.yaml").listeners[0].routes[0].subset == {"version": 2}
