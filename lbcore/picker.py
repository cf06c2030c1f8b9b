"""`Picker`: what a cluster and a subset of it have in common: picks, statistics, explanations, and why there is none.

`pick`, `acquire`, `pick_many` and `rank` are the native `Balancer`'s own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lbcore._core import Balancer, Permit, _adopt_hot_methods
from lbcore.errors import NoEndpointAvailable, Overloaded
from lbcore.explanation import Candidate, Ejected, Explanation
from lbcore.policy import Policy
from lbcore.stats import (
    Availability,
    BreakerStats,
    CircuitBreakerStats,
    ClusterStats,
    EjectionCause,
    EndpointStats,
    FleetLearned,
    Learned,
    OutlierDetectionStats,
    PriorityStats,
)
from lbcore.validation import UINT32_MAX

if TYPE_CHECKING:
    from lbcore._core import _Key

__all__ = ["Picker"]

_AVAILABILITIES = (Availability.HEALTHY, Availability.DEGRADED, Availability.UNAVAILABLE)
_PROBES_SHOWN = 8  # in an explanation


class Picker(Balancer):
    """Picks among some endpoints by one policy. Made as a `Cluster`, or by `Cluster.subset`."""

    # Without a __dict__ the interpreter looks `pick` up faster.
    __slots__ = ("__weakref__", "name", "policy")

    name: str
    policy: Policy

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        _adopt_hot_methods(cls)

    def stats(self) -> ClusterStats:
        """Counts and states at this moment."""
        ejections, learned = self._outlier_values(), self._fleet_learned()
        return ClusterStats(
            name=self.name,
            active=self._active(),
            endpoints=tuple(map(_endpoint_stats, self._slot_values())),
            priorities=tuple(PriorityStats(*values) for values in self._priority_values()),
            outlier_detection=None if ejections is None else OutlierDetectionStats(**ejections),
            circuit_breakers=self._breaker_stats(),
            learned=None if learned is None else FleetLearned(*learned),
        )

    @property
    def limited(self) -> bool:
        """Whether circuit breakers limit what may be under way."""
        return self._request_values()[0] <= UINT32_MAX

    def retry_permit(self) -> Permit:
        """Leave to retry: take one before each retry, and release it when that has ended.

        >>> from lbcore import CircuitBreakers, Cluster, Endpoint
        >>> cluster = Cluster("web", [Endpoint("10.0.0.1:80")], circuit_breakers=CircuitBreakers(max_retries=1))
        >>> with cluster.retry_permit():
        ...     cluster.stats().circuit_breakers.retries.remaining
        0

        Raises `Overloaded` where `max_retries` or the `retry_budget` is used up.
        """
        return self._permit(1)

    def pending_permit(self) -> Permit:
        """Leave to wait, for a connection or for a place elsewhere; a retry budget counts those who wait as well.

        Raises `Overloaded` where `max_pending_requests` wait already.
        """
        return self._permit(0)

    def connection_permit(self) -> Permit:
        """Leave to hold a connection to an endpoint. Raises `Overloaded` where `max_connections` are held already."""
        return self._permit(2)

    def _permit(self, number: int) -> Permit:
        breaker = self._breakers()[number]
        permit: Permit | None = breaker.take()
        if permit is None:
            raise self._overloaded(breaker.name, breaker.values()[0])
        return permit

    def _breaker_stats(self) -> CircuitBreakerStats | None:
        if not self.limited:
            return None
        requests = BreakerStats(*self._request_values())
        pending, retries, connections = (BreakerStats(*breaker.values()) for breaker in self._breakers())
        return CircuitBreakerStats(
            requests=requests, pending_requests=pending, retries=retries, connections=connections
        )

    def explain(self, key: _Key | None = None) -> Explanation:
        """Why `pick(key)` goes where it goes at this moment. Nothing changes by it: the next pick gives the `winner`.

        >>> from lbcore import Cluster, Endpoint, Maglev
        >>> cluster = Cluster("web", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")], policy=Maglev())
        >>> cluster.explain("user-1").winner == cluster.pick("user-1")
        True
        """
        found = self._explain(key, _PROBES_SHOWN)
        endpoints = found["endpoints"]
        winner = found["winner"]
        return Explanation(
            cluster=self.name,
            policy=type(self.policy).__name__,
            hash=found["hash"],
            priorities=tuple(PriorityStats(*values) for values in found["priorities"]),
            percent=found["percent"],
            priority=found["priority"],
            degraded=bool(found["degraded"]),
            locality_shares=found["locality_shares"],
            candidates=tuple(
                Candidate(endpoints[member], weight, active, score, _learned(learned))
                for member, weight, active, score, learned in found["candidates"]
            ),
            probes=tuple(endpoints[member] for member in found["probes"]),
            winner=None if winner is None else endpoints[winner],
            reason=self._why_none() if winner is None else "",
            ejected=tuple(self._ejected()),
        )

    def _ejected(self) -> Iterator[Ejected]:
        now = self._now()
        for each in self.stats().endpoints:
            if each.ejected_at is not None and each.returns_at is not None and each.ejection_cause is not None:
                since, remaining = (now - each.ejected_at) / 1e9, max(0, each.returns_at - now) / 1e9
                yield Ejected(each.endpoint, each.ejection_cause, since, remaining, each.times_ejected)

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r} {type(self.policy).__name__} of {len(self.endpoints)}>"

    def _none_available(self, exclude: object) -> NoEndpointAvailable:
        reason = self._why_none()
        if exclude is not None and any(
            each.availability is not Availability.UNAVAILABLE for each in self.stats().endpoints
        ):
            reason = "all endpoints that may be used are excluded"
        return NoEndpointAvailable(f"cluster {self.name!r}: {reason}")

    def _overloaded(self, limit: str, value: int) -> Overloaded:
        """Called by the core, where a limit of requests is reached."""
        return Overloaded(f"cluster {self.name!r}: {limit} {value} reached", limit)

    def _why_none(self) -> str:
        stats = self.stats()
        if not stats.endpoints:
            return "it has no endpoints"
        states: dict[str, int] = {}
        for each in stats.endpoints:
            name = each.endpoint.health.name
            if each.ejected:
                name = "ejected"
            elif each.failed_active_check:
                name = "failed its active check"
            states[name] = states.get(name, 0) + 1
        panic = "; it is in panic and fails its traffic" if any(level.panic for level in stats.priorities) else ""
        counted = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
        return f"none of its {len(stats.endpoints)} endpoints may be used ({counted}){panic}"


def _endpoint_stats(values: tuple[Any, ...]) -> EndpointStats:
    endpoint, availability, cause, *counts, learned = values
    known = (None if cause is None else EjectionCause(cause), _learned(learned))
    in_order = (endpoint, _AVAILABILITIES[availability], *counts, *known)
    return EndpointStats(*in_order)


def _learned(values: tuple[Any, ...] | None) -> Learned | None:
    return None if values is None else Learned(*values)
