"""A service as a Cluster: one for Envoy with all of its settings, one for gRPC with what gRPC accepts.

Both take their endpoints by EDS from the stream that the cluster came by. Sources: Envoy cluster.proto; gRPC
xds_cluster_parser.cc.
"""

from __future__ import annotations

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from lbcore.directory import ServiceSnapshot
from lbcore.settings import CircuitBreakers, OutlierDetection
from lbcore.xds.health_checks import health_check_message
from lbcore.xds.lint import linted
from lbcore.xds.messages import FROM_ADS, LOAD_TO_HERE, duration, packed
from lbcore.xds.policies import envoy_policy, grpc_policy
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource

__all__ = ["envoy_cluster", "grpc_cluster", "same_clusters"]

_FIELDS = (
    "name",
    "policy",
    "subsets",
    "locality_policy",
    "fail_traffic_on_panic",
    "panic_threshold",
    "health_check",
    "outlier_detection",
    "circuit_breakers",
    "protocol",
    "connect_timeout",
    "ttl",
)
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP2 = packed(
    http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config=http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
        )
    )
)


def envoy_cluster(service: ServiceSnapshot) -> Resource:
    """The cluster with policy, panic threshold, outlier detection, circuit breakers and health checks as set."""
    message = _cluster(service)
    message.load_balancing_policy.CopyFrom(envoy_policy(service))
    message.common_lb_config.healthy_panic_threshold.CopyFrom(percent_pb2.Percent(value=service.panic_threshold))
    message.connect_timeout.CopyFrom(duration(service.connect_timeout))
    if service.protocol == "http2":
        message.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(_HTTP2)
    if service.health_check and service.health_check.checked_by != "service" and _can_check(service):
        message.health_checks.append(health_check_message(service.health_check))
    return linted(ResourceType.CLUSTER, service.name, message, ttl=service.ttl)


def grpc_cluster(service: ServiceSnapshot) -> Resource:
    """The cluster with the nearest policy that gRPC has, outlier detection and the limit of requests."""
    message = _cluster(service)
    message.load_balancing_policy.CopyFrom(grpc_policy(service))
    message.lrs_server.CopyFrom(LOAD_TO_HERE)  # Envoy has its own setting for that, in its bootstrap
    return linted(ResourceType.CLUSTER, service.name, message, ttl=service.ttl)


def _can_check(service: ServiceSnapshot) -> bool:
    """Envoy refuses a cluster with gRPC checks that does not speak HTTP/2: then lbcore's own checks have to do."""
    assert service.health_check is not None
    return service.health_check.grpc is None or service.protocol == "http2"


def same_clusters(one: ServiceSnapshot, other: ServiceSnapshot) -> bool:
    """Whether both services have the same clusters."""
    return one.is_locality_weighted == other.is_locality_weighted and all(
        getattr(one, field) == getattr(other, field) for field in _FIELDS
    )


def _cluster(service: ServiceSnapshot) -> cluster_pb2.Cluster:
    message = cluster_pb2.Cluster(
        name=service.name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=FROM_ADS),
    )
    if service.circuit_breakers:
        message.circuit_breakers.CopyFrom(_circuit_breakers(service.circuit_breakers))
    if service.outlier_detection:
        message.outlier_detection.CopyFrom(_outlier_detection(service.outlier_detection))
    return message


def _circuit_breakers(setting: CircuitBreakers) -> circuit_breaker_pb2.CircuitBreakers:
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        **{field: wrappers_pb2.UInt32Value(value=getattr(setting, field)) for field in limits}
    )
    if setting.track_remaining:
        thresholds.track_remaining = True
    if (budget := setting.retry_budget) is not None:
        thresholds.retry_budget.budget_percent.value = budget.budget_percent
        thresholds.retry_budget.min_retry_concurrency.value = budget.min_retry_concurrency
    message = circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])
    if (per_host := setting.per_host_thresholds) is not None:
        message.per_host_thresholds.add().max_connections.value = per_host.max_connections
    return message


OF_OWN_PICKS = ("algorithm", "event_log_path")  # settings that no client hears of


def _outlier_detection(setting: OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    message = outlier_detection_pb2.OutlierDetection()
    for field in setting.__slots__:  # the fields bear Envoy's names
        if field in OF_OWN_PICKS:
            continue
        value, wrapper = getattr(setting, field), message.DESCRIPTOR.fields_by_name[field].message_type
        if wrapper is None:
            setattr(message, field, value)
        elif wrapper.name == "Duration":
            getattr(message, field).CopyFrom(duration(value))
        else:
            getattr(message, field).value = value
    # Envoy refuses a maximum below the base; its own default for the maximum is the base, if that is larger.
    message.max_ejection_time.CopyFrom(duration(max(setting.max_ejection_time, setting.base_ejection_time)))
    return message
