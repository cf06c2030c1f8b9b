"""ClientSideWeightedRoundRobin: weights of the endpoints' own reports, when they count, when they are made anew."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lbcore import ClientSideWeightedRoundRobin, Cluster, InvalidSetting, LoadReport, VirtualClock
from tests.core.fleets import address, fleet

QUICK = ClientSideWeightedRoundRobin(blackout_period=0.0)


def report(cluster: Cluster, number: int, **fields: Any) -> None:
    others = [each for each in cluster.endpoints if each.address != address(number)]
    cluster.acquire(exclude=others).done(load=LoadReport(**fields))


def shares(cluster: Cluster, picks: int = 1000) -> list[int]:
    counts = Counter(cluster.pick().address for _ in range(picks))
    return [counts[each.address] for each in cluster.endpoints]


def cluster_of(count: int, policy: ClientSideWeightedRoundRobin = QUICK) -> tuple[Cluster, VirtualClock]:
    clock = VirtualClock()
    return Cluster("wrr", fleet(count), policy=policy, seed=1, clock=clock), clock


def test_weights_are_requests_over_utilization() -> None:
    cluster, clock = cluster_of(3)
    for number, utilization in enumerate((0.2, 0.4, 0.8)):
        report(cluster, number, rps_fractional=100.0, application_utilization=utilization)
    clock.advance(1.0)
    assert shares(cluster, 700) == pytest.approx([400, 200, 100], abs=3)


def test_errors_add_to_utilization() -> None:
    cluster, clock = cluster_of(2)
    report(cluster, 0, rps_fractional=100.0, application_utilization=0.5)
    report(cluster, 1, rps_fractional=100.0, application_utilization=0.5, eps=50.0)
    clock.advance(1.0)
    assert shares(cluster, 300) == pytest.approx([200, 100], abs=3)


def test_application_utilization_goes_before_that_of_the_cpu_and_named_metrics_before_both() -> None:
    policy = ClientSideWeightedRoundRobin(
        blackout_period=0.0, metric_names_for_computing_utilization=["named_metrics.a", "named_metrics.b"]
    )
    cluster, clock = cluster_of(3, policy)
    report(cluster, 0, rps_fractional=100.0, cpu_utilization=0.2)
    report(cluster, 1, rps_fractional=100.0, cpu_utilization=0.9, application_utilization=0.4)
    report(cluster, 2, rps_fractional=100.0, application_utilization=0.1, named_metrics={"a": 0.8, "b": 0.3})
    clock.advance(1.0)
    assert shares(cluster, 700) == pytest.approx([400, 200, 100], abs=3)


def test_an_endpoint_without_a_weight_gets_the_mean() -> None:
    cluster, clock = cluster_of(3)
    report(cluster, 0, rps_fractional=100.0, application_utilization=0.25)
    report(cluster, 1, rps_fractional=100.0, application_utilization=0.5)
    report(cluster, 2, rps_fractional=100.0)
    clock.advance(1.0)
    assert shares(cluster, 900) == pytest.approx([400, 200, 300], abs=4)


def test_with_fewer_than_two_weights_it_is_round_robin_by_the_endpoints_own() -> None:
    clock = VirtualClock()
    cluster = Cluster("wrr", fleet(2, weights=(1, 3)), policy=QUICK, seed=1, clock=clock)
    report(cluster, 0, rps_fractional=100.0, application_utilization=0.1)
    clock.advance(1.0)
    assert shares(cluster, 400) == [100, 300]


def test_reports_count_after_the_blackout_and_until_they_expire() -> None:
    cluster, clock = cluster_of(2, ClientSideWeightedRoundRobin())
    for second in range(12):
        for number, utilization in enumerate((0.2, 0.8)):
            report(cluster, number, rps_fractional=100.0, application_utilization=utilization)
        if second == 5:
            assert shares(cluster, 100) == pytest.approx([50, 50], abs=1)
        clock.advance(1.0)
    assert shares(cluster, 500) == pytest.approx([400, 100], abs=3)
    clock.advance(200.0)
    assert shares(cluster, 100) == pytest.approx([50, 50], abs=1)


@pytest.mark.parametrize("how", ["tick", "pick"])
def test_new_weights_come_once_in_the_update_period(how: str) -> None:
    cluster, clock = cluster_of(2)
    assert shares(cluster, 10) == [5, 5]
    report(cluster, 0, rps_fractional=100.0, application_utilization=0.2)
    report(cluster, 1, rps_fractional=100.0, application_utilization=0.8)
    assert shares(cluster, 10) == [5, 5]
    clock.advance(1.0)
    if how == "tick":
        cluster.tick()
    assert shares(cluster, 500) == pytest.approx([400, 100], abs=3)


def test_a_handle_follows_the_weights() -> None:
    cluster, clock = cluster_of(2)
    handle = cluster.handle()
    for number, utilization in enumerate((0.2, 0.8)):
        report(cluster, number, rps_fractional=100.0, application_utilization=utilization)
    clock.advance(1.0)
    counts = Counter(handle.pick().address for _ in range(500))
    assert counts[address(0)] == pytest.approx(400, abs=3)


@pytest.mark.parametrize("name", ["cpu", "named_metrics.", "rps_fractional", 3])
def test_a_metric_that_no_report_has_is_refused(name: Any) -> None:
    with pytest.raises(InvalidSetting, match="metric_names_for_computing_utilization"):
        ClientSideWeightedRoundRobin(metric_names_for_computing_utilization=[name])
