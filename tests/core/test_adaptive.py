"""Adaptive: the least expected delay, learned of each endpoint's answers, failures, silence and reports."""

from __future__ import annotations

import gc
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import (
    Adaptive,
    Cluster,
    Endpoint,
    FleetLearned,
    Health,
    InvalidSetting,
    Learned,
    Lease,
    LoadReport,
    LocalityWeighted,
    RoundRobin,
    SlowStart,
    Subsets,
    SubsetSelector,
    VirtualClock,
)
from tests.core.chi_square import assert_follows
from tests.core.fleets import address, fleet


def cluster_of(count: int, *, weights: tuple[int, ...] = (1,), policy: Adaptive | None = None) -> Cluster:
    return Cluster("adaptive", fleet(count, weights), policy=policy or Adaptive(), seed=7, clock=VirtualClock())


def scores(cluster: Cluster) -> dict[str, float]:
    found = cluster.explain().candidates
    assert all(each.score is not None for each in found)
    return {each.endpoint.address: each.score or 0.0 for each in found}


def lease_of(cluster: Cluster, name: str) -> Lease:
    return cluster.acquire(exclude=[each for each in cluster.endpoints if each.address != name])


def serve(cluster: Cluster, clock: VirtualClock, service: dict[str, float], requests: int) -> Counter[str]:
    """One request at a time, each endpoint as slow as `service` says; a negative time fails after it."""
    counts: Counter[str] = Counter()
    for _ in range(requests):
        lease = cluster.acquire()
        counts[lease.endpoint.address] += 1
        seconds = service.get(lease.endpoint.address, 0.01)
        clock.advance(abs(seconds))
        lease.done(seconds >= 0.0)
    return counts


def test_it_is_what_a_cluster_does_unless_told_otherwise() -> None:
    assert Cluster("web").policy == Adaptive()


@given(st.integers(1, 200), st.integers(1, 400), st.integers(0, 2**32))
@settings(max_examples=60)
def test_equal_endpoints_are_kept_level(count: int, requests: int, seed: int) -> None:
    cluster = Cluster("level", fleet(count), policy=Adaptive(), seed=seed, clock=VirtualClock())
    leases = [cluster.acquire() for _ in range(requests)]
    counts = Counter(lease.endpoint.address for lease in leases)
    held = [counts[each.address] for each in cluster.endpoints]
    assert max(held) - min(held) <= 1


def test_ties_are_broken_evenly_over_blocks_of_the_scoreboard() -> None:
    cluster = cluster_of(70)
    busy = [lease_of(cluster, address(number)) for number in range(1, 64)]
    counts = Counter(cluster.acquire().endpoint.address for _ in range(21_000))  # dropped at once: nothing is learned
    assert_follows(counts, {address(number): 1 / 7 for number in (0, *range(64, 70))})
    assert len(busy) == 63


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["answer", "fail", "drop", "report"]), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.integers(0, 200)),
        st.tuples(st.sampled_from(["leave", "come", "down", "up"]), st.integers(0, 39)),
    ),
    max_size=80,
)


@given(steps, st.integers(0, 2**32))
@settings(deadline=None)
def test_the_least_score_is_picked_whatever_has_happened(script: list[tuple[str, int]], seed: int) -> None:
    """The board's two rounds find the least of all, in the cluster and in a view that scans."""
    clock = VirtualClock()
    everyone = [
        Endpoint(address(i), locality=("a", "b")[i % 2], priority=i // 36, metadata={"odd": i % 2}) for i in range(40)
    ]
    subsets = Subsets(selectors=(SubsetSelector(keys=("odd",)),))
    cluster = Cluster("board", everyone, policy=Adaptive(), seed=seed, clock=clock, subsets=subsets)
    view = cluster.subset({"odd": 1})
    flying: list[Lease] = []
    for what, number in script:
        names = [each.address for each in cluster.endpoints]
        if what == "send":
            flying += [(view if number else cluster).acquire() for _ in range(number + 1)]
        elif what == "wait":
            clock.advance(number / 10_000)
        elif what == "leave":
            cluster.update([each for each in cluster.endpoints if each.address != address(number)] or everyone)
        elif what == "come":
            cluster.update(everyone)
        elif what in ("down", "up") and address(number) in names:
            cluster.set_health(address(number), what == "up")
        elif flying:
            lease = flying.pop(number % len(flying))
            if what == "report":
                lease.done(load=LoadReport(rif=number % 7))
            elif what != "drop":
                lease.done(what == "answer")
            del lease
        for picker in (cluster, view):
            explained = picker.explain()
            least = min(each.score for each in explained.candidates if each.score is not None)
            winner = next(each for each in explained.candidates if each.endpoint is explained.winner)
            assert winner.score == least


def test_a_slow_endpoint_gets_what_it_can_carry() -> None:
    clock = VirtualClock()
    cluster = Cluster("slow", fleet(4), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.1}, 400)
    by_score = scores(cluster)
    assert by_score[address(0)] > 2 * by_score[address(1)]
    counts = serve(cluster, clock, {address(0): 0.1}, 1000)
    assert counts[address(0)] < 30


def test_an_endpoint_that_recovers_returns() -> None:
    clock = VirtualClock()
    cluster = Cluster("recovers", fleet(4), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.1}, 1000)
    serve(cluster, clock, {}, 3100)  # half a minute
    assert serve(cluster, clock, {}, 1000)[address(0)] > 200


def test_nothing_is_forgotten_sooner_than_it_could_be_learned_anew() -> None:
    clock = VirtualClock()
    policy = Adaptive(recovery_time=0.1, memory=50.0)
    cluster = Cluster("rare", fleet(20), policy=policy, seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.05}, 2000)
    # A round of requests takes 0.2 s, so what 50 of them say of each is worth at least 10 s.
    assert serve(cluster, clock, {address(0): 0.05}, 2000)[address(0)] <= 5


def test_a_pause_of_traffic_does_not_put_off_what_is_to_be_tried_again() -> None:
    clock = VirtualClock()
    cluster = Cluster("pause", fleet(4), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.1}, 1000)
    for _ in range(3):
        clock.advance(3600.0)
        serve(cluster, clock, {address(0): 0.1}, 1000)
    serve(cluster, clock, {}, 5000)
    assert serve(cluster, clock, {}, 1000)[address(0)] > 200


@pytest.mark.parametrize("way", ["pick", "pick_many"])
def test_picks_that_nobody_counts_go_round_by_speed(way: str) -> None:
    clock = VirtualClock()
    cluster = Cluster("uncounted", fleet(4), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.03}, 1000)
    held = lease_of(cluster, address(3))
    if way == "pick_many":
        picked = Counter(cluster.endpoints[i].address for i in cluster.pick_many(7000).tolist())
    else:
        picked = Counter(cluster.pick().address for _ in range(7000))
    assert picked[address(1)] == pytest.approx(picked[address(2)], rel=0.05)
    assert 0.2 < picked[address(0)] / picked[address(1)] < 0.7
    assert picked[address(3)] == 0
    held.done()


def test_one_that_looks_before_it_sends_sees_the_least_loaded() -> None:
    clock = VirtualClock()
    cluster = Cluster("looks", fleet(10), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.05}, 500)
    for _ in range(200):
        assert cluster.pick().address != address(0)
        with cluster.acquire():
            clock.advance(0.01)


def test_an_explanation_leaves_picks_as_they_would_be() -> None:
    clusters = [cluster_of(5), cluster_of(5)]
    picked = []
    for cluster in clusters:
        names = []
        for _ in range(20):
            if cluster is clusters[0]:
                cluster.explain()
            names.append(cluster.pick().address)
        picked.append(names)
    assert picked[0] == picked[1]


def test_what_was_learned_is_told() -> None:
    clock = VirtualClock()
    cluster = Cluster("learned", fleet(4), policy=Adaptive(), seed=1, clock=clock)
    before = cluster.stats()
    assert before.learned == FleetLearned(latency=None, workers=1.0, doubt=None, patience=10.0, failing=0.0)
    assert before.endpoints[0].learned == Learned(
        latency=None, ratio=1.0, samples=0.0, queue=0.0, reported=None, failing=0.0
    )
    serve(cluster, clock, {address(0): 0.1}, 400)
    lease_of(cluster, address(2)).done(latency=0.01, load=LoadReport(rif=3))
    stats = cluster.stats()
    slow, quick, reporting, _ = (each.learned for each in stats.endpoints if each.learned)
    assert 0.03 < (slow.latency or 0.0) <= 0.1
    assert quick.latency == pytest.approx(0.01, rel=0.1)
    assert slow.ratio > 2 > quick.ratio
    assert (reporting.queue, reporting.reported, quick.reported) == (3.0, 3.0, None)
    assert [each.learned for each in cluster.explain().candidates] == [each.learned for each in stats.endpoints]
    assert f"{quick.ratio:.2f} x the fleet's latency" in str(cluster.explain())
    assert Cluster("other", fleet(2), policy=RoundRobin()).stats().learned is None


def test_an_endpoint_that_fails_fast_gets_next_to_nothing() -> None:
    clock = VirtualClock()
    cluster = Cluster("sinkhole", fleet(100), policy=Adaptive(), seed=1, clock=clock)
    counts = serve(cluster, clock, {address(0): -0.0001}, 20_000)
    assert counts[address(0)] <= 20  # of 200


def test_an_endpoint_that_never_answers_is_left_alone() -> None:
    clock = VirtualClock()
    cluster = Cluster("silent", fleet(4), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {}, 400)
    stuck = []
    for _ in range(2000):
        lease = cluster.acquire()
        if lease.endpoint.address == address(0):
            stuck.append(lease)
        else:
            clock.advance(0.01)
            lease.done()
    assert len(stuck) <= 2


def test_reports_count_what_other_clients_have_sent() -> None:
    clock = VirtualClock()
    cluster = Cluster("reports", fleet(2), policy=Adaptive(), seed=1, clock=clock)
    first, second = lease_of(cluster, address(0)), lease_of(cluster, address(1))
    clock.advance(0.01)
    first.done(load=LoadReport(rif=4))
    second.done(load=LoadReport(rif=0))
    sent = Counter(cluster.acquire().endpoint.address for _ in range(1))
    assert sent == {address(1): 1}


def test_what_was_sent_since_a_report_counts_too() -> None:
    clock = VirtualClock()
    cluster = Cluster("reports", fleet(2), policy=Adaptive(), seed=1, clock=clock)
    for number, rif in enumerate((4, 0)):
        lease = lease_of(cluster, address(number))
        clock.advance(0.01)
        lease.done(load=LoadReport(rif=rif))
    leases = [cluster.acquire() for _ in range(10)]
    assert Counter(lease.endpoint.address for lease in leases) in (
        {address(1): 7, address(0): 3},
        {address(1): 6, address(0): 4},
        {address(1): 8, address(0): 2},
    )


def test_a_report_of_a_long_queue_fades_while_nobody_looks_again() -> None:
    clock = VirtualClock()
    cluster = Cluster("reports", fleet(2), policy=Adaptive(), seed=1, clock=clock)
    for number, rif in enumerate((50, 0)):
        lease = lease_of(cluster, address(number))
        clock.advance(0.01)
        lease.done(load=LoadReport(rif=rif))
    for _ in range(300):
        clock.advance(1.0)
        cluster.pick()
    assert scores(cluster)[address(0)] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("way", ["pick", "acquire and done", "pick_many"])
def test_weights_are_shares_while_nobody_is_busy(way: str) -> None:
    cluster = cluster_of(3, weights=(1, 2, 7))
    if way == "pick_many":
        counts = Counter(cluster.endpoints[i].address for i in cluster.pick_many(1000).tolist())
    else:
        counts = Counter()
        for _ in range(1000):
            if way == "pick":
                counts[cluster.pick().address] += 1
            else:
                with cluster.acquire() as endpoint:
                    counts[endpoint.address] += 1
    assert counts == {address(0): 100, address(1): 200, address(2): 700}


def test_weights_are_shares_of_the_requests_in_flight_under_load() -> None:
    cluster = cluster_of(3, weights=(1, 2, 7))
    leases = [cluster.acquire() for _ in range(1000)]
    counts = Counter(lease.endpoint.address for lease in leases)
    assert [counts[address(i)] for i in range(3)] == pytest.approx([100, 200, 700], abs=3)


def test_slow_start_lets_a_new_endpoint_in_by_degrees() -> None:
    clock = VirtualClock()
    policy = Adaptive(slow_start=SlowStart(100.0))
    cluster = Cluster("ramp", fleet(4), policy=policy, seed=1, clock=clock)
    clock.advance(200.0)
    cluster.update(fleet(5))
    clock.advance(50.0)
    leases = [cluster.acquire() for _ in range(90)]
    counts = Counter(lease.endpoint.address for lease in leases)
    assert counts[address(4)] == pytest.approx(10, abs=1)


def test_a_retry_goes_to_the_best_of_the_others() -> None:
    cluster = cluster_of(50)
    busy = [lease_of(cluster, address(number)) for number in range(2, 50)]
    assert cluster.pick(exclude=address(0)).address == address(1)
    assert {each.address for each in cluster.rank(None, 2)} == {address(0), address(1)}
    assert len(busy) == 48


def test_an_update_keeps_counts_and_what_was_learned() -> None:
    clock = VirtualClock()
    cluster = Cluster("update", fleet(3), policy=Adaptive(), seed=1, clock=clock)
    serve(cluster, clock, {address(0): 0.1}, 300)
    held = [lease_of(cluster, address(1)) for _ in range(3)]
    cluster.update(fleet(40))
    after = scores(cluster)
    assert after[address(0)] > 2 * after[address(2)]
    assert [each.active for each in cluster.stats().endpoints][:3] == [0, 3, 0]
    assert len(held) == 3


def test_a_lease_may_outlive_its_endpoint_and_its_cluster() -> None:
    cluster = cluster_of(2)
    leases = [cluster.acquire() for _ in range(4)]
    cluster.update(fleet(1))
    for lease in leases[:2]:
        lease.done(load=LoadReport(rif=1))
    del cluster
    gc.collect()
    leases[2].done(load=LoadReport(rif=1))
    del leases


def test_localities_priorities_and_panic_are_as_for_every_policy() -> None:
    endpoints = [
        Endpoint(address(i), locality=("a", "b")[i % 2], priority=i // 8, health=Health.HEALTHY) for i in range(16)
    ]
    cluster = Cluster("places", policy=Adaptive(), locality_policy=LocalityWeighted(), seed=1)
    cluster.update(endpoints, locality_weights={"a": 3, "b": 1})
    counts = Counter(str(cluster.pick().locality) for _ in range(400))
    assert counts == {"a": 300, "b": 100}
    for number in range(8):
        cluster.set_health(address(number), False)
    assert {cluster.pick().priority for _ in range(50)} == {1}


def test_a_handle_shares_what_the_cluster_has_learned() -> None:
    cluster = cluster_of(4)
    handle = cluster.handle()
    leases = [handle.acquire() for _ in range(4)] + [cluster.acquire() for _ in range(4)]
    assert set(Counter(lease.endpoint.address for lease in leases).values()) == {2}
    cluster.update(fleet(5))
    assert handle.acquire().endpoint.address == address(4)


def test_new_endpoints_of_a_fleet_that_reports_are_not_stampeded() -> None:
    first = 0
    for seed in range(50):  # clients
        clock = VirtualClock()
        cluster = Cluster("join", fleet(20), policy=Adaptive(), seed=seed, clock=clock)
        for _ in range(60):
            lease = cluster.acquire()
            clock.advance(0.001)
            lease.done(load=LoadReport(rif=3))
        cluster.update(fleet(21))
        first += cluster.acquire().endpoint.address == address(20)
    assert first <= 10


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3)])
def test_answers_too_quick_to_tell_apart_share_by_weight(weights: tuple[int, ...]) -> None:
    cluster = cluster_of(6, weights=weights)
    counts: Counter[int] = Counter()
    for turn in range(600 * sum(weights)):
        lease = cluster.acquire()
        counts[int(lease.endpoint.weight)] += 1
        lease.done(latency=(turn * 2654435761 % 1000 + 1) * 4e-8)  # 40 ns to 40 us, in no order
    assert counts == {weight: 600 * weight for weight in weights}


@pytest.mark.parametrize("memory", [4.9, 1000.1, float("nan")])
def test_a_memory_that_does_not_do_is_refused(memory: float) -> None:
    with pytest.raises(InvalidSetting, match=r"memory.*5"):
        Adaptive(memory=memory)


def test_the_only_endpoint_that_reports_is_used_again_after_a_busy_moment() -> None:
    clock = VirtualClock()
    cluster = Cluster("mixed", fleet(2), policy=Adaptive(), seed=7, clock=clock)
    random = Random(1)
    lease_of(cluster, address(0)).done(latency=0.05, load=LoadReport(rif=5))
    counts: Counter[str] = Counter()
    for _ in range(2000):
        lease = cluster.acquire()
        counts[lease.endpoint.address] += 1
        clock.advance(random.expovariate(20.0))
        lease.done()
    assert counts[address(0)] > 600
