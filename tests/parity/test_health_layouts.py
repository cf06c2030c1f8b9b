"""Hosts out of order: priorities, degraded hosts and panic send each request where Envoy sends it.

Hash policies are compared key by key, with one key for each percent of the priorities' load, so a load that is off by
one percent shows. The others are compared by what each host gets.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbcore import NoEndpointAvailable, hash64
from lbcore.cluster import Cluster
from lbcore.model import Endpoint
from lbcore.policy import Maglev, Random, RingHash, RoundRobin
from lbcore.stats import Availability
from tests.harness.bootstrap import StaticCluster
from tests.parity.envoy_picks import EnvoyPicks
from tests.parity.expected_shares import unexpected_counts
from tests.parity.health_layouts import health_layouts

HASHING = [*health_layouts(RingHash()), *health_layouts(Maglev(table_size=1009))]
SPREADING = [
    *health_layouts(RoundRobin()),
    *health_layouts(RoundRobin(), fail_traffic_on_panic=True),
    *health_layouts(Random()),
]
SPREAD_PICKS = 500


def one_key_for_each_percent() -> list[str]:
    """Keys whose hashes take each place from 1 to 100 among the priorities' loads."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < 100:
        found.setdefault(hash64(f"key-{number}") % 100, f"key-{number}")
        number += 1
    return list(found.values())


KEYS = one_key_for_each_percent()


@pytest.fixture(scope="module")
def envoy() -> Iterator[EnvoyPicks]:
    with EnvoyPicks([*HASHING, *SPREADING]) as running:
        yield running


def picked(balancer: Cluster, key: str) -> Endpoint | None:
    try:
        return balancer.pick(key)
    except NoEndpointAvailable:
        return None


def degraded_stand_ins(balancer: Cluster, key: str) -> set[Endpoint]:
    """Who serves where Envoy has no host: the degraded of the key's priority, else of the first that has any."""
    degraded = [each.endpoint for each in balancer.stats().endpoints if each.availability is Availability.DEGRADED]
    chosen = balancer.explain(key).priority
    if not degraded:
        return set()
    priorities = {endpoint.priority for endpoint in degraded}
    serving = chosen if chosen in priorities else min(priorities)
    return {endpoint for endpoint in degraded if endpoint.priority == serving}


@pytest.mark.parametrize("layout", HASHING, ids=lambda layout: layout.name)
def test_each_key_reaches_envoys_host_and_a_degraded_one_where_envoy_has_none(
    layout: StaticCluster, envoy: EnvoyPicks
) -> None:
    balancer = layout.balancer()
    disagreements = []
    for key, theirs in zip(KEYS, envoy.hosts(layout.name, KEYS), strict=True):
        ours = picked(balancer, key)
        if theirs is not None:
            agrees = ours is not None and ours.address == theirs
        else:
            stand_ins = degraded_stand_ins(balancer, key)
            agrees = ours in stand_ins if stand_ins else ours is None
        if not agrees:
            disagreements.append((key, ours, theirs))
    assert disagreements == []


def shares_by_host(balancer: Cluster, fails_in_panic: bool) -> dict[str | None, float]:
    """What each host should get by `stats()`; under None what fails."""
    stats = balancer.stats()
    shares: dict[str | None, float] = {}
    for priority, level in enumerate(stats.priorities):
        members = [each for each in stats.endpoints if each.endpoint.priority == priority]
        for state, load in (
            (Availability.HEALTHY, level.healthy_load),
            (Availability.DEGRADED, level.degraded_load),
        ):
            serving: list[str | None] = [
                each.endpoint.address for each in members if level.panic or each.availability is state
            ]
            if not serving or (level.panic and fails_in_panic):
                serving = [None]
            for host in serving:
                shares[host] = shares.get(host, 0.0) + load / 100.0 / len(serving)
    return shares


def addresses(balancer: Cluster, count: int) -> list[str | None]:
    found = [picked(balancer, "") for _ in range(count)]
    return [endpoint and endpoint.address for endpoint in found]


@pytest.mark.parametrize("layout", SPREADING, ids=lambda layout: layout.name)
def test_each_host_gets_what_the_priorities_loads_say_from_envoy_and_from_lbcore(
    layout: StaticCluster, envoy: EnvoyPicks
) -> None:
    balancer = layout.balancer(seed=1)
    shares = shares_by_host(balancer, layout.fail_traffic_on_panic)
    assert unexpected_counts(envoy.hosts(layout.name, [""] * SPREAD_PICKS), shares) == {}, "Envoy"
    assert unexpected_counts(addresses(balancer, SPREAD_PICKS), shares) == {}, "lbcore"
