"""What the service counts, for Prometheus, every name with the prefix `lbcore_`.

State that lives elsewhere (picks, leases, endpoints, staleness) is read when it is scraped and costs a pick nothing;
only what the xDS server tells while it serves is counted here. Labels are bounded: services come from the
configuration, resource types are few, and of nodes, whose names are the clients' own, only so many are told apart.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lbcore._core import Lease
from lbcore.health.outcome import Cause
from lbcore.health.overlay import DirectoryHealth
from lbcore.model import Health
from lbcore.service.clusters import Clusters
from lbcore.service.leases import LeaseTable
from lbcore.service.limit_metrics import circuit_breakers, ejections
from lbcore.xds.observer import XdsObserver

__all__ = ["MAX_NODES", "XdsMetrics", "make_registry"]

logger = logging.getLogger(__name__)

MAX_NODES = 1000
OTHER_NODES = "other"
_MAX_LABEL = 200  # characters of a node's name
_MAX_MESSAGE = 1000  # characters of a NACK's reason in the log


class ReloadCounts(Protocol):
    """How often the configuration file was read."""

    @property
    def loads(self) -> int:
        """Times that it was read and taken."""

    @property
    def failures(self) -> int:
        """Times that it was bad, and the last good one kept."""


class SourceState(Protocol):
    """How a source does."""

    @property
    def name(self) -> str:
        """What the directory calls it."""

    @property
    def up(self) -> bool:
        """Whether it works."""

    @property
    def updates(self) -> int:
        """Changes that it has told."""

    @property
    def errors(self) -> int:
        """Times that it has failed."""

    @property
    def age(self) -> float | None:
        """Seconds since it was last heard from; None: never."""


class Counts(Protocol):
    """What an xDS server has done, by method and by type URL."""

    opened: dict[str, int]
    closed: dict[str, int]
    turned_away: dict[str, int]
    responses: dict[str, int]
    response_bytes: dict[str, int]
    acks: dict[str, int]


class XdsMetrics(XdsObserver):
    """Counts what the xDS server does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams = Gauge("lbcore_xds_streams", "Open xDS streams", ["method"], registry=registry)
        self._refused = Counter(
            "lbcore_xds_streams_refused", "xDS streams told to come back later", ["method"], registry=registry
        )
        self._responses = Counter("lbcore_xds_responses", "xDS responses sent", ["type"], registry=registry)
        self._bytes = Counter("lbcore_xds_response_bytes", "Bytes of xDS responses sent", ["type"], registry=registry)
        self._acks = Counter("lbcore_xds_acks", "xDS responses that a client accepted", ["type"], registry=registry)
        self._nacks = Counter(
            "lbcore_xds_nacks", "xDS responses that a client refused", ["node", "type"], registry=registry
        )
        self._nodes: set[str] = set()

    def stream_opened(self, method: str) -> None:
        self._streams.labels(method).inc()

    def stream_closed(self, method: str) -> None:
        self._streams.labels(method).dec()

    def stream_refused(self, method: str) -> None:
        self._refused.labels(method).inc()

    def response_sent(self, node: str, type_url: str, resources: int, size: int) -> None:  # noqa: ARG002
        self._responses.labels(type_url).inc()
        self._bytes.labels(type_url).inc(size)

    def acked(self, node: str, type_url: str, version: str) -> None:  # noqa: ARG002
        self._acks.labels(type_url).inc()

    def nacked(self, node: str, type_url: str, version: str, message: str, nonce: str) -> None:  # noqa: ARG002
        name = self._node_label(node)
        self._nacks.labels(name, type_url).inc()
        logger.warning("node %r refuses %s version %s: %s", name, type_url, version, message[:_MAX_MESSAGE])

    def add(self, counts: Counts) -> None:
        """What another process has counted."""
        for method, number in counts.opened.items():
            self._streams.labels(method).inc(number)
        for method, number in counts.closed.items():
            self._streams.labels(method).dec(number)
        for metric, each in (
            (self._refused, counts.turned_away),
            (self._responses, counts.responses),
            (self._bytes, counts.response_bytes),
            (self._acks, counts.acks),
        ):
            for label, number in each.items():
                metric.labels(label).inc(number)

    def _node_label(self, node: str) -> str:
        node = node[:_MAX_LABEL]
        if node not in self._nodes:
            if len(self._nodes) >= MAX_NODES:
                return OTHER_NODES
            self._nodes.add(node)
        return node


class _StateCollector(Collector):
    """Reads the service's state when it is scraped."""

    def __init__(
        self,
        clusters: Clusters,
        leases: LeaseTable[Lease],
        reloads: ReloadCounts,
        checks: DirectoryHealth,
        sources: Iterable[SourceState],
    ) -> None:
        self._clusters = clusters
        self._checks = checks
        self._leases = leases
        self._reloads = reloads
        self._sources = sources

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: asked at registration for names, which collecting would give only once the state exists."""
        return iter(())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        yield from self._picks()
        yield from self._held_leases()
        yield from self._configuration()
        yield from self._source_states()
        yield from self._endpoints()
        yield from ejections(self._clusters)
        yield from circuit_breakers(self._clusters)
        yield from self._health_checks()

    def _picks(self) -> Iterator[CounterMetricFamily]:
        picks = CounterMetricFamily("lbcore_picks", "Picks answered", labels=["service"])
        for served in self._clusters:
            picks.add_metric([served.service.name], served.picks)
        yield picks

    def _held_leases(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        yield GaugeMetricFamily("lbcore_leases_active", "Leases held by remote callers", len(self._leases))
        yield CounterMetricFamily("lbcore_leases_granted", "Leases granted", self._leases.granted)
        yield CounterMetricFamily("lbcore_leases_expired", "Leases that nobody reported", self._leases.expired)

    def _configuration(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        reloads = CounterMetricFamily("lbcore_config_reloads", "Reads of the configuration file", labels=["result"])
        reloads.add_metric(["ok"], self._reloads.loads)
        reloads.add_metric(["failed"], self._reloads.failures)
        yield reloads
        directory = self._clusters.directory
        stale = GaugeMetricFamily(
            "lbcore_source_stale", "1 where a source fails and its last good services are kept", labels=["source"]
        )
        for source in directory.sources:
            stale.add_metric([source], float(source in directory.current.stale))
        yield stale
        yield GaugeMetricFamily("lbcore_directory_synced", "1 once every source has been heard from", directory.synced)
        yield GaugeMetricFamily(
            "lbcore_directory_revision", "Changes of the directory in this process", directory.current.revision
        )

    def _source_states(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        up = GaugeMetricFamily("lbcore_source_up", "1 while the source works", labels=["source"])
        age = GaugeMetricFamily(
            "lbcore_source_age_seconds", "Time since the source was last heard from", labels=["source"]
        )
        updates = CounterMetricFamily("lbcore_source_updates", "Changes that the source has told", labels=["source"])
        errors = CounterMetricFamily("lbcore_source_errors", "Times that the source has failed", labels=["source"])
        for source in self._sources:
            up.add_metric([source.name], source.up)
            updates.add_metric([source.name], source.updates)
            errors.add_metric([source.name], source.errors)
            if source.age is not None:
                age.add_metric([source.name], source.age)
        yield from (up, age, updates, errors)

    def _endpoints(self) -> Iterator[GaugeMetricFamily]:
        endpoints = GaugeMetricFamily(
            "lbcore_endpoints", "Endpoints by discovery's health", labels=["service", "health"]
        )
        active = GaugeMetricFamily("lbcore_requests_active", "Requests under a lease", labels=["service"])
        for served in self._clusters:
            stats = served.cluster.stats()
            counts = Tally(each.endpoint.health for each in stats.endpoints)
            for health in Health:
                endpoints.add_metric([served.service.name, health.name], counts[health])
            active.add_metric([served.service.name], stats.active)
        yield endpoints
        yield active

    def _health_checks(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "lbcore_health_check_members", "Servers that share the checks, this one included", self._checks.members
        )
        checked = GaugeMetricFamily(
            "lbcore_health_checked_endpoints", "Endpoints that this server checks", labels=["service"]
        )
        for name, count in self._checks.checked_here():
            checked.add_metric([name], count)
        yield checked
        results = CounterMetricFamily(
            "lbcore_health_checks", "Active checks by result: passed, or why they failed", labels=["service", "result"]
        )
        transitions = CounterMetricFamily(
            "lbcore_health_check_transitions",
            "Endpoints that became healthy, degraded or unhealthy by active checks, by the result that decided",
            labels=["service", "state", "cause"],
        )
        for name, counts in self._checks.counts():
            results.add_metric([name, "passed"], counts.success)
            results.add_metric([name, "inconclusive"], counts.inconclusive)
            for cause in Cause:
                results.add_metric([name, cause.value], counts.failures[cause])
            for (state, cause_name), count in sorted(counts.transitions.items()):
                transitions.add_metric([name, state, cause_name], count)
        yield results
        yield transitions


def make_registry(
    clusters: Clusters,
    leases: LeaseTable[Lease],
    reloads: ReloadCounts,
    checks: DirectoryHealth,
    sources: Iterable[SourceState] = (),
) -> CollectorRegistry:
    """A registry with the service's state and the process's own figures."""
    registry = CollectorRegistry()
    ProcessCollector(namespace="lbcore", registry=registry)
    registry.register(_StateCollector(clusters, leases, reloads, checks, sources))
    return registry
