"""What keeps a sick fleet serving, for Prometheus: ejections by cause, and the circuit breakers.

Read from the clusters' statistics when it is scraped. A cluster that its service's settings replace counts anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from lbcore.service.clusters import ServedCluster
from lbcore.stats import EjectionCause, OutlierDetectionStats

__all__ = ["circuit_breakers", "ejections"]

Counted = list[tuple[str, OutlierDetectionStats]]  # by service
_BREAKERS = ("requests", "pending_requests", "retries", "connections")


_OUTLIERS = "lbcore_outlier_detection_ejections"


def ejections(clusters: Iterable[ServedCluster]) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    """Of the services with outlier detection, by cause; and by the names that Envoy and gRPC (gRFC A91) give them."""
    counted = [
        (served.service.name, counts)
        for served in clusters
        if (counts := served.cluster.stats().outlier_detection) is not None
    ]
    yield from _by_cause(counted)
    yield from _by_envoys_names(counted)
    yield from _by_grpcs_names(counted)


def _by_cause(counted: Counted) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    enforced = CounterMetricFamily("lbcore_outlier_ejections", "Endpoints ejected", labels=["service", "cause"])
    detected = CounterMetricFamily(
        "lbcore_outlier_detections", "Outliers found, whether they were ejected or not", labels=["service", "cause"]
    )
    overflow = CounterMetricFamily(
        "lbcore_outlier_ejections_overflow", "Outliers not ejected, because too many were out", labels=["service"]
    )
    active = GaugeMetricFamily("lbcore_outlier_ejections_active", "Endpoints that are out now", labels=["service"])
    for name, counts in counted:
        for cause in EjectionCause:
            enforced.add_metric([name, cause.value], counts.enforced(cause))
            detected.add_metric([name, cause.value], counts.detected(cause))
        overflow.add_metric([name], counts.ejections_overflow)
        active.add_metric([name], counts.ejections_active)
    yield from (enforced, detected, overflow, active)


def _by_envoys_names(counted: Counted) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    """Envoy's `cluster.NAME.outlier_detection.*`, except `ejections_enforced_total`, which is the sum of gRPC's."""
    active = GaugeMetricFamily(f"{_OUTLIERS}_active", "Envoy: ejections_active", labels=["service"])
    overflow = CounterMetricFamily(f"{_OUTLIERS}_overflow", "Envoy: ejections_overflow", labels=["service"])
    for name, counts in counted:
        active.add_metric([name], counts.ejections_active)
        overflow.add_metric([name], counts.ejections_overflow)
    yield from (active, overflow)
    for cause in EjectionCause:
        for kind in ("enforced", "detected"):
            name = f"{kind}_{cause.value}"
            family = CounterMetricFamily(f"{_OUTLIERS}_{name}", f"Envoy: ejections_{name}", labels=["service"])
            for service, counts in counted:
                family.add_metric([service], getattr(counts, f"ejections_{name}"))
            yield family


def _by_grpcs_names(counted: Counted) -> Iterator[CounterMetricFamily]:
    """gRFC A91's `grpc.lb.outlier_detection.ejections_*`, with its labels."""
    method, reason = "detection_method", "unenforced_reason"
    enforced = CounterMetricFamily(f"{_OUTLIERS}_enforced", "A91: ejections_enforced", labels=["service", method])
    unenforced = CounterMetricFamily(
        f"{_OUTLIERS}_unenforced", "A91: ejections_unenforced", labels=["service", method, reason]
    )
    for service, counts in counted:
        for cause in EjectionCause:
            enforced.add_metric([service, cause.value], counts.enforced(cause))
            for why, count in counts.unenforced(cause).items():
                unenforced.add_metric([service, cause.value, why], count)
    yield from (enforced, unenforced)


def circuit_breakers(clusters: Iterable[ServedCluster]) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    """Of the services with limits; what remains only where `track_remaining` asks for it, as in Envoy."""
    labels = ["service", "limit"]
    is_open = GaugeMetricFamily("lbcore_circuit_breaker_open", "1 while the limit is reached", labels=labels)
    refused = CounterMetricFamily("lbcore_circuit_breaker_refused", "Refused at the limit", labels=labels)
    remaining = GaugeMetricFamily("lbcore_circuit_breaker_remaining", "Left until the limit", labels=labels)
    for served in clusters:
        breakers = served.cluster.stats().circuit_breakers
        for limit in _BREAKERS if breakers else ():
            breaker = getattr(breakers, limit)
            is_open.add_metric([served.service.name, limit], breaker.open)
            refused.add_metric([served.service.name, limit], breaker.refused)
            if served.cluster.circuit_breakers is not None and served.cluster.circuit_breakers.track_remaining:
                remaining.add_metric([served.service.name, limit], breaker.remaining)
    yield from (is_open, refused, remaining)
