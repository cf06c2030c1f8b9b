"""Localities by weight: each gets of Envoy what lbcore says, and of lbcore too; keyed picks are host for host."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from lbcore.cluster import Cluster
from lbcore.model import Endpoint, Health, Locality
from lbcore.policy import Maglev, Policy, RingHash, RoundRobin
from lbcore.settings import LocalityWeighted
from tests.harness.bootstrap import StaticCluster
from tests.parity.envoy_picks import EnvoyPicks, host_address
from tests.parity.expected_shares import unexpected_counts

LOCALITIES = tuple(Locality("eu", zone) for zone in "abcd")
KEYS = [f"key-{number}" for number in range(200)]
PICKS = 1000
STATES = {
    "well": (Health.HEALTHY,),
    "failing": (Health.HEALTHY, Health.HEALTHY, Health.HEALTHY, Health.UNHEALTHY),
    "draining": (Health.HEALTHY, Health.HEALTHY, Health.DRAINING),
    "panic": (Health.HEALTHY, Health.UNHEALTHY, Health.UNHEALTHY, Health.UNHEALTHY, Health.UNHEALTHY),
}


def layouts(policy: Policy) -> Iterator[StaticCluster]:
    choose = random.Random(6)
    for number in range(24):
        state = list(STATES)[number % len(STATES)]
        places = LOCALITIES[: choose.randint(2, 4)]
        sizes = [choose.randint(2, 8) for _ in places]
        homes = [place for place, size in zip(places, sizes, strict=True) for _ in range(size)]
        yield StaticCluster(
            name=f"{type(policy).__name__}-{number}-{state}",
            endpoints=tuple(
                Endpoint(
                    host_address(position),
                    weight=choose.randint(1, 5) if number % 2 else 1,
                    locality=home,
                    health=choose.choice(STATES[state]),
                    metadata={"hash_key": f"host-{position}"},
                )
                for position, home in enumerate(homes)
            ),
            policy=policy,
            overprovisioning_factor=choose.choice((100, 140)),
            locality_policy=LocalityWeighted(),
            # 0 is no weight at all; the first locality always has one.
            locality_weights={place: choose.randint(0 if index else 1, 9) for index, place in enumerate(places)},
        )


WEIGHTED = list(layouts(RoundRobin()))
KEYED = [*layouts(RingHash()), *layouts(Maglev(table_size=1009))]


@pytest.fixture(scope="module")
def envoy() -> Iterator[EnvoyPicks]:
    with EnvoyPicks([*WEIGHTED, *KEYED]) as running:
        yield running


def stated_shares(balancer: Cluster) -> dict[Locality, float]:
    """By `explain()`; in panic localities do not matter, and each gets by the weight of its endpoints."""
    explanation = balancer.explain()
    if explanation.locality_shares is not None:
        return dict(explanation.locality_shares)
    assert all(level.panic for level in explanation.priorities)
    shares = dict.fromkeys((each.locality for each in balancer.endpoints), 0.0)
    total = sum(each.weight for each in balancer.endpoints)
    for endpoint in balancer.endpoints:
        shares[endpoint.locality] += endpoint.weight / total
    return shares


@pytest.mark.parametrize("layout", WEIGHTED, ids=lambda layout: layout.name)
def test_each_locality_gets_its_stated_share_from_envoy_and_from_lbcore(
    layout: StaticCluster, envoy: EnvoyPicks
) -> None:
    balancer = layout.balancer(seed=1)
    home = {endpoint.address: endpoint.locality for endpoint in layout.endpoints}
    shares = stated_shares(balancer)
    tolerance = 3 + 3 * len(home) * balancer.stats().priorities[0].panic  # an order, cut at both ends
    theirs = [home[host] for host in envoy.hosts(layout.name, [""] * PICKS) if host is not None]
    assert len(theirs) == PICKS
    assert unexpected_counts(theirs, shares, tolerance=tolerance) == {}, "Envoy"
    ours = [balancer.pick().locality for _ in range(PICKS)]
    assert unexpected_counts(ours, shares, tolerance=tolerance) == {}, "lbcore"


@pytest.mark.parametrize("layout", KEYED, ids=lambda layout: layout.name)
def test_each_key_reaches_envoys_host_among_weighted_localities(layout: StaticCluster, envoy: EnvoyPicks) -> None:
    balancer = layout.balancer()
    ours = {key: balancer.pick(key).address for key in KEYS}
    assert ours == dict(zip(KEYS, envoy.hosts(layout.name, KEYS), strict=True))
