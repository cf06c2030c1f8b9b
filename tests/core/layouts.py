"""Fleets whose endpoints are in given states."""

from __future__ import annotations

from collections.abc import Sequence

from lbcore import Endpoint, Health
from tests.core.fleets import address


def spread_over_health(states: Sequence[Health], priority: int = 0, first: int = 0) -> list[Endpoint]:
    """One endpoint for each state, numbered from `first`."""
    return [Endpoint(address(first + number), health=state, priority=priority) for number, state in enumerate(states)]


def in_states(healthy: int, degraded: int, unhealthy: int, priority: int = 0, first: int = 0) -> list[Endpoint]:
    states = [Health.HEALTHY] * healthy + [Health.DEGRADED] * degraded + [Health.UNHEALTHY] * unhealthy
    return spread_over_health(states, priority, first)
