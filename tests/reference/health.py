"""Which of three states an endpoint counts as: Envoy host.h `coarseHealth`.

Only UNKNOWN and HEALTHY are healthy, DEGRADED is degraded, all else is unhealthy. What an active checker found
unhealthy, or outlier detection ejected, is unhealthy whatever discovery says of it; nothing turns an endpoint healthy
that discovery calls otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable
from typing import NamedTuple

from lbcore.model import Endpoint, Health


class Availability(enum.Enum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


def availability(endpoint: Endpoint, failed: Container[str] = ()) -> Availability:
    """`failed` holds the addresses that active checks or outlier detection took out."""
    if endpoint.address in failed:
        return Availability.UNHEALTHY
    if endpoint.health in (Health.UNKNOWN, Health.HEALTHY):
        return Availability.HEALTHY
    return Availability.DEGRADED if endpoint.health is Health.DEGRADED else Availability.UNHEALTHY


class Level(NamedTuple):
    """The endpoints of one priority, in the cluster's order."""

    all: list[Endpoint]
    healthy: list[Endpoint]
    degraded: list[Endpoint]

    @property
    def draining(self) -> int:
        """How many leave on purpose: Envoy measures availability without them (`excludeBasedOnHealthFlag`)."""
        return sum(endpoint.health is Health.DRAINING for endpoint in self.all)


def levels(endpoints: Iterable[Endpoint], failed: Container[str] = ()) -> list[Level]:
    """One level for each priority from 0 to the highest used; those in between may be empty."""
    members = list(endpoints)
    result = [Level([], [], []) for _ in range(max((endpoint.priority for endpoint in members), default=0) + 1)]
    for endpoint in members:
        level = result[endpoint.priority]
        level.all.append(endpoint)
        state = availability(endpoint, failed)
        if state is Availability.HEALTHY:
            level.healthy.append(endpoint)
        elif state is Availability.DEGRADED:
            level.degraded.append(endpoint)
    return result
