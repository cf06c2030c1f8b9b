"""`rank` lists distinct fallbacks for a key, best first, and begins with what `pick` gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Health, NoEndpointAvailable
from tests.core.fleets import HASHING, NOT_HASHING, POLICIES, address, fleet
from tests.core.layouts import spread_over_health
from tests.reference.ring import build_ring
from tests.reference.shares import flat_shares


@pytest.mark.parametrize("policy", HASHING)
@given(count=st.integers(1, 20), wanted=st.integers(1, 25), key=st.integers(0, 2**64 - 1))
def test_ranked_endpoints_are_distinct_and_as_many_as_asked(policy: str, count: int, wanted: int, key: int) -> None:
    cluster = Cluster("rank", fleet(count), policy=POLICIES[policy])
    ranked = cluster.rank(key, wanted)
    assert len({endpoint.address for endpoint in ranked}) == len(ranked) == min(count, wanted)


@pytest.mark.parametrize("policy", HASHING)
@given(key=st.text(max_size=12))
def test_the_first_of_the_rank_is_the_pick(policy: str, key: str) -> None:
    cluster = Cluster("rank", fleet(9, (1, 3)), policy=POLICIES[policy])
    assert cluster.rank(key, 3)[0] == cluster.pick(key)


@pytest.mark.parametrize("policy", HASHING)
def test_a_shorter_rank_is_the_beginning_of_a_longer_one(policy: str) -> None:
    cluster = Cluster("rank", fleet(9), policy=POLICIES[policy])
    assert cluster.rank("key", 3) == cluster.rank("key", 9)[:3]


@given(key=st.integers(0, 2**64 - 1))
def test_a_ring_ranks_endpoints_as_they_follow_on_it(key: int) -> None:
    cluster = Cluster("rank", fleet(6), policy=POLICIES["ring_hash"])
    ring = build_ring(flat_shares(fleet(6)))
    following = dict.fromkeys(ring.choose(key, attempt) for attempt in range(len(ring.positions)))
    assert cluster.rank(key, 6) == list(following)


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_policies_that_do_not_hash_rank_distinct_endpoints_too(policy: str) -> None:
    cluster = Cluster("rank", fleet(5), policy=POLICIES[policy], seed=1)
    assert sorted(endpoint.address for endpoint in cluster.rank("key", 5)) == [address(i) for i in range(5)]


@pytest.mark.parametrize("policy", HASHING)
def test_a_rank_without_some_is_the_rank_less_them(policy: str) -> None:
    cluster = Cluster("rank", fleet(9), policy=POLICIES[policy])
    ranked = cluster.rank("key", 9)
    assert cluster.rank("key", 4, exclude=[ranked[0], ranked[2].address]) == [ranked[1], *ranked[3:6]]


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_what_is_excluded_is_in_no_rank(policy: str) -> None:
    cluster = Cluster("rank", fleet(5), policy=POLICIES[policy], seed=1)
    ranked = {endpoint.address for endpoint in cluster.rank(None, 5, exclude=address(2))}
    assert ranked == {address(i) for i in (0, 1, 3, 4)}
    with pytest.raises(NoEndpointAvailable, match="excluded"):
        cluster.rank(None, 5, exclude=fleet(5))


@pytest.mark.parametrize("policy", POLICIES)
def test_only_usable_endpoints_are_ranked(policy: str) -> None:
    states = [Health.HEALTHY, Health.DRAINING, Health.UNKNOWN, Health.UNHEALTHY, Health.HEALTHY]
    cluster = Cluster("rank", spread_over_health(states), policy=POLICIES[policy], panic_threshold=0.0)
    assert {endpoint.address for endpoint in cluster.rank("key", 5)} == {address(i) for i in (0, 2, 4)}


@pytest.mark.parametrize("policy", POLICIES)
def test_without_usable_endpoints_there_is_nothing_to_rank(policy: str) -> None:
    with pytest.raises(NoEndpointAvailable):
        Cluster("rank", policy=POLICIES[policy]).rank("key", 3)


@pytest.mark.parametrize("k", [-1, 0, 1.5, "2", None], ids=repr)
def test_a_rank_of_no_whole_number_of_endpoints_is_refused(k: object) -> None:
    with pytest.raises((TypeError, ValueError), match="k"):
        Cluster("rank", fleet(3)).rank("key", k)  # type: ignore[arg-type]


def test_a_later_priority_ranks_after_an_earlier_one() -> None:
    members = [*fleet(2), Endpoint(address(7), priority=1)]
    cluster = Cluster("rank", members, policy=POLICIES["ring_hash"])
    assert cluster.rank("key", 3)[2] == members[2]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("policy", HASHING)
def test_a_thousand_endpoints_are_ranked_while_one_is_out(policy: str) -> None:
    states = [Health.DRAINING] + [Health.HEALTHY] * 999
    cluster = Cluster("rank", spread_over_health(states), policy=POLICIES[policy])
    assert len(cluster.rank("key", 1000)) == 999
