"""Zone-aware routing: each zone gets of Envoy what `explain()` says for the same callers, and of lbcore too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbcore.cluster import Cluster
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import RoundRobin
from lbcore.settings import ZoneAware
from lbcore.stats import Availability
from tests.harness.bootstrap import StaticCluster
from tests.parity.envoy_picks import EnvoyPicks, host_address
from tests.parity.expected_shares import unexpected_counts

ZONES = tuple(Locality("eu", zone) for zone in "abc")
HOME = ZONES[0]
PICKS = 600
# Callers by zone; the first zone is the caller's own. Envoy counts them in one local cluster, so each needs an Envoy.
CALLERS = ((1, 1, 0), (2, 1, 1), (1, 3, 0), (5, 1, 1), (0, 2, 2), (3, 0, 0))
# Hosts by zone, healthy and not.
UPSTREAMS = {
    "even": ((4, 4, 4), (0, 0, 0)),
    "two-zones": ((3, 3, 0), (0, 0, 0)),
    "few-here": ((1, 8, 4), (0, 0, 0)),
    "many-here": ((6, 1, 1), (0, 0, 0)),
    "none-here": ((0, 5, 5), (0, 0, 0)),
    "all-fail-here": ((0, 6, 6), (2, 0, 0)),
    "some-fail": ((2, 5, 6), (1, 1, 1)),
    "uneven": ((2, 7, 4), (0, 0, 0)),
    "too-small": ((2, 2, 1), (0, 0, 0)),
}


def layouts(callers: tuple[int, ...]) -> Iterator[StaticCluster]:
    local_hosts = {zone: count for zone, count in zip(ZONES, callers, strict=True) if count}
    for name, (healthy, failed) in UPSTREAMS.items():
        for forced in (None, 2):
            yield StaticCluster(
                name=f"{name}-{'forced' if forced else 'free'}-for-{'-'.join(map(str, callers))}",
                endpoints=tuple(hosts(healthy, failed)),
                policy=RoundRobin(),
                locality_policy=ZoneAware(local_hosts=local_hosts, force_local_zone_min_size=forced),
            )


def hosts(healthy: tuple[int, ...], failed: tuple[int, ...]) -> Iterator[Endpoint]:
    number = 0
    for zone, up, down in zip(ZONES, healthy, failed, strict=True):
        for health in [Health.HEALTHY] * up + [Health.UNHEALTHY] * down:
            yield Endpoint(host_address(number), locality=zone, health=health)
            number += 1


def callers_cluster(callers: tuple[int, ...]) -> StaticCluster:
    homes = [zone for zone, count in zip(ZONES, callers, strict=True) for _ in range(count)]
    members = tuple(Endpoint(f"10.0.0.{number}:1", locality=home) for number, home in enumerate(homes))
    return StaticCluster(name="callers", endpoints=members)


@pytest.fixture(scope="module", params=CALLERS, ids=lambda callers: "callers-" + "-".join(map(str, callers)))
def callers(request: pytest.FixtureRequest) -> tuple[int, ...]:
    counts: tuple[int, ...] = request.param
    return counts


@pytest.fixture(scope="module")
def envoy(callers: tuple[int, ...]) -> Iterator[EnvoyPicks]:
    more = {
        "node": {"id": "caller", "cluster": "callers", "locality": {"region": HOME.region, "zone": HOME.zone}},
        "cluster_manager": {"local_cluster_name": "callers"},
    }
    with EnvoyPicks([callers_cluster(callers), *layouts(callers)], more) as running:
        yield running


def stated_shares(balancer: Cluster) -> dict[Locality, float]:
    """By `explain()`; where zones do not matter, each gets by its healthy hosts."""
    shares = balancer.explain().locality_shares
    if shares is not None:
        return dict(shares)
    healthy = [each.endpoint for each in balancer.stats().endpoints if each.availability is Availability.HEALTHY]
    return {zone: sum(each.locality == zone for each in healthy) / len(healthy) for zone in ZONES}


def test_each_zone_gets_its_stated_share_from_envoy_and_from_lbcore(
    callers: tuple[int, ...], envoy: EnvoyPicks
) -> None:
    wrong = {}
    for layout in layouts(callers):
        balancer = layout.balancer(local_locality=HOME, seed=1)
        home = {endpoint.address: endpoint.locality for endpoint in layout.endpoints}
        shares = stated_shares(balancer)
        theirs = [host and home[host] for host in envoy.hosts(layout.name, [""] * PICKS)]
        ours = [balancer.pick().locality for _ in range(PICKS)]
        for side, picks in (("Envoy", theirs), ("lbcore", ours)):
            if counts := unexpected_counts(picks, shares):
                wrong[layout.name, side] = counts
    assert wrong == {}
