"""What keeps a sick fleet serving, for Prometheus: ejections by cause, and the circuit breakers.

Read from the clusters' statistics when it is scraped. A cluster that its service's settings replace counts anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from lbcore.service.clusters import ServedCluster
from lbcore.stats import EjectionCause

__all__ = ["circuit_breakers", "ejections"]

_BREAKERS = ("requests", "pending_requests", "retries", "connections")


def ejections(clusters: Iterable[ServedCluster]) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    """Of the services with outlier detection."""
    enforced = CounterMetricFamily("lbcore_outlier_ejections", "Endpoints ejected", labels=["service", "cause"])
    detected = CounterMetricFamily(
        "lbcore_outlier_detections", "Outliers found, whether they were ejected or not", labels=["service", "cause"]
    )
    overflow = CounterMetricFamily(
        "lbcore_outlier_ejections_overflow", "Outliers not ejected, because too many were out", labels=["service"]
    )
    active = GaugeMetricFamily("lbcore_outlier_ejections_active", "Endpoints that are out now", labels=["service"])
    for served in clusters:
        counts = served.cluster.stats().outlier_detection
        if counts is None:
            continue
        name = served.service.name
        for cause in EjectionCause:
            enforced.add_metric([name, cause.value], getattr(counts, f"ejections_enforced_{cause.value}"))
            detected.add_metric([name, cause.value], getattr(counts, f"ejections_detected_{cause.value}"))
        overflow.add_metric([name], counts.ejections_overflow)
        active.add_metric([name], counts.ejections_active)
    yield from (enforced, detected, overflow, active)


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
