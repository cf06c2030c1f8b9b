"""The share of requests each endpoint gets from a policy that does not hash: the stages of a pick, put together.

Envoy load_balancer_impl.cc `hostSourceToUse`: the priority by its load; within it, all endpoints in panic, else a
locality (by weight or by zone), else all that are healthy or degraded, as the load says; within those, by weight.

Departure: where this leads to no endpoint and a degraded one exists, that one serves: of the same level, else of the
first level that has any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from lbcore.model import Endpoint, Locality
from tests.reference.health import Availability, Level, levels
from tests.reference.locality_weights import locality_distribution
from tests.reference.priority_load import Counts, PriorityLoad, priority_load
from tests.reference.zone_routing import zone_route


@dataclass(frozen=True)
class Zones:
    """The settings of zone-aware routing."""

    local_locality: Locality
    local_hosts: Mapping[Locality, int]
    routing_enabled: float = 100.0
    min_cluster_size: int = 6
    force_local_zone_min_size: int | None = None


@dataclass(frozen=True)
class Settings:
    overprovisioning_factor: int = 140
    panic_threshold: float = 50.0
    fail_traffic_on_panic: bool = False
    locality_weights: Mapping[Locality, int] | None = None
    zones: Zones | None = None


DEFAULTS = Settings()


def level_load(by_level: Sequence[Level], settings: Settings) -> PriorityLoad:
    counts = [Counts(len(level.all), len(level.healthy), len(level.degraded), level.draining) for level in by_level]
    return priority_load(counts, settings.overprovisioning_factor, settings.panic_threshold)


def distribution(
    endpoints: Sequence[Endpoint],
    settings: Settings = DEFAULTS,
    failed: Container[str] = (),
    weighted: bool = True,
) -> dict[str, float]:
    """Address to share. The shares sum to 1 less the share of requests that fail."""
    by_level = levels(endpoints, failed)
    load = level_load(by_level, settings)
    shares: defaultdict[str, float] = defaultdict(float)
    for availability, loads in ((Availability.HEALTHY, load.healthy), (Availability.DEGRADED, load.degraded)):
        for level, percent, panic in zip(by_level, loads, load.panic, strict=True):
            if not percent:
                continue
            for candidates, part in _candidates(level, availability, panic, settings):
                candidates = candidates or (not panic and _degraded(level, by_level)) or []
                total = sum(endpoint.weight if weighted else 1 for endpoint in candidates)
                for endpoint in candidates:
                    weight = endpoint.weight if weighted else 1
                    shares[endpoint.address] += percent / 100 * part * weight / total
    return dict(shares)


def _candidates(
    level: Level, availability: Availability, panic: bool, settings: Settings
) -> list[tuple[list[Endpoint], float]]:
    """Groups of endpoints with the part of the level's requests that each group gets."""
    if panic:
        return [([] if settings.fail_traffic_on_panic else level.all, 1.0)]
    eligible = level.healthy if availability is Availability.HEALTHY else level.degraded
    if settings.locality_weights is not None:
        by_locality = locality_distribution(
            level.all, eligible, settings.locality_weights, settings.overprovisioning_factor
        )
        if by_locality is not None:
            return _split(eligible, by_locality)
    if settings.zones is not None:
        zones = settings.zones
        route = zone_route(
            level.all,
            level.healthy,
            zones.local_locality,
            zones.local_hosts,
            zones.min_cluster_size,
            zones.force_local_zone_min_size,
        )
        if route.shares:
            routed = int(zones.routing_enabled) / 100
            groups = [(members, part * routed) for members, part in _split(eligible, route.shares)]
            return [*groups, (eligible, 1.0 - routed)]
    return [(eligible, 1.0)]


def _split(eligible: Sequence[Endpoint], shares: Mapping[Locality, float]) -> list[tuple[list[Endpoint], float]]:
    return [([each for each in eligible if each.locality == here], part) for here, part in shares.items()]


def _degraded(level: Level, by_level: Sequence[Level]) -> list[Endpoint]:
    return level.degraded or next((each.degraded for each in by_level if each.degraded), [])
