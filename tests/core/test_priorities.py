"""Priorities: loads in whole percents, spill-over, degraded endpoints and panic, all as Envoy computes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, NoEndpointAvailable
from tests.core.chi_square import assert_follows
from tests.core.fleets import BY_LOAD, NOT_HASHING, POLICIES, address
from tests.core.layouts import in_states
from tests.core.random_layouts import counted, layout
from tests.reference.distribution import Settings, distribution
from tests.reference.hash_pick import HashPick
from tests.reference.health import Availability
from tests.reference.maglev import MaglevTable
from tests.reference.priority_load import Counts, priority_load

level_counts = st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 12))
factors = st.sampled_from([1, 50, 100, 140, 200, 1000])
thresholds = st.sampled_from([0.0, 0.9, 1.0, 33.3, 50.0, 72.0, 99.9, 100.0])


def levels_of(counts: list[tuple[int, int, int]]) -> list[Endpoint]:
    """healthy, degraded, unhealthy endpoints for each priority in turn."""
    endpoints: list[Endpoint] = []
    for priority, (healthy, degraded, unhealthy) in enumerate(counts):
        endpoints += in_states(healthy, degraded, unhealthy, priority, len(endpoints))
    return endpoints


@given(st.lists(level_counts, min_size=1, max_size=5), factors, thresholds)
def test_loads_and_panic_are_those_of_the_specification(
    counts: list[tuple[int, int, int]], factor: int, threshold: float
) -> None:
    endpoints = levels_of(counts)
    while counts and not any(counts[-1]):
        counts.pop()  # trailing empty priorities do not exist
    cluster = Cluster("levels", endpoints, overprovisioning_factor=factor, panic_threshold=threshold)
    if not counts:
        assert cluster.stats().priorities == ()
        return
    expected = priority_load([Counts(sum(each), each[0], each[1]) for each in counts], factor, threshold)
    stated = cluster.stats().priorities
    assert [level.healthy_load for level in stated] == expected.healthy
    assert [level.degraded_load for level in stated] == expected.degraded
    assert [level.panic for level in stated] == expected.panic


@given(st.lists(level_counts, min_size=1, max_size=4), factors, thresholds)
def test_the_loads_sum_to_100(counts: list[tuple[int, int, int]], factor: int, threshold: float) -> None:
    endpoints = levels_of(counts)
    cluster = Cluster("levels", endpoints, overprovisioning_factor=factor, panic_threshold=threshold)
    stated = cluster.stats().priorities
    assert sum(level.healthy_load + level.degraded_load for level in stated) == (100 if endpoints else 0)


@pytest.mark.parametrize("number", range(40))
def test_under_a_hashing_policy_the_keys_hash_chooses_the_priority(number: int) -> None:
    endpoints = layout(number, localities=False)
    reference = HashPick(endpoints, lambda shares: MaglevTable(shares, 101))
    cluster = Cluster("levels", endpoints, policy=POLICIES["maglev"])
    stated = cluster.stats().priorities
    loads = priority_load([Counts(level.total, level.healthy, level.degraded, level.excluded) for level in stated])
    for key in range(100):
        priority, availability = loads.choose(key)
        assert cluster.pick(key).priority == priority
        assert cluster.explain(key).degraded is (availability is Availability.DEGRADED)
    assert reference.choose(0) is not None


@pytest.mark.parametrize("threshold", [0.0, 50.0])
@pytest.mark.parametrize("number", range(40))
def test_every_key_goes_where_the_specification_says(number: int, threshold: float) -> None:
    endpoints = layout(number, localities=False)
    settings = Settings(panic_threshold=threshold)
    reference = HashPick(endpoints, lambda shares: MaglevTable(shares, 1021), settings)
    cluster = Cluster("levels", endpoints, policy=POLICIES["maglev"], panic_threshold=threshold)
    keys = range(0, 100 * 1021, 97)
    picked = cluster.pick_many(list(keys)).tolist()
    assert [cluster.endpoints[i] if i >= 0 else None for i in picked] == [reference.choose(key) for key in keys]


@pytest.mark.parametrize("policy", NOT_HASHING)
@pytest.mark.parametrize("number", range(100, 112))
def test_shares_are_those_of_the_specification(policy: str, number: int) -> None:
    weighted = policy not in BY_LOAD
    endpoints = layout(number, weighted=weighted, localities=False)
    cluster = Cluster("levels", endpoints, policy=POLICIES[policy], seed=number)
    counts = counted(cluster.endpoints, cluster.pick_many(20_000).tolist())
    assert_follows(counts, distribution(endpoints, weighted=weighted))


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_panic_that_fails_one_level_fails_its_share_of_requests(policy: str) -> None:
    endpoints = [*in_states(1, 0, 4, 0), *in_states(3, 0, 2, 1, first=5)]
    settings = Settings(overprovisioning_factor=100, fail_traffic_on_panic=True)
    options: dict[str, Any] = {"overprovisioning_factor": 100, "fail_traffic_on_panic": True, "seed": 5}
    cluster = Cluster("levels", endpoints, policy=POLICIES[policy], **options)
    picked = cluster.pick_many(20_000).tolist()
    shares: dict[str, float] = distribution(endpoints, settings)
    failing = 1.0 - sum(shares.values())
    assert failing > 0.2
    assert_follows({**counted(cluster.endpoints, picked), "": picked.count(-1)}, {**shares, "": failing})


@pytest.mark.parametrize("policy", POLICIES)
def test_a_lower_priority_waits_while_the_first_is_well(policy: str) -> None:
    endpoints = [*in_states(8, 0, 2, 0), *in_states(3, 0, 0, 1, first=10)]
    cluster = Cluster("levels", endpoints, policy=POLICIES[policy])
    assert {cluster.endpoints[i].priority for i in cluster.pick_many(list(range(2_000)))} == {0}


@pytest.mark.parametrize("policy", POLICIES)
def test_priorities_may_have_gaps(policy: str) -> None:
    endpoints = [*in_states(0, 0, 2, 3), *in_states(2, 0, 0, 128, first=2)]
    cluster = Cluster("levels", endpoints, policy=POLICIES[policy])
    assert cluster.pick("key").address in {address(2), address(3)}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_single_degraded_endpoint_serves_even_where_integer_shares_leave_it_out(policy: str) -> None:
    endpoints = in_states(0, 1, 199)
    cluster = Cluster("levels", endpoints, policy=POLICIES[policy], panic_threshold=0.0)
    assert cluster.pick("key").address == address(0)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_panic_and_without_anyone_available_all_fails(policy: str) -> None:
    endpoints = [*in_states(0, 0, 3, 0), *in_states(0, 0, 3, 1, first=3)]
    cluster = Cluster("levels", endpoints, policy=POLICIES[policy], panic_threshold=0.0)
    with pytest.raises(NoEndpointAvailable):
        cluster.pick("key")
