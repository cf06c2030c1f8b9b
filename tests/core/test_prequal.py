"""Prequal: the least latency of the probed endpoints that are not hot; what a probe is worth, and for how long."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Adaptive, Cluster, Lease, LoadReport, Prequal, RoundRobin, VirtualClock
from tests.core.fleets import address, fleet
from tests.reference.prequal import Pool

KEEPS = Prequal(removals_per_pick=0.0)  # probes, until they are too old or replaced


def cluster_of(count: int, policy: Prequal = KEEPS, *, weights: tuple[int, ...] = (1,)) -> tuple[Cluster, VirtualClock]:
    clock = VirtualClock()
    return Cluster("prequal", fleet(count, weights), policy=policy, seed=1, clock=clock), clock


def probe(cluster: Cluster, number: int, rif: int, latency: float | None = None) -> None:
    cluster.observe(address(number), LoadReport(rif=rif), latency=latency)


def lease_of(cluster: Cluster, name: str) -> Lease:
    """A request to this endpoint, by excluding all others."""
    return cluster.acquire(exclude=[each for each in cluster.endpoints if each.address != name])


def picked(cluster: Cluster, times: int = 50) -> set[str]:
    return {cluster.pick().address for _ in range(times)}


def scores(cluster: Cluster) -> dict[str, float | None]:
    return {each.endpoint.address: each.score for each in cluster.explain().candidates}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("probe"), st.integers(0, 3), st.sampled_from([0, 1, 2, 5, 40])),
        st.tuples(st.just("send"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([1, 100, 600, 1000]), st.just(0)),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([2, 3, 4]), st.sampled_from([3.0, 4.0, 12.0]), st.sampled_from([0.0, 0.5, 0.84, 1.0]))
def test_scores_and_picks_are_the_reference_s(
    script: list[tuple[str, int, int]], size: int, probes_per_pick: float, quantile: float
) -> None:
    pool = Pool(size, 4, probes_per_pick, quantile)
    if pool.uses % 1 and pool.uses != float("inf"):
        return  # rounded at random
    policy = Prequal(pool_size=size, probes_per_pick=probes_per_pick, hot_quantile=quantile)
    cluster, clock = cluster_of(4, policy)
    flying: list[Lease] = []
    for count, (what, which, rif) in enumerate(script):
        if what == "probe":
            probe(cluster, which, rif, (count + 1) / 64)
            pool.observe(address(which), rif, (count + 1) / 64, clock.now)
        elif what == "send":
            flying.append(lease_of(cluster, address(which)))
            pool.send(address(which))
        elif what == "end" and flying:
            lease = flying.pop(which % len(flying))
            pool.active[lease.endpoint.address] -= 1
            lease.done(latency=0.5)
        elif what == "wait":
            clock.advance(which / 1000)
        expected = {address(i): pool.score(address(i), clock.now) for i in range(4)}
        assert scores(cluster) == pytest.approx(expected, rel=1e-13)
        if sum(each < 4e12 for each in expected.values()) >= 2:
            least = min(expected.values())
            assert expected[cluster.pick().address] == pytest.approx(least, rel=1e-13)


def test_the_cold_endpoint_with_the_least_latency_is_picked_however_idle_a_slower_one() -> None:
    cluster, _ = cluster_of(100)
    for number, (rif, latency) in enumerate([(0, 0.3), (3, 0.1), (4, 0.2), (50, 0.01)]):
        probe(cluster, number, rif, latency)
    # of 0, 3, 4 and 50 the quantile 0.84 is 50: nobody has more
    assert picked(cluster) == {address(3)}
    lease_of(cluster, address(3)).__enter__()
    assert picked(cluster) == {address(1)}  # own sends count: now it has 51


def test_where_all_are_hot_the_fewest_requests_in_flight_decide() -> None:
    cluster, _ = cluster_of(10, Prequal(removals_per_pick=0.0, hot_quantile=0.0))
    probe(cluster, 0, 0, 0.1)
    for number, (rif, latency) in enumerate([(9, 0.001), (3, 0.5), (7, 0.002)]):
        probe(cluster, number, rif, latency)
    assert picked(cluster) == {address(1)}


def test_without_two_fresh_probes_the_less_loaded_of_two_samples_is_picked() -> None:
    cluster, clock = cluster_of(4)
    assert len(picked(cluster, 200)) == 4
    probe(cluster, 0, 0, 0.001)
    assert len(picked(cluster, 200)) == 4
    probe(cluster, 1, 0, 0.002)
    assert picked(cluster) == {address(0)}
    clock.advance(1.001)
    assert len(picked(cluster, 200)) == 4
    leases = [cluster.acquire() for _ in range(400)]
    counts = Counter(each.endpoint.address for each in leases)
    assert max(counts.values()) - min(counts.values()) <= 4


def test_probes_outside_the_group_that_serves_are_not_picked() -> None:
    cluster, _ = cluster_of(10)
    for number in range(4):
        probe(cluster, number, 0, 0.1 + number / 100)
    cluster.set_health(address(0), False)
    assert picked(cluster) == {address(1)}
    assert cluster.pick(exclude=address(1)).address == address(2)
    assert [each.address for each in cluster.rank(None, 3)] == [address(1), address(2), address(3)]


def test_an_endpoint_that_leaves_takes_its_probe_along() -> None:
    cluster, _ = cluster_of(5)
    for number in range(3):
        probe(cluster, number, 0, 0.1 + number / 100)
    cluster.update(fleet(5)[1:])
    assert picked(cluster) == {address(1)}
    cluster.update(fleet(5))
    assert picked(cluster) == {address(1)}
    with pytest.raises(KeyError):
        probe(cluster, 7, 0)


def test_many_changes_of_membership_leave_probes_with_their_endpoints() -> None:
    cluster, clock = cluster_of(40)
    for round_ in range(200):
        first = (round_ * 7) % 40
        cluster.update(fleet(80)[first : first + 40])
        for number in range(first, first + 40, 5):
            probe(cluster, number, round_ % 3, 0.1)
        clock.advance(0.01)
        leases = [cluster.acquire() for _ in range(5)]
        members = {each.address for each in cluster.endpoints}
        assert {each.endpoint.address for each in leases} <= members
        for lease in leases:
            lease.done()
    assert cluster.stats().active == 0


def test_an_endpoint_that_fails_fast_draws_no_traffic() -> None:
    cluster, clock = cluster_of(10)
    counts: Counter[str] = Counter()
    for _ in range(2000):
        for number in range(10):
            probe(cluster, number, 0 if number == 0 else 2, 0.0001 if number == 0 else 0.01)
        lease = cluster.acquire()
        counts[lease.endpoint.address] += 1
        broken = lease.endpoint.address == address(0)
        clock.advance(0.001)
        lease.done(not broken)
    assert counts[address(0)] < counts.total() / 20


def test_the_clusters_own_latencies_stand_in_where_a_probe_says_none() -> None:
    cluster, _ = cluster_of(2)
    for number, latency in enumerate((0.2, 0.1)):
        lease_of(cluster, address(number)).done(latency=latency)
        probe(cluster, number, 1)
    assert scores(cluster) == pytest.approx({address(0): 0.2, address(1): 0.1})


def test_one_probe_a_request_goes_in_turn_the_worst_and_the_oldest() -> None:
    cluster, clock = cluster_of(100, Prequal(probes_per_pick=1000.0, reuse_slack=1e6))
    for number, latency in enumerate((0.2, 0.1, 0.4, 0.3)):
        probe(cluster, number, 0, latency)
        clock.advance(0.001)
    gone = []
    before = {name for name, score in scores(cluster).items() if score and score < 1e12}
    for _ in range(2):
        lease_of(cluster, address(99))
        after = {name for name, score in scores(cluster).items() if score and score < 1e12}
        gone += before - after
        before = after
    assert gone == [address(2), address(0)]


def test_adaptive_takes_requests_in_flight_from_probes() -> None:
    cluster = Cluster("web", fleet(3), policy=Adaptive(), seed=1, clock=VirtualClock())
    for number, rif in enumerate((5, 0, 9)):
        probe(cluster, number, rif)
    assert {cluster.acquire().endpoint.address for _ in range(20)} == {address(1)}  # each dropped before the next


def test_policies_that_ask_for_no_probes_take_no_notice() -> None:
    cluster = Cluster("web", fleet(3), policy=RoundRobin(), seed=1)
    probe(cluster, 1, 5, 0.1)
    assert len(picked(cluster, 3)) == 3


@pytest.mark.parametrize(
    ("name", "load", "latency", "error", "message"),
    [
        ("10.9.9.9:1", LoadReport(rif=1), None, KeyError, "10.9.9.9"),
        (address(0), LoadReport(), None, ValueError, "rif"),
        (address(0), None, None, TypeError, "LoadReport"),
        (address(0), LoadReport(rif=1), -1.0, ValueError, "latency -1.0"),
        (address(0), LoadReport(rif=1), float("nan"), ValueError, "latency nan"),
        (address(0), LoadReport(rif=1), "1", TypeError, "latency '1'"),
        (7, LoadReport(rif=1), None, TypeError, "address 7"),
    ],
)
@pytest.mark.parametrize("policy", [Prequal(), RoundRobin()])
def test_observe_says_what_is_wrong(
    policy: Prequal | RoundRobin, name: str, load: LoadReport, latency: float, error: type[Exception], message: str
) -> None:
    cluster = Cluster("web", fleet(1), policy=policy, seed=1)
    with pytest.raises(error, match=message):
        cluster.observe(name, load, latency=latency)
