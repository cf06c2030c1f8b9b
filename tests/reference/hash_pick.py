"""Which endpoint a key goes to under a hashing policy: priority, panic, locality weights and the table put together.

Envoy thread_aware_lb_impl.cc `LoadBalancerImpl::chooseHost` and `refresh`: the key's own hash chooses the priority;
each level has one ring or table, of all its endpoints in panic, else of the healthy ones; locality weights are taken
as given, not scaled by health.

Departures: where the level has nobody healthy, its degraded endpoints form the ring (Envoy has no host to give); where
it has none of these either, those of the first level that has any. `fail_traffic_on_panic` holds here as well (Envoy's
hashing policies do not know it). Where no locality has a weight, weights are ignored (Envoy has no host to give).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

from lbcore.model import Endpoint
from tests.reference.distribution import DEFAULTS, Settings, level_load
from tests.reference.health import Level, levels
from tests.reference.shares import Share, flat_shares, locality_shares


class Table(Protocol):
    """A ring or a Maglev table."""

    def choose(self, key_hash: int, attempt: int = 0) -> Endpoint: ...


class HashPick:
    """The picks of one cluster; `build` makes the ring or the table out of the shares of one level."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        build: Callable[[Sequence[Share]], Table],
        settings: Settings = DEFAULTS,
        failed: Container[str] = (),
    ) -> None:
        by_level = levels(endpoints, failed)
        self._load = level_load(by_level, settings)
        self._tables: list[Table | None] = []
        for level, panic in zip(by_level, self._load.panic, strict=True):
            shares = _panic_shares(level, settings) if panic else _calm_shares(level, by_level, settings)
            self._tables.append(build(shares) if shares else None)

    def choose(self, key_hash: int, attempt: int = 0) -> Endpoint | None:
        """None where no endpoint may serve."""
        table = self._tables[self._load.choose(key_hash)[0]]
        return table.choose(key_hash, attempt) if table is not None else None


def _panic_shares(level: Level, settings: Settings) -> list[Share]:
    return [] if settings.fail_traffic_on_panic else _level_shares(level.all, level, settings)


def _calm_shares(level: Level, by_level: Sequence[Level], settings: Settings) -> list[Share]:
    return (
        _level_shares(level.healthy, level, settings)
        or _level_shares(level.degraded, level, settings)
        or next(filter(None, (_level_shares(each.degraded, each, settings) for each in by_level)), [])
    )


def _level_shares(endpoints: Sequence[Endpoint], level: Level, settings: Settings) -> list[Share]:
    if not settings.locality_weights:
        return flat_shares(endpoints)
    localities = sorted({endpoint.locality for endpoint in level.all})
    return locality_shares(
        [[endpoint for endpoint in endpoints if endpoint.locality == here] for here in localities],
        [settings.locality_weights.get(here, 0) for here in localities],
    )
