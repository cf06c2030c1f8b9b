"""The clusters as Envoy's own admin interface shows them: `/clusters` as text and as JSON.

The text has the lines of TextClustersChunkProcessor (source/server/admin/clusters_chunk_processor.cc), the JSON is
envoy.admin.v3.Clusters. What lbcore does not do (connections, timeouts) shows as in an idle Envoy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from envoy.admin.v3 import clusters_pb2, metrics_pb2
from envoy.config.cluster.v3 import circuit_breaker_pb2
from envoy.config.core.v3 import base_pb2
from google.protobuf.json_format import MessageToDict

from lbcore.directory import DirectorySnapshot
from lbcore.loads import LocalityLoad
from lbcore.model import CheckedHealth, Health, Locality
from lbcore.service.clusters import ServedCluster
from lbcore.service.health_flags import health_flags
from lbcore.settings import CircuitBreakers
from lbcore.stats import EndpointStats
from lbcore.xds.addresses import address_message

__all__ = ["clusters_json", "clusters_text"]

_ENVOY_BREAKERS = CircuitBreakers()  # Envoy's own, for the high priority, which lbcore does not configure
_LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")

_DISCOVERY_STATUS = {
    Health.UNKNOWN: Health.HEALTHY,
    Health.HEALTHY: Health.HEALTHY,
    Health.UNHEALTHY: Health.UNHEALTHY,
    Health.TIMEOUT: Health.UNHEALTHY,
    Health.DEGRADED: Health.DEGRADED,
    Health.DRAINING: Health.DRAINING,
}


LoadByService: TypeAlias = Mapping[str, Mapping[Locality, LocalityLoad]]


def clusters_text(clusters: Iterable[ServedCluster], snapshot: DirectorySnapshot, loads: LoadByService) -> str:
    """`/clusters`: one `cluster::...::value` a line."""
    return "".join(
        f"{served.service.name}::{line}\n"
        for served in clusters
        for line in (
            *_lines(served),
            *_source_lines(served.service.name, snapshot),
            *_load_lines(loads.get(served.service.name, {})),
        )
    )


def clusters_json(clusters: Iterable[ServedCluster]) -> str:
    """`/clusters?format=json`."""
    message = clusters_pb2.Clusters(cluster_statuses=map(_status, clusters))
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True), indent=1) + "\n"


def _lines(served: ServedCluster) -> Iterator[str]:
    service = served.service
    yield f"observability_name::{service.name}"
    ejections = served.cluster.stats().outlier_detection
    if ejections is not None:
        for figure in ("success_rate", "local_origin_success_rate"):
            for kind in ("average", "ejection_threshold"):
                yield f"outlier::{figure}_{kind}::{_rate(getattr(ejections, f'{figure}_{kind}'))}"
    for priority, limits in (("default", service.circuit_breakers or _ENVOY_BREAKERS), ("high", _ENVOY_BREAKERS)):
        for name in _LIMITS:
            yield f"{priority}_priority::{name}::{getattr(limits, name)}"
    yield "added_via_api::true"
    said = served.said_health()
    for each in _by_priority(served):
        address = each.endpoint.address
        flags = health_flags(said.get(address, each.endpoint.health), served.findings.of(address), ejected=each.ejected)
        for name, value in _host_values(each, flags):
            yield f"{address.removeprefix('unix:')}::{name}::{value}"


def _source_lines(service: str, snapshot: DirectorySnapshot) -> Iterator[str]:
    """Lines of lbcore's own: which source finds the endpoints, and why it fails where it does."""
    if source := snapshot.sourced.get(service):
        yield f"source::{source}"
        if reason := snapshot.stale.get(source):
            yield f"stale::{' '.join(reason.split())}"


def _load_lines(loads: Mapping[Locality, LocalityLoad]) -> Iterator[str]:
    """What callers report, by locality: `load::LOCALITY::FIGURE::VALUE`."""
    for place, load in sorted(loads.items()):
        yield f"load::{place}::rq_per_second::{load.requests_per_second:.3f}"
        yield f"load::{place}::rq_error_per_second::{load.errors_per_second:.3f}"
        yield f"load::{place}::rq_active::{load.in_progress}"
        for name, mean in sorted(load.metrics.items()):
            yield f"load::{place}::metric.{name}::{mean:.6g}"


def _host_values(each: EndpointStats, flags: str) -> Iterator[tuple[str, object]]:
    endpoint = each.endpoint
    yield from sorted({**_counters(each), **_gauges(each)}.items())
    yield "hostname", endpoint.hostname
    yield "health_flags", flags
    yield "weight", endpoint.weight
    yield "region", endpoint.locality.region
    yield "zone", endpoint.locality.zone
    yield "sub_zone", endpoint.locality.sub_zone
    yield "canary", "false"
    yield "priority", endpoint.priority
    yield "success_rate", _rate(each.success_rate)
    yield "local_origin_success_rate", _rate(each.local_origin_success_rate)


def _rate(percent: float | None) -> str:
    return "-1" if percent is None else f"{percent:g}"


def _status(served: ServedCluster) -> clusters_pb2.ClusterStatus:
    service = served.service
    breakers = circuit_breaker_pb2.CircuitBreakers(
        thresholds=[
            _thresholds(base_pb2.DEFAULT, service.circuit_breakers or _ENVOY_BREAKERS),
            _thresholds(base_pb2.HIGH, _ENVOY_BREAKERS),
        ]
    )
    said = served.said_health()
    ejections = served.cluster.stats().outlier_detection
    status = clusters_pb2.ClusterStatus(
        name=service.name,
        observability_name=service.name,
        added_via_api=True,
        circuit_breakers=breakers,
        host_statuses=[_host_status(each, _health_status(served, said, each)) for each in _by_priority(served)],
    )
    for figure in ("success_rate_ejection_threshold", "local_origin_success_rate_ejection_threshold"):
        threshold = getattr(ejections, figure, None)
        if threshold is not None and threshold > 0.0:  # as Envoy shows it
            getattr(status, figure).value = threshold
    return status


def _health_status(
    served: ServedCluster, said: Mapping[str, Health], each: EndpointStats
) -> clusters_pb2.HostHealthStatus:
    endpoint = each.endpoint
    found = served.findings.of(endpoint.address) or CheckedHealth()
    return clusters_pb2.HostHealthStatus(
        eds_health_status=int(_DISCOVERY_STATUS[said.get(endpoint.address, endpoint.health)]),
        failed_active_health_check=not found.passing,
        failed_outlier_check=each.ejected,
        failed_active_degraded_check=found.degraded,
        excluded_via_immediate_hc_fail=found.excluded,
        active_hc_timeout=found.timed_out,
    )


def _host_status(each: EndpointStats, health_status: clusters_pb2.HostHealthStatus) -> clusters_pb2.HostStatus:
    endpoint = each.endpoint
    locality = endpoint.locality
    status = clusters_pb2.HostStatus(
        address=address_message(endpoint.address),
        stats=[
            *(metrics_pb2.SimpleMetric(name=name, value=value) for name, value in _counters(each).items()),
            *(
                metrics_pb2.SimpleMetric(name=name, value=value, type=metrics_pb2.SimpleMetric.GAUGE)
                for name, value in _gauges(each).items()
            ),
        ],
        health_status=health_status,
        weight=endpoint.weight,
        hostname=endpoint.hostname,
        priority=endpoint.priority,
        # Present also where it is empty, as Envoy has it.
        locality=base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone),
    )
    for figure in ("success_rate", "local_origin_success_rate"):
        if (rate := getattr(each, figure)) is not None:
            getattr(status, figure).value = rate
    return status


def _by_priority(served: ServedCluster) -> list[EndpointStats]:
    return sorted(served.cluster.stats().endpoints, key=lambda each: each.endpoint.priority)


def _counters(each: EndpointStats) -> dict[str, int]:
    return {
        "cx_connect_fail": 0,
        "cx_total": 0,
        "rq_error": each.failures,
        "rq_success": each.successes,
        "rq_timeout": 0,
        "rq_total": each.requests,
    }


def _gauges(each: EndpointStats) -> dict[str, int]:
    return {"cx_active": 0, "rq_active": each.active, "rq_pending_active": 0}


def _thresholds(
    priority: base_pb2.RoutingPriority, limits: CircuitBreakers
) -> circuit_breaker_pb2.CircuitBreakers.Thresholds:
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(priority=priority)
    for name in _LIMITS:
        getattr(thresholds, name).value = getattr(limits, name)
    return thresholds
