"""RoundRobin: every endpoint in turn, as often as its weight says, spread evenly; exact, not on average."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, RoundRobin
from tests.core.fleets import address, fleet
from tests.reference.schedule import cycle, is_rotation, turns


def picks(cluster: Cluster, count: int) -> list[str]:
    return [cluster.pick().address for _ in range(count)]


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_equal_weights_rotate_strictly(count: int, seed: int) -> None:
    order = picks(Cluster("rr", fleet(count, (7,)), seed=seed), 3 * count)
    assert len(set(order[:count])) == count
    assert order == order[:count] * 3


def test_equal_weights_rotate_in_the_order_of_the_endpoints() -> None:
    order = picks(Cluster("rr", fleet(5), seed=4), 5)
    start = order.index(address(0))
    assert order[start:] + order[:start] == [address(i) for i in range(5)]


def test_the_start_differs_between_seeds() -> None:
    starts = Counter(Cluster("rr", fleet(10), seed=seed).pick().address for seed in range(200))
    assert len(starts) == 10


def test_the_start_differs_between_clusters_without_a_seed() -> None:
    assert len({Cluster("rr", fleet(1000)).pick().address for _ in range(10)}) > 1


weight_lists = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(weight_lists, st.integers(0, 2**32))
def test_each_cycle_holds_each_endpoint_exactly_by_its_weight(weights: list[int], seed: int) -> None:
    expected = {address(i): count for i, count in enumerate(turns(weights))}
    cluster = Cluster("rr", fleet(len(weights), weights), seed=seed)
    for _ in range(3):
        assert Counter(picks(cluster, sum(expected.values()))) == expected


@given(weight_lists, st.integers(0, 2**32))
def test_the_order_is_that_of_the_deadlines(weights: list[int], seed: int) -> None:
    cluster = Cluster("rr", fleet(len(weights), weights), seed=seed)
    order = cycle(weights)
    picked = [cluster.endpoints.index(cluster.pick()) for _ in range(2 * len(order))]
    assert is_rotation(picked, order)


def test_of_equal_deadlines_the_lighter_endpoint_goes_first() -> None:
    assert cycle([4, 1, 2]) == [0, 2, 0, 0, 1, 2, 0]


def test_a_common_factor_of_the_weights_does_not_lengthen_the_cycle() -> None:
    cluster = Cluster("rr", [Endpoint(address(0), weight=2**30), Endpoint(address(1), weight=2**31)])
    assert Counter(picks(cluster, 3)) == {address(0): 1, address(1): 2}


@pytest.mark.parametrize("weights", [(1, 2**32 - 1), (2**32 - 1, 2**32 - 2), (1, 1_000_003, 65_537)])
def test_weights_too_fine_for_a_short_cycle_keep_their_proportions(weights: tuple[int, ...]) -> None:
    cluster = Cluster("rr", fleet(len(weights), weights), seed=3)
    counts = Counter(picks(cluster, 100_000))
    for endpoint in cluster.endpoints:
        fair = 100_000 * endpoint.weight / sum(weights)
        assert counts[endpoint.address] == pytest.approx(fair, abs=max(2.0, fair / 1000))


def test_an_endpoint_of_the_least_weight_is_not_starved() -> None:
    cluster = Cluster("rr", [Endpoint(address(0), weight=9_999), Endpoint(address(1), weight=1)], seed=3)
    assert Counter(picks(cluster, 30_000))[address(1)] == 3


def test_keys_do_not_disturb_the_rotation() -> None:
    cluster = Cluster("rr", fleet(4), policy=RoundRobin())
    assert len({cluster.pick("same key") for _ in range(4)}) == 4


def test_a_new_weight_counts_from_the_next_cycle_on() -> None:
    cluster = Cluster("rr", fleet(3), seed=1)
    cluster.pick()
    cluster.update([Endpoint(address(0), weight=2), *fleet(3)[1:]])
    assert Counter(picks(cluster, 40)) == {address(0): 20, address(1): 10, address(2): 10}


def test_updates_do_not_send_each_time_to_the_same_first_endpoint() -> None:
    cluster = Cluster("rr", fleet(8), seed=1)
    first = Counter[str]()
    for number in range(400):
        cluster.update([Endpoint(address(i), weight=2 if i == number % 8 else 1) for i in range(8)])
        first[cluster.pick().address] += 1
    assert max(first.values()) < 400 / 2
