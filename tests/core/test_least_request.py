"""LeastRequest: the fewest requests in flight among the sampled, or among all; weighted, (active + 1)^bias / weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Lease, LeastRequest
from tests.core.chi_square import assert_follows
from tests.core.fleets import FULL_SCAN, address, fleet


def load(cluster: Cluster, active: Sequence[int]) -> list[Lease]:
    """Brings endpoint i to `active[i]` requests in flight; returns their leases."""
    wanted = Counter({address(i): count for i, count in enumerate(active)})
    kept: list[Lease] = []
    surplus: list[Lease] = []
    while wanted.total():
        lease = cluster.acquire()
        if wanted[lease.endpoint.address] > 0:
            wanted[lease.endpoint.address] -= 1
            kept.append(lease)
        else:
            surplus.append(lease)
    for lease in surplus:
        lease.done()
    return kept


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 2**32))
def test_a_full_scan_takes_one_with_the_fewest_in_flight(active: list[int], seed: int) -> None:
    cluster = Cluster("lr", fleet(len(active)), policy=FULL_SCAN, seed=seed)
    leases = load(cluster, active)
    least = min(active)
    assert active[cluster.endpoints.index(cluster.pick())] == least
    assert len(leases) == sum(active)


def test_a_full_scan_breaks_ties_evenly() -> None:
    cluster = Cluster("lr", fleet(5), policy=FULL_SCAN, seed=3)
    leases = load(cluster, [1, 0, 0, 2, 0])
    counts = Counter(cluster.pick().address for _ in range(30_000))
    assert_follows(counts, {address(i): 1 / 3 for i in (1, 2, 4)})
    assert len(leases) == 3


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_a_full_scan_keeps_equal_endpoints_level(count: int, seed: int) -> None:
    cluster = Cluster("lr", fleet(count), policy=FULL_SCAN, seed=seed)
    leases = [cluster.acquire() for _ in range(3 * count)]
    assert set(Counter(lease.endpoint.address for lease in leases).values()) == {3}


@pytest.mark.parametrize("choices", [2, 3, 5])
def test_of_n_samples_with_replacement_the_least_busy_wins(choices: int) -> None:
    count = 6
    cluster = Cluster("lr", fleet(count), policy=LeastRequest(choice_count=choices), seed=9)
    leases = load(cluster, range(count))
    counts = Counter(cluster.pick().address for _ in range(40_000))
    shares = {address(i): ((count - i) / count) ** choices - ((count - i - 1) / count) ** choices for i in range(count)}
    assert_follows(counts, shares)
    assert len(leases) == sum(range(count))


def test_picks_alone_count_nothing() -> None:
    cluster = Cluster("lr", fleet(4), policy=FULL_SCAN, seed=1)
    for _ in range(100):
        cluster.pick()
    leases = [cluster.acquire() for _ in range(4)]
    assert len({lease.endpoint for lease in leases}) == 4


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=2, max_size=6), st.integers(0, 2**32))
def test_a_weighted_full_scan_takes_the_least_active_plus_one_over_weight(
    members: list[tuple[int, int]], seed: int
) -> None:
    endpoints = [Endpoint(address(i), weight=weight) for i, (weight, _) in enumerate(members)]
    cluster = Cluster("lr", fleet(len(members)), policy=FULL_SCAN, seed=seed)
    leases = load(cluster, [active for _, active in members])
    cluster.update(endpoints)
    scores = [(active + 1) / weight for weight, active in members]
    chosen = scores[cluster.endpoints.index(cluster.pick())]
    assert chosen == pytest.approx(min(scores))
    assert leases or not any(active for _, active in members)


@pytest.mark.parametrize(("bias", "expected"), [(0.0, 0), (0.5, 1), (2.0, 1)])
def test_the_bias_says_how_much_load_counts_against_weight(bias: float, expected: int) -> None:
    policy = LeastRequest(selection_method="full_scan", active_request_bias=bias)
    cluster = Cluster("lr", fleet(2), policy=policy, seed=1)
    leases = load(cluster, [8, 0])  # 9 ** 0.5 = 3 is more than twice the weight's advantage
    cluster.update([Endpoint(address(0), weight=2), Endpoint(address(1))])
    assert cluster.pick().address == address(expected)
    assert len(leases) == 8


def test_in_flight_requests_settle_in_proportion_to_the_weights() -> None:
    cluster = Cluster("lr", fleet(3, (1, 2, 4)), policy=FULL_SCAN, seed=1)
    leases = [cluster.acquire() for _ in range(7 * 30)]
    counts = Counter(lease.endpoint.address for lease in leases)
    assert [counts[address(i)] for i in range(3)] == pytest.approx([30, 60, 120], abs=1)


def test_a_weighted_sample_takes_the_better_score() -> None:
    cluster = Cluster("lr", fleet(2, (1, 4)), policy=LeastRequest(), seed=6)
    counts = Counter(cluster.pick().address for _ in range(20_000))
    assert_follows(counts, {address(0): 0.25, address(1): 0.75})
