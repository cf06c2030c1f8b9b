"""`Loads`: how much traffic the services get, as their callers report it, by locality.

Each caller (an Envoy, a gRPC client) says what it did since its last report; what is known of a service is the sum over
its callers' newest reports, and totals over all reports. A caller that goes away, or falls silent for three intervals,
counts no more. Source: Envoy load_report.proto, gRFC A27, A64.

Not thread-safe: use it on the thread of one event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from lbcore.model import Locality

__all__ = ["Loads", "LocalityCounts", "LocalityLoad", "LocalityTotals"]

_SILENT_INTERVALS = 3.0
_MOST_METRICS = 32  # names kept of one report; servers choose them


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityCounts:
    """What one caller counted in one interval.

    Fields:
        successes, errors: requests that ended so; issued: that began; in_progress: under way at its end.
        metrics: of each measurement that servers sent along (ORCA), how many requests had it and their sum.
    """

    successes: int = 0
    errors: int = 0
    issued: int = 0
    in_progress: int = 0
    metrics: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityLoad:
    """What all callers together do now.

    Fields:
        requests_per_second, errors_per_second: that ended, errors among the requests.
        in_progress: requests under way.
        metrics: the mean of each measurement that servers sent along.
    """

    requests_per_second: float = 0.0
    errors_per_second: float = 0.0
    in_progress: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class LocalityTotals:
    """Since this process began; never falls."""

    successes: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class _Report:
    at: float
    interval: float
    counts: Mapping[Locality, LocalityCounts]


class Loads:
    """What callers report. `clock` counts seconds.

    >>> loads = Loads(clock=lambda: 0.0)
    >>> loads.report("envoy-1", "web", 10.0, {Locality("eu"): LocalityCounts(successes=20, errors=5)})
    >>> loads.of("web")[Locality("eu")].requests_per_second
    2.5
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, dict[Hashable, _Report]] = {}  # by service and caller
        self._totals: dict[tuple[str, Locality], LocalityTotals] = {}
        self._dropped: dict[str, int] = {}

    def report(
        self,
        caller: Hashable,
        service: str,
        interval: float,
        counts: Mapping[Locality, LocalityCounts],
        *,
        dropped: int = 0,
    ) -> None:
        """A caller did this in the `interval` seconds before; `dropped` requests of it never left."""
        self._reports.setdefault(service, {})[caller] = _Report(self._clock(), interval, counts)
        for place, each in counts.items():
            totals = self._totals.setdefault((service, place), LocalityTotals())
            totals.successes += each.successes
            totals.errors += each.errors
        if dropped:
            self._dropped[service] = self._dropped.get(service, 0) + dropped

    def forget(self, caller: Hashable) -> None:
        """A caller has gone: what it did last does not go on."""
        for service in [name for name, reports in self._reports.items() if caller in reports]:
            del self._reports[service][caller]
            if not self._reports[service]:
                del self._reports[service]

    def of(self, service: str) -> dict[Locality, LocalityLoad]:
        """What a service gets now, by locality; empty if nobody reports."""
        now = self._clock()
        by_place: dict[Locality, list[tuple[float, LocalityCounts]]] = {}
        for report in self._reports.get(service, {}).values():
            if report.interval > 0 and now - report.at <= report.interval * _SILENT_INTERVALS:
                for place, counts in report.counts.items():
                    by_place.setdefault(place, []).append((report.interval, counts))
        return {place: _sum(each) for place, each in by_place.items()}

    @property
    def services(self) -> tuple[str, ...]:
        """Services that somebody has reported of and still does, by name."""
        return tuple(sorted(self._reports))

    def totals(self) -> Iterator[tuple[str, Locality, LocalityTotals]]:
        """Ended requests of each service and locality since this process began."""
        for (service, place), totals in self._totals.items():
            yield service, place, totals

    def dropped(self) -> Mapping[str, int]:
        """Requests of each service that callers refused for overload."""
        return self._dropped


def _sum(reports: list[tuple[float, LocalityCounts]]) -> LocalityLoad:
    metrics: dict[str, tuple[int, float]] = {}
    for _, counts in reports:
        for name, (number, total) in list(counts.metrics.items())[:_MOST_METRICS]:
            known = metrics.get(name, (0, 0.0))
            metrics[name] = (known[0] + number, known[1] + total)
    return LocalityLoad(
        requests_per_second=sum((counts.successes + counts.errors) / interval for interval, counts in reports),
        errors_per_second=sum(counts.errors / interval for interval, counts in reports),
        in_progress=sum(counts.in_progress for _, counts in reports),
        metrics={name: total / number for name, (number, total) in metrics.items() if number},
    )
