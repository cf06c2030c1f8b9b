"""PeakEwma: the least latency x (requests in flight + 1); what an estimate remembers, and what it must not do."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Lease, PeakEwma, VirtualClock
from tests.core.chi_square import assert_follows
from tests.core.fleets import address, fleet
from tests.reference.peak_ewma import Node

SCAN = PeakEwma(selection_method="full_scan")


def scores(cluster: Cluster) -> dict[str, float | None]:
    return {each.endpoint.address: each.score for each in cluster.explain().candidates}


def lease_of(cluster: Cluster, name: str) -> Lease:
    """A request to this endpoint, by excluding all others."""
    return cluster.acquire(exclude=[each for each in cluster.endpoints if each.address != name])


def answer(cluster: Cluster, clock: VirtualClock, name: str, latency: float, *, ok: bool = True) -> None:
    lease = lease_of(cluster, name)
    clock.advance(latency)
    lease.done(ok)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.just(0.0)),
        st.tuples(st.sampled_from(["answer", "fail", "drop"]), st.integers(0, 5), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.sampled_from([1e-6, 0.003, 0.05, 1.0, 7.0, 300.0])),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([0.1, 1.0, 10.0]))
def test_estimates_and_scores_are_the_reference_s(script: list[tuple[str, int, float]], decay_time: float) -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(3), policy=PeakEwma(decay_time=decay_time), seed=1, clock=clock)
    nodes = {each.address: Node(decay_time=decay_time) for each in cluster.endpoints}
    flying: list[tuple[Lease, int]] = []
    mean = failing = 0.0
    for what, which, seconds in script:
        clock.advance(seconds)
        if what == "send":
            flying.append((lease_of(cluster, address(which)), clock.now))
            nodes[address(which)].active += 1
        elif what != "wait" and flying:
            lease, sent = flying.pop(which % len(flying))
            node = nodes[lease.endpoint.address]
            node.active -= 1
            if what != "drop":
                latency = max(clock.now - sent, 1) / 1e9
                node.observe(latency, clock.now / 1e9, mean, ok=what == "answer")
                failing += ((0.0 if what == "answer" else 1.0) - failing) / 1000
                if what == "answer":
                    mean += (node.estimate - mean) / (1000 if mean else 1)
                lease.done(what == "answer")
            del lease
        expected = {name: node.score(clock.now / 1e9, failing) * 1e9 for name, node in nodes.items()}
        assert scores(cluster) == pytest.approx(expected, rel=1e-6)


def test_a_full_scan_takes_the_least_of_latency_and_load() -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(3), policy=SCAN, seed=1, clock=clock)
    for number, latency in enumerate((0.030, 0.010, 0.020)):
        answer(cluster, clock, address(number), latency)
    picked = [cluster.acquire() for _ in range(3)]
    # 10 ms, then 20 ms (either), then the other of 20 ms
    assert Counter(each.endpoint.address for each in picked) == {address(1): 2, address(2): 1}


def test_a_slow_answer_counts_at_once_and_quick_ones_take_their_time() -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(1), policy=PeakEwma(decay_time=10.0), seed=1, clock=clock)
    answer(cluster, clock, address(0), 0.010)
    answer(cluster, clock, address(0), 0.500)
    assert scores(cluster)[address(0)] == pytest.approx(0.5e9)
    answer(cluster, clock, address(0), 0.010)
    assert scores(cluster)[address(0)] == pytest.approx(0.5e9, rel=0.01)
    clock.advance(10.0)
    answer(cluster, clock, address(0), 0.010)
    assert scores(cluster)[address(0)] == pytest.approx(0.5e9 / 2.718 + 0.01e9 * 0.632, rel=0.01)


def test_a_latency_given_by_the_caller_is_taken_instead_of_the_measured_one() -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(1), policy=SCAN, seed=1, clock=clock)
    lease = cluster.acquire()
    clock.advance(3.0)
    lease.done(latency=0.25)
    assert scores(cluster)[address(0)] == pytest.approx(0.25e9)


def test_one_request_tries_an_endpoint_whose_estimate_has_decayed() -> None:
    clock = VirtualClock()
    cluster = Cluster(
        "ewma", fleet(2), policy=PeakEwma(selection_method="full_scan", decay_time=1.0), seed=1, clock=clock
    )
    answer(cluster, clock, address(0), 2.0)
    for _ in range(3000):
        answer(cluster, clock, address(1), 0.1)
    busy = [cluster.acquire() for _ in range(8)]
    counts = Counter(each.endpoint.address for each in busy)
    assert counts == {address(0): 1, address(1): 7}


def test_an_endpoint_that_fails_fast_draws_no_traffic() -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(10), policy=SCAN, seed=1, clock=clock)
    counts: Counter[str] = Counter()
    for _ in range(2000):
        lease = cluster.acquire()
        counts[lease.endpoint.address] += 1
        broken = lease.endpoint.address == address(0)
        clock.advance(0.0001 if broken else 0.01)
        lease.done(not broken)
    assert counts[address(0)] <= counts.total() / 100


def test_where_all_fail_alike_nobody_is_avoided() -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(10), policy=SCAN, seed=1, clock=clock)
    counts: Counter[str] = Counter()
    for number in range(6000):
        lease = cluster.acquire()
        counts[lease.endpoint.address] += number >= 3000
        clock.advance(0.01)
        lease.done(number % 2 == 0)
    assert min(counts.values()) > 100


def test_without_an_error_penalty_failures_only_do_not_help() -> None:
    clock = VirtualClock()
    policy = PeakEwma(selection_method="full_scan", error_penalty=0.0)
    cluster = Cluster("ewma", fleet(2), policy=policy, seed=1, clock=clock)
    for number in (0, 1):
        answer(cluster, clock, address(number), 0.010)
    answer(cluster, clock, address(0), 0.001, ok=False)
    assert scores(cluster)[address(0)] == pytest.approx(0.010e9, rel=0.01)


def test_unknown_endpoints_are_tried_once_each_before_a_second_request_goes_to_one() -> None:
    cluster = Cluster("ewma", fleet(5), policy=SCAN, seed=1, clock=VirtualClock())
    leases = [cluster.acquire() for _ in range(5)]
    assert len({each.endpoint.address for each in leases}) == 5


def test_an_update_keeps_estimates_and_a_new_address_starts_without() -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(2), policy=SCAN, seed=1, clock=clock)
    answer(cluster, clock, address(0), 0.2)
    cluster.update(fleet(3))
    assert scores(cluster)[address(0)] == pytest.approx(0.2e9)
    cluster.update(fleet(3)[1:])
    cluster.update(fleet(3))
    assert scores(cluster)[address(0)] == pytest.approx(0.01e9)


def test_picks_without_acquire_spread_over_equals() -> None:
    cluster = Cluster("ewma", fleet(4), policy=SCAN, seed=1)
    counts = Counter(cluster.pick().address for _ in range(400))
    assert min(counts.values()) > 50
    assert len(counts) == 4


@pytest.mark.parametrize("way", ["pick", "pick_many"])
def test_picks_that_nobody_counts_are_shared_out_by_cost(way: str) -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(4), policy=SCAN, seed=1, clock=clock)
    for number, latency in enumerate((0.010, 0.011, 0.040, 0.010)):
        answer(cluster, clock, address(number), latency)
    held = lease_of(cluster, address(3))
    if way == "pick_many":
        picked = Counter(cluster.endpoints[i].address for i in cluster.pick_many(8000).tolist())
    else:
        picked = Counter(cluster.pick().address for _ in range(8000))
    costs = {address(0): 0.010, address(1): 0.011, address(2): 0.040, address(3): 2 * 0.010}
    whole = sum(1.0 / each for each in costs.values())
    assert_follows(picked, {name: 1.0 / each / whole for name, each in costs.items()})
    held.done()


@pytest.mark.parametrize("in_flight", [0, 1, 5])
def test_requests_go_to_the_least_however_many_picks_there_were(in_flight: int) -> None:
    clock = VirtualClock()
    cluster = Cluster("ewma", fleet(3), policy=SCAN, seed=1, clock=clock)
    for number, latency in enumerate((0.030, 0.001, 0.030)):
        answer(cluster, clock, address(number), latency)
    held = [lease_of(cluster, address(0)) for _ in range(in_flight)]
    for _ in range(20):
        cluster.pick()
    cluster.acquire().done(latency=0.001)  # may be any, and is counted
    for _ in range(50):
        cluster.explain()
        with cluster.acquire() as endpoint:
            clock.advance(0.001)
            assert endpoint.address == address(1)
    leases = []
    for _ in range(12):
        cluster.explain()
        leases.append(cluster.acquire())
    assert {lease.endpoint.address for lease in leases} == {address(1)}
    assert len(held) == in_flight


def test_weights_divide_the_cost() -> None:
    cluster = Cluster("ewma", fleet(2, weights=(1, 3)), policy=SCAN, seed=1, clock=VirtualClock())
    by_score = scores(cluster)
    assert by_score[address(0)] == pytest.approx(3 * (by_score[address(1)] or 0.0))
