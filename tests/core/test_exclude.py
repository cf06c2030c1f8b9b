"""`exclude` leaves endpoints out of one pick, as a retry on another host needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from lbcore import Cluster, Endpoint, Maglev, NoEndpointAvailable, RingHash
from tests.core.fleets import HASHING, NOT_HASHING, POLICIES, address, fleet
from tests.core.layouts import in_states
from tests.core.observed import active_requests
from tests.reference.maglev import MaglevTable
from tests.reference.ring import build_ring
from tests.reference.shares import flat_shares


@pytest.fixture(params=POLICIES)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return Cluster("exclude", fleet(5), policy=POLICIES[request.param], seed=2)


def test_an_excluded_endpoint_is_not_picked(cluster: Cluster) -> None:
    first = cluster.endpoints[0]
    assert first not in {cluster.pick(key, first) for key in range(0, 2**64, 2**56)}


def test_all_others_still_are(cluster: Cluster) -> None:
    picked = {cluster.pick(key, cluster.endpoints[0]) for key in range(0, 2**64, 2**55)}
    assert picked == set(cluster.endpoints[1:])


def test_exclusions_may_be_endpoints_or_addresses_or_several_of_either(cluster: Cluster) -> None:
    one, two = cluster.endpoints[:2]
    for exclude in (one, one.address, [one, two], {one.address, two.address}, (one, two.address), iter([one])):
        assert cluster.pick("key", exclude) != one


def test_excluding_nobody_or_a_stranger_changes_nothing() -> None:
    for policy in HASHING:
        cluster = Cluster("exclude", fleet(5), policy=POLICIES[policy])
        strangers: list[Any] = [[], (), "10.99.0.1:1", Endpoint("10.99.0.1:1")]
        for exclude in strangers:
            assert cluster.pick("key", exclude) == cluster.pick("key")


def test_excluding_all_but_one_leaves_that_one(cluster: Cluster) -> None:
    assert {cluster.pick(key, cluster.endpoints[1:]) for key in range(0, 2**64, 2**58)} == {cluster.endpoints[0]}


def test_excluding_everybody_is_no_endpoint_saying_so(cluster: Cluster) -> None:
    with pytest.raises(NoEndpointAvailable, match="excluded"):
        cluster.pick("key", cluster.endpoints)


def test_acquire_excludes_as_well_and_counts_where_it_went(cluster: Cluster) -> None:
    lease = cluster.acquire("key", cluster.endpoints[1:])
    assert active_requests(cluster) == {address(i): int(i == 0) for i in range(5)}
    lease.done()


def test_the_keyword_may_be_used(cluster: Cluster) -> None:
    assert cluster.pick(exclude=cluster.endpoints[1:]) == cluster.endpoints[0]
    assert cluster.acquire(key="key", exclude=cluster.endpoints[1:]).endpoint == cluster.endpoints[0]


@pytest.mark.parametrize("policy", HASHING)
def test_excluding_the_first_of_the_rank_gives_the_second(policy: str) -> None:
    cluster = Cluster("exclude", fleet(9), policy=POLICIES[policy])
    for key in range(0, 2**64, 2**57):
        first, second, third = cluster.rank(key, 3)
        assert cluster.pick(key, first) == second
        assert cluster.pick(key, [first, second]) == third


def test_on_a_ring_the_next_point_of_another_endpoint_serves() -> None:
    members = fleet(6)
    cluster = Cluster("exclude", members, policy=RingHash(minimum_ring_size=100))
    ring = build_ring(flat_shares(members), 100)
    for key in range(0, 2**64, 2**57):
        first = ring.choose(key)
        following = (ring.choose(key, attempt) for attempt in range(1, len(ring.positions)))
        assert cluster.pick(key, first) == next(endpoint for endpoint in following if endpoint != first)


def test_in_a_maglev_table_envoys_retry_slots_serve() -> None:
    members = fleet(6)
    cluster = Cluster("exclude", members, policy=Maglev(table_size=1021))
    table = MaglevTable(flat_shares(members), 1021)
    for key in range(0, 2**64, 2**57):
        first = table.choose(key)
        following = (table.choose(key, attempt) for attempt in range(1, 300))
        assert cluster.pick(key, first) == next(endpoint for endpoint in following if endpoint != first)


@pytest.mark.parametrize("policy", NOT_HASHING)
def test_the_others_share_what_the_excluded_leaves(policy: str) -> None:
    cluster = Cluster("exclude", fleet(4), policy=POLICIES[policy], seed=6)
    counts = Counter(cluster.pick(None, address(0)).address for _ in range(3_000))
    assert all(counts[address(i)] > 300 for i in (1, 2, 3))


@pytest.mark.parametrize("policy", POLICIES)
def test_without_its_own_priority_the_next_one_serves(policy: str) -> None:
    cluster = Cluster("exclude", [*in_states(2, 0, 0), *in_states(2, 0, 0, 1, first=2)], policy=POLICIES[policy])
    assert cluster.pick("key", [address(0), address(1)]).priority == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_an_unhealthy_endpoint_does_not_stand_in_for_an_excluded_one(policy: str) -> None:
    cluster = Cluster("exclude", in_states(2, 0, 1), policy=POLICIES[policy])
    with pytest.raises(NoEndpointAvailable):
        cluster.pick("key", [address(0), address(1)])


@pytest.mark.parametrize("exclude", [5, 1.5, [5], [None], object()], ids=repr)
def test_what_names_no_endpoint_is_refused(cluster: Cluster, exclude: object) -> None:
    with pytest.raises((TypeError, ValueError), match="exclude"):
        cluster.pick("key", exclude)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_exclusion_during_which_the_endpoints_change_holds_for_the_new_ones(policy: str) -> None:
    cluster = Cluster("exclude", fleet(50), policy=POLICIES[policy], seed=2)

    def changing() -> Iterator[str]:
        cluster.update([Endpoint(address(7)), Endpoint(address(100))])
        yield address(7)

    assert cluster.pick("key", changing()).address == address(100)
