"""How the load spreads over priorities, in whole percents: Envoy load_balancer_impl.cc `recalculatePerPriorityState`,
`recalculatePerPriorityPanic` and `choosePriority`.

A level that is at least 100 / 1.4 = 72 % healthy takes all that reaches it. Below, load spills over to the next
levels' healthy endpoints, then to degraded ones from the top. Where all levels together cannot take 100 %, what they
can take is scaled up, and levels below the panic threshold send to all their endpoints, healthy or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.reference.health import Availability


class Counts(NamedTuple):
    """Endpoints of one priority level. `excluded` ones (draining) stay out of the denominators."""

    total: int
    healthy: int
    degraded: int = 0
    excluded: int = 0


class PriorityLoad(NamedTuple):
    """Percents that sum to 100 over both lists; `panic` says which levels use all of their endpoints."""

    healthy: list[int]
    degraded: list[int]
    panic: list[bool]

    def choose(self, draw: int) -> tuple[int, Availability]:
        """The level for a random number, or for the hash of the request itself under a hashing policy."""
        wanted = draw % 100 + 1
        reached = 0
        for loads, availability in ((self.healthy, Availability.HEALTHY), (self.degraded, Availability.DEGRADED)):
            for priority, load in enumerate(loads):
                reached += load
                if wanted <= reached:
                    return priority, availability
        raise AssertionError(f"priority loads {self.healthy} and {self.degraded} do not sum to 100")


def priority_load(
    levels: Sequence[Counts], overprovisioning_factor: int = 140, panic_threshold: float = 50.0
) -> PriorityLoad:
    health = [_share(level.healthy, level, overprovisioning_factor) for level in levels]
    degraded = [_share(level.degraded, level, overprovisioning_factor) for level in levels]
    available = min(100, sum(health) + sum(degraded))
    threshold = min(100, int(panic_threshold))
    panic = [available < 100 and _below(level, threshold) for level in levels]
    if all(panic):
        return PriorityLoad(_load_by_count(levels), [0] * len(levels), panic)
    if available == 0:  # nothing can serve and nothing panics: it does not matter which level fails the request
        return PriorityLoad([100] + [0] * (len(levels) - 1), [0] * len(levels), panic)
    return PriorityLoad(*_distribute(health, degraded, available), panic)


def _share(count: int, level: Counts, factor: int) -> int:
    considered = level.total - level.excluded
    return min(100, factor * count // considered) if considered > 0 else 0


def _below(level: Counts, threshold: int) -> bool:
    considered = level.total - level.excluded
    return (100.0 * level.healthy / considered + 100.0 * level.degraded / considered if considered else 0.0) < threshold


def _distribute(health: Sequence[int], degraded: Sequence[int], available: int) -> tuple[list[int], list[int]]:
    left = 100
    loads: list[list[int]] = []
    for availabilities in (health, degraded):
        loads.append([])
        for availability in availabilities:
            load = min(left, availability * 100 // available)
            loads[-1].append(load)
            left -= load
    if left:  # rounding: to the first level that has anything, healthy before degraded
        kind = 0 if any(health) else 1
        first = next(i for i, availability in enumerate((health, degraded)[kind]) if availability)
        loads[kind][first] += left
    return loads[0], loads[1]


def _load_by_count(levels: Sequence[Counts]) -> list[int]:
    total = sum(level.total for level in levels)
    if total == 0:
        return [100] + [0] * (len(levels) - 1)
    loads = [100 * level.total // total for level in levels]
    first = next(i for i, level in enumerate(levels) if level.total)
    loads[first] += 100 - sum(loads)
    return loads
