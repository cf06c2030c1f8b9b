"""Adaptive and failures: what one endpoint alone fails counts against it, what all fail counts against nobody."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

import pytest

from lbcore import Adaptive, Cluster, Lease, VirtualClock
from tests.core.fleets import address, fleet

START = 1_000_000_000  # ns, of a VirtualClock
SERVICE = 0.01  # seconds, on average, of a request that succeeds
# Endpoints, and how many requests a client has in flight at any time: one, as many as endpoints, twice as many.
FLEETS = [(2, 1), (2, 4), (3, 1), (3, 3), (3, 6), (10, 1), (10, 20), (50, 1), (50, 100)]


@dataclass(frozen=True)
class Sent:
    at: float
    server: int
    ok: bool


@dataclass(frozen=True)
class Run:
    cluster: Cluster
    sent: list[Sent]

    def shares(self, after: float = 0.0, until: float = math.inf) -> list[float]:
        """Of the traffic between two times, by endpoint; 1.0 is a fair share."""
        counts = Counter(each.server for each in self.sent if after <= each.at < until)
        size = len(self.cluster.endpoints)
        return [counts[number] * size / counts.total() for number in range(size)]


def run(
    servers: int, in_flight: int, until: float, failing: Callable[[int, float], float], *, takes: float = 0.0005
) -> Run:
    """A client with so many requests in flight, servers that serve one after the other, and fail a share at once."""
    clock = VirtualClock()
    random = Random(1)
    cluster = Cluster("failures", fleet(servers), policy=Adaptive(), seed=1, clock=clock)
    numbers = {each.address: number for number, each in enumerate(cluster.endpoints)}
    free = [0.0] * servers
    sent: list[Sent] = []
    flying: list[tuple[float, int, Lease, bool]] = []
    serial = count()
    now = 0.0
    while now < until:
        while len(flying) < in_flight:
            lease = cluster.acquire()
            server = numbers[lease.endpoint.address]
            ok = random.random() >= failing(server, now)
            if ok:
                free[server] = max(free[server], now) + random.expovariate(1 / SERVICE)
            heapq.heappush(flying, (free[server] if ok else now + takes, next(serial), lease, ok))
            sent.append(Sent(now, server, ok))
        now, _, lease, ok = heapq.heappop(flying)
        clock.now = START + round(now * 1e9)
        lease.done(ok)
    return Run(cluster, sent)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize(("servers", "in_flight"), [(2, 1), (2, 4), (3, 1), (3, 6), (10, 1), (10, 20), (50, 1)])
def test_where_all_fail_alike_picks_stay_balanced(servers: int, in_flight: int, share: float) -> None:
    seconds = 100.0 * servers / min(in_flight, servers)
    fate = run(servers, in_flight, min(seconds, 600.0), lambda *_: share)
    assert min(fate.shares()) > 0.8
    assert max(fate.shares()) < 1.2
    stats = fate.cluster.stats()
    assert stats.learned is not None
    assert stats.learned.failing == pytest.approx(share, abs=0.08)
    assert stats.learned.latency == pytest.approx(SERVICE, rel=0.6)
    assert all(each.learned and each.learned.ratio < 10.0 for each in stats.endpoints)


@pytest.mark.parametrize(("servers", "in_flight"), FLEETS)
@pytest.mark.parametrize("since", [0.0, 5.0], ids=["cold", "after a while"])
def test_one_that_fails_fast_is_left_within_a_few_requests(servers: int, in_flight: int, since: float) -> None:
    fate = run(servers, in_flight, 30.0, lambda server, now: float(server == 0 and now >= since))
    after = [each for each in fate.sent if each.at >= since]
    wasted = sum(not each.ok for each in after)
    assert sum(not each.ok for each in after[: 20 * in_flight]) <= 5
    assert wasted <= max(20, len(after) / 200)


@pytest.mark.parametrize(("servers", "in_flight"), FLEETS)
@pytest.mark.parametrize(
    ("lasts", "takes"), [(0.2, 0.0005), (5.0, 0.005), (60.0, 0.05), (60.0, 1.0)], ids=["0.2", "5", "60", "time-outs"]
)
def test_after_an_outage_of_all_everyone_has_a_fair_share_within_seconds(
    servers: int, in_flight: int, lasts: float, takes: float
) -> None:
    end = 5.0 + lasts
    fate = run(servers, in_flight, end + 13.0, lambda _, now: float(5.0 <= now < end), takes=takes)
    assert min(fate.shares(end + 3.0)) > 0.5
    assert max(fate.shares(end + 3.0)) < 1.5


def test_a_failure_counts_before_any_time_has_passed() -> None:
    clock = VirtualClock()
    cluster = Cluster("at once", fleet(2), policy=Adaptive(), seed=1, clock=clock)
    for _ in range(100):
        lease = cluster.acquire()
        clock.advance(SERVICE)
        lease.done()
    others = [each for each in cluster.endpoints if each.address != address(0)]
    for _ in range(3):
        cluster.acquire(exclude=others).done(ok=False)
    busy = [cluster.acquire() for _ in range(3)]
    assert {lease.endpoint.address for lease in busy} == {address(1)}


def test_failures_are_no_sign_of_speed() -> None:
    latencies = []
    for takes in (0.0001, 5.0):
        fate = run(2, 1, 600.0, lambda server, _: 0.2 * (server == 0), takes=takes)
        learned = fate.cluster.stats().endpoints[0].learned
        assert learned is not None
        latencies.append(learned.latency)
    assert latencies == [pytest.approx(SERVICE, rel=0.7)] * 2


def test_one_that_fails_half_of_the_time_among_others_that_fail_a_tenth_is_spared() -> None:
    fate = run(10, 5, 200.0, lambda server, _: 0.5 if server == 0 else 0.1)
    assert fate.shares(20.0)[0] < 0.3
    assert min(fate.shares(20.0)[1:]) > 0.8


def test_who_fails_no_more_is_found_out_in_half_a_minute() -> None:
    fate = run(3, 2, 60.0, lambda server, now: float(server == 0 and now < 10.0))
    assert fate.shares(45.0)[0] > 0.8  # recovery_time x ln(memory) = 30 s after the last request that failed


def test_failures_are_forgotten_when_nobody_has_looked_for_half_a_minute() -> None:
    clock = VirtualClock()
    cluster = Cluster("forgets", fleet(2), policy=Adaptive(), seed=1, clock=clock)
    failing, other = cluster.endpoints
    cluster.acquire(exclude=other).done(ok=False)
    for _ in range(10_000):  # so many that one failure is beyond chance
        cluster.acquire(exclude=failing).done()
        clock.advance(0.0002)
    told = []
    for seconds in (27.0, 4.0):  # recovery_time x ln(memory) is 30 s
        clock.advance(seconds)
        cluster.pick()
        learned = cluster.stats().endpoints[0].learned
        assert learned is not None
        told.append((learned.failing > 0.0, learned.ratio > 1.0))
    assert told == [(True, True), (False, False)]


def test_failures_are_told() -> None:
    fate = run(4, 1, 1.0, lambda server, _: float(server == 0))
    bad, good, *_ = (each.learned for each in fate.cluster.stats().endpoints)
    assert bad is not None
    assert good is not None
    assert bad.failing > 0.1 > good.failing == 0.0
    assert f"{bad.ratio:.2f} x the fleet's latency (fails {bad.failing:.0%} more" in str(fate.cluster.explain())


@pytest.mark.parametrize(("servers", "in_flight"), [(2, 4), (3, 6), (10, 20)])
def test_one_that_stays_broken_after_an_outage_of_all_is_left(servers: int, in_flight: int) -> None:
    """It fails at once and gives most answers of all: what it fails is not usual for that."""
    fate = run(servers, in_flight, 25.0, lambda server, now: float(5.0 <= now < 10.0 or (server == 0 and now >= 5.0)))
    after = [each for each in fate.sent if each.at >= 13.0]
    assert sum(not each.ok for each in after) <= max(20, len(after) / 50)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_what_one_failed_a_while_ago_excuses_no_other(in_flight: int) -> None:
    fate = run(2, in_flight, 30.0, lambda server, now: float(now < 5.0 if server == 0 else now >= 13.0))
    assert sum(not each.ok for each in fate.sent if each.at >= 13.0) <= 20
