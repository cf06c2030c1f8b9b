"""The load that callers report, for Prometheus: rates and requests under way by service and locality."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lbcore.loads import Loads

__all__ = ["LoadCollector"]

_PLACE = ["service", "locality"]


class LoadCollector(Collector):
    """Reads what is reported when it is scraped."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: see `lbcore.service.metrics`."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        yield from self._totals()
        rate = GaugeMetricFamily("lbcore_reported_requests_per_second", "Requests, as callers report", labels=_PLACE)
        errors = GaugeMetricFamily("lbcore_reported_errors_per_second", "Errors, as callers report", labels=_PLACE)
        active = GaugeMetricFamily("lbcore_reported_requests_active", "Requests under way, as reported", labels=_PLACE)
        metrics = GaugeMetricFamily(
            "lbcore_reported_metric", "Mean of a measurement that servers sent along (ORCA)", labels=[*_PLACE, "metric"]
        )
        for service in self._loads.services:
            for place, load in self._loads.of(service).items():
                rate.add_metric([service, str(place)], load.requests_per_second)
                errors.add_metric([service, str(place)], load.errors_per_second)
                active.add_metric([service, str(place)], load.in_progress)
                for name, mean in load.metrics.items():
                    metrics.add_metric([service, str(place), name], mean)
        yield from (rate, errors, active, metrics)

    def _totals(self) -> Iterator[CounterMetricFamily]:
        requests = CounterMetricFamily(
            "lbcore_reported_requests", "Ended requests, as callers report", labels=[*_PLACE, "result"]
        )
        for service, place, totals in self._loads.totals():
            requests.add_metric([service, str(place), "success"], totals.successes)
            requests.add_metric([service, str(place), "error"], totals.errors)
        yield requests
        dropped = CounterMetricFamily(
            "lbcore_reported_drops", "Requests that callers refused for overload", labels=["service"]
        )
        for service, count in self._loads.dropped().items():
            dropped.add_metric([service], count)
        yield dropped
