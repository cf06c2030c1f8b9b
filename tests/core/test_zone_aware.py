"""ZoneAware: traffic stays in its own zone as far as that is fair, in Envoy's parts of ten thousand."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Health, Locality, NoEndpointAvailable, Subsets, SubsetSelector, ZoneAware
from tests.core.chi_square import assert_follows
from tests.core.fleets import NOT_HASHING, POLICIES, address
from tests.core.random_layouts import LOCALITIES, counted
from tests.reference.distribution import Settings, Zones, distribution
from tests.reference.zone_routing import Routing, zone_route

A, B, C = LOCALITIES
Layout = list[tuple[Locality, Health]]
healths = st.sampled_from([Health.HEALTHY, Health.HEALTHY, Health.HEALTHY, Health.UNHEALTHY])
layouts = st.lists(st.tuples(st.sampled_from(LOCALITIES), healths), min_size=1, max_size=40)
callers = st.dictionaries(st.sampled_from(LOCALITIES), st.integers(0, 20), max_size=3)


def members(layout: Layout, priority: int = 0) -> list[Endpoint]:
    return [
        Endpoint(address(i), locality=here, health=health, priority=priority) for i, (here, health) in enumerate(layout)
    ]


def in_zones(in_a: int, in_b: int, in_c: int = 0) -> Layout:
    return [(here, Health.HEALTHY) for here, count in ((A, in_a), (B, in_b), (C, in_c)) for _ in range(count)]


def cluster_of(endpoints: list[Endpoint], local_hosts: dict[Locality, int], **zone_settings: Any) -> Cluster:
    policy = zone_settings.pop("policy", "random")
    zones = ZoneAware(local_hosts=local_hosts, **zone_settings)
    return Cluster("zones", endpoints, policy=POLICIES[policy], locality_policy=zones, local_locality=A, seed=4)


@given(layouts, callers, st.integers(1, 10), st.sampled_from([None, 1, 3, 10]))
def test_the_localities_shares_are_those_of_the_specification(
    layout: Layout, local_hosts: dict[Locality, int], min_cluster_size: int, force: int | None
) -> None:
    endpoints = members(layout)
    healthy = [each for each in endpoints if each.health is Health.HEALTHY]
    cluster = cluster_of(endpoints, local_hosts, min_cluster_size=min_cluster_size, force_local_zone_min_size=force)
    if cluster.stats().priorities[0].panic:
        assert cluster.explain().locality_shares is None
        return
    route = zone_route(endpoints, healthy, A, local_hosts, min_cluster_size, force)
    shares = cluster.explain().locality_shares
    if route.routing is Routing.NONE:
        assert shares is None
    else:
        assert {here: share for here, share in (shares or {}).items() if share} == pytest.approx(route.shares)


@given(layouts, callers, st.lists(st.integers(1, 9), min_size=40, max_size=40), st.sampled_from([None, 1, 3]))
def test_zones_may_be_measured_by_weights(
    layout: Layout, local_hosts: dict[Locality, int], weights: list[int], force: int | None
) -> None:
    endpoints = [replace(each, weight=weight) for each, weight in zip(members(layout), weights, strict=False)]
    healthy = [each for each in endpoints if each.health is Health.HEALTHY]
    settings: dict[str, Any] = {"min_cluster_size": 1, "force_local_zone_min_size": force}
    cluster = cluster_of(endpoints, local_hosts, locality_basis="healthy_hosts_weight", **settings)
    route = zone_route(endpoints, healthy, A, local_hosts, 1, force, by_weight=True)
    shares = cluster.explain().locality_shares
    if shares is None:
        assert cluster.stats().priorities[0].panic or route.routing is Routing.NONE
    else:
        assert {here: share for here, share in shares.items() if share} == pytest.approx(route.shares)


def test_callers_may_change_with_an_update() -> None:
    endpoints = members(in_zones(4, 4))
    cluster = cluster_of(endpoints, {A: 1, B: 1})
    lease = cluster.acquire()
    view = cluster.handle(local_locality=B)
    assert {each.locality for each in (cluster.pick() for _ in range(50))} == {A}
    assert {each.locality for each in (view.pick() for _ in range(50))} == {B}
    assert cluster.update(endpoints, local_hosts={A: 3, B: 1})
    assert not cluster.update(endpoints, local_hosts={A: 3, B: 1})
    assert cluster.explain().locality_shares == pytest.approx({A: 0.6666, B: 0.3334})
    assert view.explain().locality_shares == {B: 1.0, A: 0.0}
    assert cluster.stats().active == 1
    lease.done()
    with pytest.raises(ValueError, match="local_hosts"):
        cluster.update(endpoints, local_hosts={A: -1})


def test_a_subset_is_seen_from_where_its_requests_come() -> None:
    endpoints = [replace(each, metadata={"v": 1}) for each in members(in_zones(4, 4))]
    zones = ZoneAware(local_hosts={A: 1, B: 1})
    subsets = Subsets(selectors=[SubsetSelector(keys=["v"])])
    cluster = Cluster("zones", endpoints, locality_policy=zones, local_locality=A, subsets=subsets)
    for here in (A, B):
        view = cluster.subset({"v": 1}, local_locality=here)
        assert {view.pick().locality for _ in range(20)} == {here}
        assert cluster.subset({"v": 1}, local_locality=here) is view


def test_callers_are_named_or_counted_but_not_both() -> None:
    with pytest.raises(ValueError, match="local_hosts or local_service, not both"):
        ZoneAware(local_hosts={A: 1}, local_service="callers")


@pytest.mark.parametrize("policy", NOT_HASHING)
@pytest.mark.parametrize("number", range(12))
def test_picks_follow_the_specification(policy: str, number: int) -> None:
    draw = random.Random(number)
    layout = [(draw.choice(LOCALITIES), draw.choice([Health.HEALTHY] * 5 + [Health.DRAINING])) for _ in range(24)]
    local_hosts = {here: draw.randint(1, 10) for here in LOCALITIES}
    cluster = cluster_of(members(layout), local_hosts, policy=policy)
    settings = Settings(zones=Zones(A, local_hosts))
    counts = counted(cluster.endpoints, cluster.pick_many(20_000).tolist())
    assert_follows(counts, distribution(members(layout), settings))


@pytest.mark.parametrize("enabled", [0.0, 30.0, 100.0])
def test_only_the_enabled_part_of_the_requests_is_routed_by_zone(enabled: float) -> None:
    local_hosts = {A: 1, B: 1}
    endpoints = members(in_zones(8, 4))
    cluster = cluster_of(endpoints, local_hosts, routing_enabled=enabled)
    settings = Settings(zones=Zones(A, local_hosts, routing_enabled=enabled))
    counts = counted(cluster.endpoints, cluster.pick_many(20_000).tolist())
    assert_follows(counts, distribution(endpoints, settings))


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_zones_count_at_every_priority(policy: str) -> None:
    cluster = cluster_of(members(in_zones(8, 4), priority=2), {A: 1, B: 1}, policy=policy)
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(500)} == {A}


def test_hashing_policies_ignore_zones_as_envoy_does() -> None:
    cluster = cluster_of(members(in_zones(8, 4)), {A: 1, B: 1}, policy="maglev")
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(500)} == {A, B}


def test_a_zone_without_healthy_endpoints_is_not_insisted_on() -> None:
    layout = [(A, Health.UNHEALTHY)] * 2 + in_zones(0, 6, 6)
    cluster = cluster_of(members(layout), {A: 4, B: 2, C: 2})
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(2_000)} == {B, C}


def test_panic_can_fail_rather_than_leave_the_zone() -> None:
    layout = [(A, Health.UNHEALTHY)] * 8 + in_zones(0, 2)
    cluster = cluster_of(members(layout), {A: 1, B: 1}, fail_traffic_on_panic=True)
    with pytest.raises(NoEndpointAvailable):
        cluster.pick()


def test_zone_awareness_needs_to_know_where_it_is() -> None:
    with pytest.raises(ValueError, match="local_locality"):
        Cluster("zones", members(in_zones(3, 3)), locality_policy=ZoneAware(local_hosts={A: 1}))


def test_localities_may_be_written_as_text() -> None:
    zones = ZoneAware(local_hosts={"eu/a": 1, "eu/b": 1})
    cluster = Cluster("zones", members(in_zones(8, 4)), locality_policy=zones, local_locality="eu/a", seed=1)
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(500)} == {A}
