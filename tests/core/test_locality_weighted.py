"""LocalityWeighted: localities share by their weights, scaled down as they lose health; absent or 0 is never."""

from __future__ import annotations

import pytest

from lbcore import Cluster, Endpoint, Health, Locality, LocalityWeighted, NoEndpointAvailable
from tests.core.chi_square import assert_follows
from tests.core.fleets import BY_LOAD, NOT_HASHING, POLICIES, address
from tests.core.random_layouts import LOCALITIES, counted, layout
from tests.reference.distribution import Settings, distribution
from tests.reference.hash_pick import HashPick
from tests.reference.maglev import MaglevTable

A, B, C = LOCALITIES
WEIGHTS: list[dict[Locality, int]] = [{A: 1, B: 2, C: 7}, {A: 5, B: 0, C: 5}, {A: 1, C: 1}, {B: 2**31, C: 2**31 - 1}]


def cluster_of(endpoints: list[Endpoint], weights: dict[Locality, int], policy: str) -> Cluster:
    cluster = Cluster("weighted", policy=POLICIES[policy], locality_policy=LocalityWeighted(), seed=3)
    cluster.update(endpoints, locality_weights=weights)
    return cluster


@pytest.mark.parametrize("policy", NOT_HASHING)
@pytest.mark.parametrize("weights", WEIGHTS, ids=["1:2:7", "one zero", "one absent", "largest"])
@pytest.mark.parametrize("number", range(200, 206))
def test_shares_are_those_of_the_specification(policy: str, weights: dict[Locality, int], number: int) -> None:
    weighted = policy not in BY_LOAD
    endpoints = layout(number, priorities=2, weighted=weighted)
    cluster = cluster_of(endpoints, weights, policy)
    counts = counted(cluster.endpoints, cluster.pick_many(20_000).tolist())
    assert_follows(counts, distribution(endpoints, Settings(locality_weights=weights), weighted=weighted))


@pytest.mark.parametrize("weights", WEIGHTS, ids=["1:2:7", "one zero", "one absent", "largest"])
@pytest.mark.parametrize("number", range(210, 230))
def test_every_key_goes_where_the_specification_says(weights: dict[Locality, int], number: int) -> None:
    endpoints = layout(number, priorities=2)
    cluster = cluster_of(endpoints, weights, "maglev")
    settings = Settings(locality_weights=weights)
    reference = HashPick(endpoints, lambda shares: MaglevTable(shares, 1021), settings)
    keys = range(0, 100 * 1021, 199)
    picked = cluster.pick_many(list(keys)).tolist()
    assert [cluster.endpoints[i] if i >= 0 else None for i in picked] == [reference.choose(key) for key in keys]


def two_localities(healthy_in_a: int) -> list[Endpoint]:
    in_a = [
        Endpoint(address(i), locality=A, health=Health.HEALTHY if i < healthy_in_a else Health.UNHEALTHY)
        for i in range(5)
    ]
    return [*in_a, Endpoint(address(5), locality=B)]


@pytest.mark.parametrize("healthy_in_a", range(6))
def test_the_explanation_states_the_localities_shares(healthy_in_a: int) -> None:
    endpoints = two_localities(healthy_in_a)
    cluster = Cluster("weighted", locality_policy=LocalityWeighted(), panic_threshold=0.0)
    cluster.update(endpoints, locality_weights={A: 1, B: 2})
    shares = cluster.explain().locality_shares
    by_address = distribution(endpoints, Settings(locality_weights={A: 1, B: 2}, panic_threshold=0.0))
    expected = {
        here: sum(by_address.get(each.address, 0.0) for each in endpoints if each.locality == here) for here in (A, B)
    }
    assert shares is not None
    assert {here: shares.get(here, 0.0) for here in (A, B)} == pytest.approx(expected)


def test_text_names_a_locality_too() -> None:
    cluster = Cluster("weighted", locality_policy=LocalityWeighted())
    cluster.update(two_localities(5), locality_weights={"eu/a": 1})
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(100)} == {A}


def test_weights_alone_are_a_change() -> None:
    cluster = cluster_of(two_localities(5), {A: 1, B: 1}, "random")
    assert cluster.update(two_localities(5), locality_weights={A: 1, B: 0}) is True
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(200)} == {A}


def test_the_same_weights_again_are_no_change() -> None:
    cluster = cluster_of(two_localities(5), {A: 1, B: 1}, "random")
    assert cluster.update(two_localities(5), locality_weights={A: 1, B: 1}) is False


def test_an_update_without_weights_keeps_those_before() -> None:
    cluster = cluster_of(two_localities(5), {A: 1, B: 0}, "random")
    cluster.update(two_localities(4))
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(200)} == {A}


@pytest.mark.parametrize("policy", POLICIES)
def test_without_any_weight_localities_do_not_matter(policy: str) -> None:
    cluster = cluster_of(two_localities(5), {}, policy)
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(200)} == {A, B}


@pytest.mark.parametrize("policy", ["ring_hash", "maglev", "rendezvous"])
def test_a_hashing_policy_never_uses_a_locality_of_weight_zero(policy: str) -> None:
    endpoints = [Endpoint(address(0), locality=A, health=Health.UNHEALTHY), Endpoint(address(1), locality=B)]
    with pytest.raises(NoEndpointAvailable):
        cluster_of(endpoints, {A: 1, B: 0}, policy).pick("key")


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_count_only_under_the_policy_that_uses_them(policy: str) -> None:
    cluster = Cluster("plain", policy=POLICIES[policy], seed=1)
    cluster.update(two_localities(5), locality_weights={A: 1})
    assert {cluster.endpoints[i].locality for i in cluster.pick_many(list(range(0, 2**64, 2**56)))} == {A, B}
