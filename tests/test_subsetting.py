"""Subsets of a fleet for many clients: even cover, few changes, every priority."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, DeterministicSubsetting, Endpoint, InvalidSetting, RandomSubsetting
from lbcore.subsetting import Subsetting
from tests.core.fleets import address, fleet


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 25))
def test_deterministic_subsets_cover_the_fleet_evenly(endpoints: int, clients: int, size: int) -> None:
    used: Counter[str] = Counter({each.address: 0 for each in fleet(endpoints)})
    for client in range(clients):
        subset = DeterministicSubsetting(client_index=client, client_count=clients, subset_size=size)
        chosen = subset.choose(fleet(endpoints))
        assert len(chosen) == len(set(chosen)) == min(size, endpoints)
        used.update(each.address for each in chosen)
    if endpoints > size:
        rounds = -(-clients // (endpoints // size))
        assert max(used.values()) <= rounds


def test_the_order_in_which_endpoints_are_listed_does_not_matter() -> None:
    subset = DeterministicSubsetting(client_index=2, client_count=10, subset_size=5)
    assert set(subset.choose(fleet(30))) == set(subset.choose(fleet(30)[::-1]))


@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 2**64 - 1))
def test_one_that_joins_changes_a_random_subset_by_one_at_most(count: int, size: int, seed: int) -> None:
    subset = RandomSubsetting(seed=seed, subset_size=size)
    before, after = set(subset.choose(fleet(count - 1))), set(subset.choose(fleet(count)))
    assert len(before - after) <= 1
    assert len(after) == min(size, count)


@pytest.mark.parametrize(
    "subsetting",
    [RandomSubsetting(seed=3, subset_size=4), DeterministicSubsetting(client_index=1, client_count=3, subset_size=4)],
)
def test_a_cluster_picks_among_its_subset_of_every_priority(subsetting: Subsetting) -> None:
    endpoints = [Endpoint(address(number), priority=number // 20) for number in range(40)]
    cluster = Cluster("one of many", endpoints, subsetting=subsetting)
    assert Counter(each.priority for each in cluster.endpoints) == {0: 4, 1: 4}
    assert {cluster.pick().address for _ in range(50)} == {
        each.address for each in cluster.endpoints if not each.priority
    }
    assert cluster.update(endpoints) is False


def test_mistakes_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="client_index 5"):
        DeterministicSubsetting(client_index=5, client_count=5)
    with pytest.raises(InvalidSetting, match="subsetting"):
        Cluster("web", subsetting=20)  # type: ignore[arg-type]
