"""Shares, timeouts, retries and faults of routes as messages, and what of them is refused before it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from lbcore.directory import ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.model import Endpoint
from lbcore.retry import RetryBackOff, RetryPolicy
from lbcore.routing import Listener, Route, RouteAction
from lbcore.xds.clusters import envoy_cluster, grpc_cluster
from lbcore.xds.listeners import api_listener, envoy_listener
from lbcore.xds.messages import FAULT_FILTER
from lbcore.xds.routes import listener_routes, service_route
from tests.xds.test_assignments import made_of
from tests.xds.test_clusters import as_json

FAULTY = RouteAction(fault=Fault(abort=FaultAbort(http_status=503, percentage=0.5), max_active_faults=3))


def for_envoy(route: Route) -> Any:
    made = as_json(
        listener_routes(Listener(name="in", address="127.0.0.1:1", routes=(route,))), route_pb2.RouteConfiguration
    )
    return made["virtual_hosts"][0]["routes"][0]


def for_grpc(action: RouteAction) -> Any:
    made = as_json(service_route(ServiceSnapshot(name="web", route=action)), route_pb2.RouteConfiguration)
    return made["virtual_hosts"][0]["routes"][0]


def test_shares_are_weighted_clusters() -> None:
    shares = {"web": 90, "canary": 10}
    expected = {"clusters": [{"name": "web", "weight": 90}, {"name": "canary", "weight": 10}]}
    assert for_envoy(Route(prefix="/", services=shares))["route"]["weighted_clusters"] == expected
    assert for_grpc(RouteAction(services=shares))["route"]["weighted_clusters"] == expected
    resource = service_route(ServiceSnapshot(name="web", route=RouteAction(services=shares)))
    assert resource.clusters == shares.keys()


def test_all_to_one_is_a_plain_cluster() -> None:
    assert for_grpc(RouteAction(services={"other": 5}))["route"] == {"cluster": "other"}


def test_a_timeout_is_said_as_each_client_reads_it() -> None:
    assert for_envoy(Route(prefix="/", service="web", timeout=1.5))["route"]["timeout"] == "1.500s"
    assert for_grpc(RouteAction(timeout=1.5))["route"]["max_stream_duration"] == {"max_stream_duration": "1.500s"}
    assert "max_stream_duration" not in for_grpc(RouteAction(timeout=0.0))["route"]


def test_retries_keep_every_field() -> None:
    retry = RetryPolicy(
        retry_on=("unavailable", "retriable-status-codes"),
        num_retries=3,
        per_try_timeout=0.25,
        retriable_status_codes=(429,),
        retry_back_off=RetryBackOff(base_interval=0.01, max_interval=1),
    )
    expected = {
        "retry_on": "unavailable,retriable-status-codes",
        "num_retries": 3,
        "per_try_timeout": "0.250s",
        "retriable_status_codes": [429],
        "retry_back_off": {"base_interval": "0.010s", "max_interval": "1s"},
    }
    assert for_envoy(Route(prefix="/", service="web", retry=retry))["route"]["retry_policy"] == expected
    assert for_grpc(RouteAction(retry=retry))["route"]["retry_policy"] == expected


def test_a_fault_stands_in_the_route_under_the_filters_name() -> None:
    fault = for_grpc(FAULTY)["typed_per_filter_config"][FAULT_FILTER]
    assert fault["abort"] == {"http_status": 503, "percentage": {"numerator": 5000, "denominator": "MILLION"}}
    assert fault["max_active_faults"] == 3
    delay = RouteAction(fault=Fault(delay=FaultDelay(fixed_delay=0.5)))
    assert for_grpc(delay)["typed_per_filter_config"][FAULT_FILTER]["delay"]["fixed_delay"] == "0.500s"


def test_listeners_have_the_fault_filter_where_a_route_may_need_it() -> None:
    def filters(made: Any) -> list[str]:
        manager = made.get("api_listener", {}).get("api_listener")
        manager = manager or made["filter_chains"][0]["filters"][0]["typed_config"]
        return [each["name"] for each in manager["http_filters"]]

    plain, faulty = (ServiceSnapshot(name="web", route=route) for route in (None, FAULTY))
    assert filters(as_json(api_listener(plain), listener_pb2.Listener)) == ["envoy.filters.http.router"]
    both = [FAULT_FILTER, "envoy.filters.http.router"]
    assert filters(as_json(api_listener(faulty), listener_pb2.Listener)) == both
    ingress = Listener(name="in", address="127.0.0.1:1", routes=())
    assert filters(as_json(envoy_listener(ingress), listener_pb2.Listener)) == both


def test_http2_and_the_time_to_connect_are_envoys_alone() -> None:
    web = ServiceSnapshot(name="web", protocol="http2", connect_timeout=0.5)
    envoy, grpc = (as_json(make(web), cluster_pb2.Cluster) for make in (envoy_cluster, grpc_cluster))
    (options,) = envoy["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": {}}
    assert envoy["connect_timeout"] == "0.500s"
    assert not {"typed_extension_protocol_options", "connect_timeout"} & grpc.keys()
    plain = as_json(envoy_cluster(ServiceSnapshot(name="web")), cluster_pb2.Cluster)
    assert "typed_extension_protocol_options" not in plain


def test_further_addresses_are_passed_on() -> None:
    web = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", additional_addresses=("[2001:db8::1]:80",)),))
    made = as_json(made_of(web), endpoint_pb2.ClusterLoadAssignment)
    (endpoint,) = made["endpoints"][0]["lb_endpoints"]
    (further,) = endpoint["endpoint"]["additional_addresses"]
    assert further["address"]["socket_address"] == {"address": "2001:db8::1", "port_value": 80}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Route(prefix="/"), "either service or services"),
        (lambda: Route(prefix="/", service="a", services={"b": 1}), "either service or services"),
        (lambda: RouteAction(services={"a": 0}), "add up to 1"),
        (lambda: RouteAction(services={"a": 2**32 - 1, "b": 1}), "add up to 1"),
        (lambda: RouteAction(services={"a": -1}), "weight -1"),
        (lambda: RouteAction(services={"*": 1}), "service '*'"),
        (lambda: RetryPolicy(retry_on=("nonsense",)), "retry_on 'nonsense'"),
        (lambda: RetryPolicy(retry_on=()), "one reason or more"),
        (lambda: RetryPolicy(retry_on="5xx"), "a list of reasons"),  # type: ignore[arg-type]
        (lambda: RetryPolicy(retry_on=("5xx",), num_retries=0), "num_retries 0"),
        (lambda: RetryPolicy(retry_on=("5xx",), retriable_status_codes=(429,)), "retriable-status-codes"),
        (lambda: RetryBackOff(base_interval=1, max_interval=0.5), "max_interval 0.5"),
        (lambda: Fault(), "delay, abort or both"),
        (lambda: FaultAbort(), "either http_status or grpc_status"),
        (lambda: FaultAbort(http_status=503, grpc_status=14), "either http_status or grpc_status"),
        (lambda: FaultAbort(http_status=199), "http_status 199"),
        (lambda: FaultDelay(fixed_delay=0), "fixed_delay 0"),
        (lambda: Endpoint("10.0.0.1:80", additional_addresses=("unix:/x",)), "additional_addresses 'unix:/x'"),
        (lambda: Endpoint("10.0.0.1:80", additional_addresses=("web:80",)), "additional_addresses 'web:80'"),
        (lambda: v3("10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:80"), "'10.0.0.2:80': expected each address once"),
        (lambda: v3("10.0.0.1:80", "10.0.0.1:80"), "'10.0.0.1:80': expected each address once"),
        (lambda: v3("unix:/x", "10.0.0.1:80"), "none beside a unix socket"),
    ],
)
def test_v7_what_a_client_would_refuse_cannot_be_made(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        make()
    assert complaint in str(refused.value)


def v3(address: str, *further: str) -> ServiceSnapshot:
    return ServiceSnapshot(name="web", endpoints=(Endpoint(address, additional_addresses=further),))
