"""Clusters, policies, listeners and routes as messages; that the real clients take them is tested in tests/parity."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401  (JSON form of an Any needs it)
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,  # noqa: F401
)
from google.protobuf import any_pb2, json_format

from lbcore.directory import ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.model import Locality
from lbcore.policy import (
    Adaptive,
    Jump,
    LeastRequest,
    Maglev,
    PeakEwma,
    Policy,
    Prequal,
    Random,
    Rendezvous,
    RingHash,
    RoundRobin,
)
from lbcore.routing import Listener, Route
from lbcore.settings import (
    CircuitBreakers,
    GrpcHealthCheck,
    HeaderValue,
    HealthCheck,
    HttpHealthCheck,
    OutlierDetection,
    Payload,
    PerHostThresholds,
    RetryBudget,
    SlowStart,
    StatusRange,
    StringMatcher,
    TcpHealthCheck,
)
from lbcore.xds.clusters import envoy_cluster, grpc_cluster
from lbcore.xds.listeners import api_listener, envoy_listener
from lbcore.xds.routes import listener_routes, service_route
from lbcore.xds.wire import Resource

PREFIX = "type.googleapis.com/envoy.extensions.load_balancing_policies."


def as_json(resource: Resource, kind: Any) -> Any:
    """The message in a resource, in protobuf's JSON form with the names of the .proto files."""
    payload = resource.framed
    start = 1
    while payload[start] & 0x80:
        start += 1
    message = kind.FromString(any_pb2.Any.FromString(payload[start + 1 :]).value)
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def envoy(policy: Policy = RoundRobin(), **settings: Any) -> Any:  # noqa: B008  (immutable)
    return as_json(envoy_cluster(ServiceSnapshot(name="web", policy=policy, **settings)), cluster_pb2.Cluster)


def grpc(policy: Policy = RoundRobin(), **settings: Any) -> Any:  # noqa: B008
    return as_json(grpc_cluster(ServiceSnapshot(name="web", policy=policy, **settings)), cluster_pb2.Cluster)


def policies(cluster: Any) -> list[Any]:
    return [each["typed_extension_config"]["typed_config"] for each in cluster["load_balancing_policy"]["policies"]]


def kinds(listed: list[Any]) -> list[str]:
    return [each["@type"].removeprefix(PREFIX).partition(".")[0] for each in listed]


@pytest.mark.parametrize("cluster", [envoy(), grpc()], ids=["envoy", "grpc"])
def test_a_cluster_has_its_endpoints_by_eds_from_the_same_stream(cluster: Any) -> None:
    assert cluster["name"] == "web"
    assert cluster["type"] == "EDS"
    assert cluster["eds_cluster_config"] == {"eds_config": {"ads": {}, "resource_api_version": "V3"}}


@pytest.mark.parametrize("kind", get_args(Policy))
@pytest.mark.parametrize("locality_weights", [{}, {Locality("eu"): 3}])
def test_every_policy_has_a_form_for_either_client(kind: Any, locality_weights: Any) -> None:
    (for_envoy,) = policies(envoy(kind(), locality_weights=locality_weights))
    by_load = dict.fromkeys((PeakEwma, Adaptive, Prequal), LeastRequest)
    nearest = {Rendezvous: Maglev, Jump: Maglev, **by_load}.get(kind, kind)  # Envoy has none of these
    assert for_envoy["@type"].endswith(f".v3.{nearest.__name__}")
    assert kinds(policies(grpc(kind(), locality_weights=locality_weights)))[-1] == "round_robin"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RoundRobin(), ["round_robin"]),
        (Random(), ["round_robin"]),
        (LeastRequest(), ["least_request", "round_robin"]),
        (RingHash(), ["ring_hash", "round_robin"]),
        (Maglev(), ["ring_hash", "round_robin"]),
        (Rendezvous(), ["ring_hash", "round_robin"]),
        (Jump(), ["ring_hash", "round_robin"]),
    ],
)
def test_grpc_gets_the_nearest_policy_that_it_has(policy: Policy, expected: list[str]) -> None:
    assert kinds(policies(grpc(policy))) == expected


def test_grpc_picks_by_locality_weight_where_weights_are_given() -> None:
    listed = policies(grpc(LeastRequest(), locality_weights={Locality("eu"): 3}))
    assert kinds(listed) == ["wrr_locality", "least_request", "round_robin"]
    inner = policies({"load_balancing_policy": listed[0]["endpoint_picking_policy"]})
    assert kinds(inner) == ["least_request", "round_robin"]


def test_a_grpc_ring_is_always_hashed_by_xx_hash() -> None:
    ring = policies(grpc(RingHash(minimum_ring_size=7, maximum_ring_size=9, hash_function="murmur_hash_2")))[0]
    assert ring == {
        "@type": PREFIX + "ring_hash.v3.RingHash",
        "hash_function": "XX_HASH",
        "minimum_ring_size": "7",
        "maximum_ring_size": "9",
    }


def test_envoy_ring_hash_settings() -> None:
    policy = RingHash(
        minimum_ring_size=7,
        maximum_ring_size=9,
        hash_function="murmur_hash_2",
        use_hostname_for_hashing=True,
        hash_balance_factor=120,
    )
    assert policies(envoy(policy)) == [
        {
            "@type": PREFIX + "ring_hash.v3.RingHash",
            "hash_function": "MURMUR_HASH_2",
            "minimum_ring_size": "7",
            "maximum_ring_size": "9",
            "consistent_hashing_lb_config": {"use_hostname_for_hashing": True, "hash_balance_factor": 120},
        }
    ]


def test_envoy_maglev_settings() -> None:
    assert policies(envoy(Maglev(table_size=101, hash_balance_factor=150))) == [
        {
            "@type": PREFIX + "maglev.v3.Maglev",
            "table_size": "101",
            "consistent_hashing_lb_config": {"hash_balance_factor": 150},
        }
    ]


def test_envoy_least_request_settings() -> None:
    slow_start = SlowStart(30.5, aggression=2.0, min_weight_percent=5.0)
    policy = LeastRequest(choice_count=3, selection_method="full_scan", active_request_bias=0.5, slow_start=slow_start)
    assert policies(envoy(policy)) == [
        {
            "@type": PREFIX + "least_request.v3.LeastRequest",
            "choice_count": 3,
            "selection_method": "FULL_SCAN",
            "active_request_bias": {"default_value": 0.5, "runtime_key": "lbcore.active_request_bias"},
            "slow_start_config": {
                "slow_start_window": "30.500s",
                "aggression": {"default_value": 2.0, "runtime_key": "lbcore.aggression"},
                "min_weight_percent": {"value": 5.0},
            },
        }
    ]


def test_the_default_bias_is_left_to_envoy() -> None:
    assert "active_request_bias" not in policies(envoy(LeastRequest()))[0]


@pytest.mark.parametrize("policy", [RoundRobin(), Random(), LeastRequest()])
def test_envoy_weighs_localities_only_where_weights_are_given(policy: Policy) -> None:
    assert "locality_lb_config" not in policies(envoy(policy))[0]
    (weighted,) = policies(envoy(policy, locality_weights={Locality("eu"): 3}))
    assert weighted["locality_lb_config"] == {"locality_weighted_lb_config": {}}


@pytest.mark.parametrize("policy", [RingHash(), Maglev()])
def test_envoy_weighs_localities_in_hashing_policies_too(policy: Policy) -> None:
    assert "locality_weighted_lb_config" not in policies(envoy(policy))[0]
    (weighted,) = policies(envoy(policy, locality_weights={Locality("eu"): 3}))
    assert weighted["locality_weighted_lb_config"] == {}


def test_the_panic_threshold_is_envoys_alone() -> None:
    assert envoy(panic_threshold=12.5)["common_lb_config"] == {"healthy_panic_threshold": {"value": 12.5}}
    assert "common_lb_config" not in grpc(panic_threshold=12.5)


@pytest.mark.parametrize("make", [envoy, grpc])
def test_circuit_breakers(make: Any) -> None:
    breakers = CircuitBreakers(max_connections=1, max_pending_requests=2, max_requests=0, max_retries=4)
    assert make(circuit_breakers=breakers)["circuit_breakers"] == {
        "thresholds": [{"max_connections": 1, "max_pending_requests": 2, "max_requests": 0, "max_retries": 4}]
    }


def test_a_retry_budget_and_limits_of_each_host() -> None:
    breakers = CircuitBreakers(
        retry_budget=RetryBudget(budget_percent=12.5),
        track_remaining=True,
        per_host_thresholds=PerHostThresholds(max_connections=7),
    )
    made = envoy(circuit_breakers=breakers)["circuit_breakers"]
    assert made["per_host_thresholds"] == [{"max_connections": 7}]
    assert made["thresholds"][0]["track_remaining"] is True
    assert made["thresholds"][0]["retry_budget"] == {"budget_percent": {"value": 12.5}, "min_retry_concurrency": 3}


@pytest.mark.parametrize("make", [envoy, grpc])
def test_outlier_detection_keeps_every_field(make: Any) -> None:
    setting = OutlierDetection(
        interval=1, enforcing_success_rate=0, split_external_local_origin_errors=True, always_eject_one_host=True
    )
    made = make(outlier_detection=setting)["outlier_detection"]
    assert set(made) == set(OutlierDetection.__slots__) - {"algorithm", "event_log_path"}
    assert made["interval"] == "1s"
    assert made["enforcing_success_rate"] == 0
    assert made["split_external_local_origin_errors"] is True
    assert made["always_eject_one_host"] is True


def test_the_longest_ejection_is_never_shorter_than_the_base() -> None:
    made = envoy(outlier_detection=OutlierDetection(base_ejection_time=600.0))["outlier_detection"]
    assert made["max_ejection_time"] == "600s"


def test_health_checks_are_envoys_alone() -> None:
    check = HealthCheck(http=HttpHealthCheck(path="/healthz", host="web"), interval=2.5, timeout=0.5)
    assert envoy(health_check=check)["health_checks"] == [
        {
            "http_health_check": {"path": "/healthz", "host": "web"},
            "interval": "2.500s",
            "timeout": "0.500s",
            "healthy_threshold": 2,
            "unhealthy_threshold": 3,
        }
    ]
    assert "health_checks" not in grpc(health_check=check)


def test_envoy_is_not_asked_for_checks_that_lbcore_alone_makes() -> None:
    check = HealthCheck(http=HttpHealthCheck(), checked_by="service")
    assert "health_checks" not in envoy(health_check=check)


def test_every_setting_of_a_check_that_envoy_has_is_sent() -> None:
    http = HttpHealthCheck(
        method="POST",
        expected_statuses=(StatusRange(start=200, end=300),),
        retriable_statuses=(StatusRange(start=500, end=600),),
        send=Payload.of(b"{}"),
        receive=(Payload.of(b"ok"),),
        response_buffer_size=64,
        request_headers_to_add=(HeaderValue(key="x-probe", value="100%"),),
        request_headers_to_remove=("user-agent",),
        service_name_matcher=StringMatcher(prefix="shop", ignore_case=True),
        codec_client_type="http2",
    )
    check = HealthCheck(
        http=http,
        initial_jitter=0.5,
        interval_jitter=0.25,
        interval_jitter_percent=10,
        unhealthy_interval=3.0,
        unhealthy_edge_interval=2.0,
        healthy_edge_interval=1.0,
        no_traffic_interval=30.0,
        no_traffic_healthy_interval=45.0,
        reuse_connection=False,
    )
    assert envoy(health_check=check)["health_checks"] == [
        {
            "http_health_check": {
                "path": "/",
                "method": "POST",
                "expected_statuses": [{"start": "200", "end": "300"}],
                "retriable_statuses": [{"start": "500", "end": "600"}],
                "send": {"text": "7b7d"},
                "receive": [{"text": "6f6b"}],
                "response_buffer_size": "64",
                "request_headers_to_add": [{"header": {"key": "x-probe", "value": "100%%"}}],
                "request_headers_to_remove": ["user-agent"],
                "service_name_matcher": {"prefix": "shop", "ignore_case": True},
                "codec_client_type": "HTTP2",
            },
            "interval": "5s",
            "timeout": "1s",
            "healthy_threshold": 2,
            "unhealthy_threshold": 3,
            "initial_jitter": "0.500s",
            "interval_jitter": "0.250s",
            "interval_jitter_percent": 10,
            "unhealthy_interval": "3s",
            "unhealthy_edge_interval": "2s",
            "healthy_edge_interval": "1s",
            "no_traffic_interval": "30s",
            "no_traffic_healthy_interval": "45s",
            "reuse_connection": False,
        }
    ]


def test_checks_over_tcp_and_grpc_are_sent_as_well() -> None:
    tcp = HealthCheck(tcp=TcpHealthCheck(send=Payload.of(b"PING"), receive=(Payload.of(b"PONG"),)))
    (made,) = envoy(health_check=tcp)["health_checks"]
    assert made["tcp_health_check"] == {"send": {"text": "50494e47"}, "receive": [{"text": "504f4e47"}]}
    metadata = (HeaderValue(key="x-probe", append_action="overwrite_if_exists"),)
    grpc_check = HealthCheck(grpc=GrpcHealthCheck(service_name="shop.Cart", watch=True, initial_metadata=metadata))
    (made,) = envoy(health_check=grpc_check, protocol="http2")["health_checks"]
    header = {"header": {"key": "x-probe"}, "append_action": "OVERWRITE_IF_EXISTS", "keep_empty_value": True}
    assert made["grpc_health_check"] == {"service_name": "shop.Cart", "initial_metadata": [header]}
    # Envoy refuses the whole cluster: "must support HTTP/2 for gRPC healthchecking".
    assert "health_checks" not in envoy(health_check=grpc_check)


def test_grpc_checks_that_nobody_could_make_are_refused() -> None:
    check = HealthCheck(grpc=GrpcHealthCheck(), checked_by="clients")
    with pytest.raises(InvalidSetting, match="checked_by clients: expected protocol http2"):
        envoy(health_check=check)


def test_an_api_listener_takes_its_routes_by_name_and_ends_in_the_router() -> None:
    made = as_json(api_listener(ServiceSnapshot(name="web")), listener_pb2.Listener)
    assert made.keys() == {"name", "api_listener"}
    manager = made["api_listener"]["api_listener"]
    assert manager["rds"] == {
        "route_config_name": "web",
        "config_source": {"ads": {}, "resource_api_version": "V3"},
    }
    assert [each["name"] for each in manager["http_filters"]] == ["envoy.filters.http.router"]


def test_an_envoy_listener_has_its_address_and_takes_its_routes_by_name() -> None:
    made = as_json(envoy_listener(Listener(name="in", address="[::1]:80", routes=())), listener_pb2.Listener)
    assert made["address"] == {"socket_address": {"address": "::1", "port_value": 80}}
    (chain,) = made["filter_chains"]
    (network_filter,) = chain["filters"]
    assert network_filter["typed_config"]["rds"]["route_config_name"] == "in"


def test_a_service_route_leads_every_call_to_the_service() -> None:
    resource = service_route(ServiceSnapshot(name="web"))
    made = as_json(resource, route_pb2.RouteConfiguration)
    (host,) = made["virtual_hosts"]
    assert host["domains"] == ["*"]
    assert host["routes"] == [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]
    assert resource.clusters == {"web"}


def test_routes_of_a_listener_keep_their_order() -> None:
    routes = (Route(prefix="/b", service="b"), Route(prefix="/", service="a"))
    resource = listener_routes(Listener(name="in", address="127.0.0.1:80", routes=routes))
    (host,) = as_json(resource, route_pb2.RouteConfiguration)["virtual_hosts"]
    assert host["routes"] == [
        {"match": {"prefix": "/b"}, "route": {"cluster": "b"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]
