"""What once crashed or ruined the core, kept so that it cannot come back."""

from __future__ import annotations

import math
from contextlib import suppress

from lbcore import Adaptive, ClientSideWeightedRoundRobin, Cluster, Endpoint, LoadReport, PeakEwma, VirtualClock

ENDPOINTS = [Endpoint(f"10.0.0.{number}:80") for number in range(1, 5)]


def test_an_explanation_that_makes_a_shorter_schedule_leaves_the_cursor_within_it() -> None:
    clock = VirtualClock()
    policy = ClientSideWeightedRoundRobin(blackout_period=0.0, weight_update_period=1.0)
    cluster = Cluster("web", ENDPOINTS[:2], policy=policy, clock=clock)

    def report(*speeds: float) -> None:
        loads = {
            each.address: LoadReport(rps_fractional=speed, application_utilization=1.0)
            for each, speed in zip(ENDPOINTS, speeds, strict=False)
        }
        for _ in range(20):
            lease = cluster.acquire()
            lease.done(load=loads[lease.endpoint.address])
        clock.advance(2.0)

    report(1.0, 0.7013)
    for _ in range(900):
        cluster.pick()
    for speeds in ((1.0, 1.0), (1.0, 0.7013), (1.0, 1.0)):
        report(*speeds)
        cluster.explain()
        assert cluster.pick() in ENDPOINTS
        for _ in range(900):
            cluster.pick()


def test_failures_of_a_whole_fleet_leave_numbers_behind() -> None:
    clock = VirtualClock()
    cluster = Cluster("web", ENDPOINTS, policy=Adaptive(), clock=clock)

    def serve(requests: int, ok: bool) -> None:
        for _ in range(requests):
            lease = cluster.acquire()
            clock.advance(0.01)
            lease.done(ok)

    serve(5000, ok=False)
    serve(15000, ok=True)
    learned = [each.learned for each in cluster.stats().endpoints]
    assert all(each is not None and math.isfinite(each.latency) and math.isfinite(each.ratio) for each in learned)
    assert min(each.latency for each in learned if each is not None) < 0.1


def test_endpoints_that_are_quick_by_turns_are_never_taken_for_quicker_than_nothing() -> None:
    clock = VirtualClock()
    cluster = Cluster("web", ENDPOINTS[:3], policy=Adaptive(), clock=clock, seed=1)
    for step in range(1000):
        quick = ENDPOINTS[step // 200 % 3].address
        leases = [cluster.acquire() for _ in range(6)]
        clock.advance(0.01)
        for lease in leases:
            lease.done(latency=0.001 if lease.endpoint.address == quick else 0.05)
        assert all(each.learned is None or each.learned.ratio > 0.0 for each in cluster.stats().endpoints), step


def test_a_report_beyond_all_measure_weighs_most_and_not_least() -> None:
    clock = VirtualClock()
    policy = ClientSideWeightedRoundRobin(blackout_period=0.0, weight_update_period=1.0)
    cluster = Cluster("web", ENDPOINTS[:2], policy=policy, clock=clock)
    loads = {
        ENDPOINTS[0].address: LoadReport(rps_fractional=1e300, application_utilization=1e-300),
        ENDPOINTS[1].address: LoadReport(rps_fractional=1.0, application_utilization=1.0),
    }
    for _ in range(4):
        lease = cluster.acquire()
        lease.done(load=loads[lease.endpoint.address])
    clock.advance(2.0)
    assert [cluster.pick() for _ in range(100)].count(ENDPOINTS[0]) >= 99


def test_a_load_that_ends_its_own_request_is_read_in_peace() -> None:
    cluster = Cluster("web", ENDPOINTS, policy=PeakEwma())
    lease = cluster.acquire()

    class Duck:
        def __getattr__(self, name: str) -> object:
            lease.done()
            return {} if name in ("named_metrics", "utilization", "request_cost") else 0.0

    with suppress(TypeError, ValueError):
        lease.done(load=Duck())  # type: ignore[arg-type]
    assert all(each.active == 0 for each in cluster.stats().endpoints)
