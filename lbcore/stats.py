"""What a `Cluster` says of itself: `ClusterStats`, one `EndpointStats` an endpoint. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lbcore.model import Endpoint

__all__ = ["Availability", "ClusterStats", "EndpointStats", "PriorityStats"]


class Availability(enum.Enum):
    """How picking sees an endpoint: discovery's health, active checks and ejections taken together."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """One endpoint's counts since its address joined the cluster.

    Fields:
        endpoint, availability: which, and how picking sees it.
        active: requests in flight.
        requests: begun by `acquire`; successes and failures: ended by `Lease.done`.
        mean_latency: seconds, over the requests whose latency was given; None before the first.
    """

    endpoint: Endpoint
    availability: Availability
    active: int
    requests: int
    successes: int
    failures: int
    mean_latency: float | None


@dataclass(frozen=True, slots=True)
class PriorityStats:
    """One priority: its endpoints, and its part of the traffic in percent. In panic, health is ignored.

    `excluded` counts the draining endpoints: they leave on purpose, so availability is measured without them.
    """

    total: int
    healthy: int
    degraded: int
    excluded: int
    healthy_load: int
    degraded_load: int
    panic: bool


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """A cluster at one moment; `active` also counts requests to endpoints that have left since."""

    name: str
    active: int
    endpoints: tuple[EndpointStats, ...]
    priorities: tuple[PriorityStats, ...]
