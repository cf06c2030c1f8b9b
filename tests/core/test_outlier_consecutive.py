"""Failures in a row eject at once: thresholds, what counts as which failure, and who hears of it."""

from __future__ import annotations

import sys

import pytest

from lbcore import (
    Cluster,
    EjectionCause,
    Endpoint,
    Lease,
    NoEndpointAvailable,
    OutlierDetection,
    RoundRobin,
    Subsets,
    SubsetSelector,
)
from tests.core.fleets import POLICIES, address, fleet
from tests.core.outliers import Watched, counts


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_the_threshold_itself_ejects_and_one_less_does_not(threshold: int) -> None:
    watched = Watched(consecutive_5xx=threshold)
    watched.fail(3, threshold - 1)
    assert watched.ejected() == set()
    watched.fail(3)
    assert watched.ejected() == {3}


def test_a_threshold_of_zero_means_never() -> None:
    watched = Watched(consecutive_5xx=0, consecutive_gateway_failure=0)
    watched.end(3, 50, status=503)
    assert watched.ejected() == set()


def test_a_success_between_starts_the_count_anew() -> None:
    watched = Watched()
    for _ in range(3):
        watched.fail(3, 4)
        watched.end(3)
    assert watched.ejected() == set()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_very_next_pick_avoids_it_whatever_the_policy(policy: str) -> None:
    watched = Watched(policy=POLICIES[policy], consecutive_5xx=1)
    watched.fail(3)
    assert watched.picked() == set(range(10)) - {3}


def test_handles_and_subsets_avoid_it_at_once_too() -> None:
    endpoints = [Endpoint(each.address, metadata={"half": number % 2}) for number, each in enumerate(fleet(10))]
    cluster = Cluster(
        "seen",
        endpoints,
        outlier_detection=OutlierDetection(consecutive_5xx=1),
        subsets=Subsets(selectors=(SubsetSelector(keys=("half",)),)),
    )
    views = [cluster, cluster.handle(), cluster.subset({"half": 1})]
    assert all(len({view.pick().address for _ in range(20)}) in (5, 10) for view in views)
    with pytest.raises(ConnectionError), views[2].acquire() as endpoint:
        raise ConnectionError
    for view in views:
        assert endpoint.address not in {view.pick().address for _ in range(20)}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (500, None),
        (501, None),
        (502, EjectionCause.CONSECUTIVE_GATEWAY_FAILURE),
        (503, EjectionCause.CONSECUTIVE_GATEWAY_FAILURE),
        (504, EjectionCause.CONSECUTIVE_GATEWAY_FAILURE),
        (505, None),
        (599, None),
        ("UNAVAILABLE", EjectionCause.CONSECUTIVE_GATEWAY_FAILURE),
        ("DEADLINE_EXCEEDED", EjectionCause.CONSECUTIVE_GATEWAY_FAILURE),
        ("INTERNAL", None),
        (200, None),
        (404, None),
        (499, None),
        ("RESOURCE_EXHAUSTED", None),
    ],
)
def test_gateway_failures_are_502_503_and_504(status: int | str, cause: EjectionCause | None) -> None:
    watched = Watched(enforcing_consecutive_gateway_failure=100, consecutive_5xx=0)
    watched.end(3, 5, status=status)
    assert watched.cluster.stats().endpoints[3].ejection_cause is cause


def test_another_server_error_between_starts_the_count_of_gateway_failures_anew() -> None:
    watched = Watched(enforcing_consecutive_gateway_failure=100, consecutive_5xx=0)
    for _ in range(3):
        watched.end(3, 4, status=503)
        watched.end(3, status=500)
    assert watched.ejected() == set()


@pytest.mark.parametrize("status", [None, 500, 503, "INTERNAL", 404, 200])
def test_what_the_caller_calls_a_failure_is_one_whatever_its_status(status: int | str | None) -> None:
    watched = Watched()
    watched.end(3, 5, ok=False, status=status)
    assert watched.ejected() == {3}


def test_unless_split_a_local_failure_counts_as_503() -> None:
    watched = Watched(enforcing_consecutive_gateway_failure=100, consecutive_5xx=0)
    watched.end(3, 5, ok=False)
    assert watched.cluster.stats().endpoints[3].ejection_cause is EjectionCause.CONSECUTIVE_GATEWAY_FAILURE


def test_split_local_failures_have_a_threshold_of_their_own() -> None:
    watched = Watched(split_external_local_origin_errors=True, consecutive_local_origin_failure=3)
    watched.end(3, 2, ok=False)
    assert watched.ejected() == set()
    watched.end(3, ok=False)
    assert watched.cluster.stats().endpoints[3].ejection_cause is EjectionCause.CONSECUTIVE_LOCAL_ORIGIN_FAILURE


def test_split_an_answer_of_any_kind_shows_a_connection() -> None:
    watched = Watched(split_external_local_origin_errors=True, consecutive_5xx=0)
    for status in (None, 200, 500):
        watched.end(3, 4, ok=False)
        watched.end(3, status=status)
    assert watched.ejected() == set()


def test_split_local_failures_leave_server_errors_alone() -> None:
    watched = Watched(split_external_local_origin_errors=True, consecutive_local_origin_failure=0)
    watched.fail(3, 4)
    watched.end(3, 20, ok=False)
    assert watched.ejected() == set()
    watched.fail(3)
    assert watched.ejected() == {3}


def test_an_exception_in_a_with_block_is_a_local_failure() -> None:
    watched = Watched(3, split_external_local_origin_errors=True, consecutive_local_origin_failure=1)
    with pytest.raises(ConnectionError), watched.cluster.acquire() as endpoint:
        raise ConnectionError
    assert [each.endpoint for each in watched.cluster.stats().endpoints if each.ejected] == [endpoint]


def test_a_lease_that_is_dropped_says_nothing() -> None:
    watched = Watched(consecutive_5xx=1)
    watched.begin(3, 5).clear()
    assert watched.ejected() == set()


def test_with_both_enforced_the_gateway_failures_come_first() -> None:
    watched = Watched(enforcing_consecutive_gateway_failure=100)
    watched.end(3, 5, status=503)
    found = counts(watched)
    assert (found.ejections_enforced_consecutive_gateway_failure, found.ejections_enforced_consecutive_5xx) == (1, 0)
    assert found.ejections_detected_consecutive_5xx == 0


def test_what_is_not_enforced_is_detected_each_time_the_threshold_is_reached() -> None:
    watched = Watched(enforcing_consecutive_5xx=0)
    watched.fail(3, 14)
    found = counts(watched)
    assert (found.ejections_detected_consecutive_5xx, found.ejections_enforced_total) == (2, 0)
    assert watched.ejected() == set()


def test_a_percentage_enforces_that_part_of_the_cases() -> None:
    enforced = 0
    for seed in range(200):
        watched = Watched(3, seed=seed, consecutive_5xx=1, enforcing_consecutive_5xx=30)
        watched.fail(1)
        enforced += len(watched.ejected())
    assert 40 <= enforced <= 80  # of a binomial distribution, 60 +- 3 standard deviations of 6.5


def test_failures_of_requests_in_flight_do_not_eject_twice() -> None:
    watched = Watched(consecutive_5xx=2)
    for lease in watched.begin(3, 10):
        lease.done(status=500)
    found = counts(watched)
    assert (found.ejections_active, found.ejections_enforced_total) == (1, 1)
    assert watched.cluster.stats().endpoints[3].times_ejected == 1


def test_who_returns_starts_counting_anew() -> None:
    watched = Watched(consecutive_5xx=5)
    for lease in watched.begin(3, 9):
        lease.done(status=500)
    watched.tick(30.0)
    assert watched.ejected() == set()
    watched.fail(3, 4)
    assert watched.ejected() == set()
    watched.fail(3)
    assert watched.ejected() == {3}


def test_the_refusal_says_how_many_are_ejected() -> None:
    watched = Watched(3, consecutive_5xx=1)
    watched.fail(0)
    watched.fail(1)
    watched.cluster.set_health(address(2), False)
    with pytest.raises(NoEndpointAvailable, match="2 ejected, 1 failed its active check"):
        watched.cluster.pick()


def test_an_explanation_names_the_ejected_and_their_cause() -> None:
    watched = Watched(consecutive_5xx=1)
    watched.fail(3)
    watched.clock.advance(12.5)
    explanation = watched.cluster.explain()
    (out,) = explanation.ejected
    assert (out.endpoint.address, out.cause, out.since, out.remaining, out.times) == (
        address(3),
        EjectionCause.CONSECUTIVE_5XX,
        12.5,
        17.5,
        1,
    )
    assert f"ejected: {address(3)} for consecutive_5xx, 12.5 s ago, for 17.5 s more at least, time 1" in str(
        explanation
    )
    assert out.endpoint not in {each.endpoint for each in explanation.candidates}


def test_a_clock_that_fails_does_not_spare_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    fails = False
    reported: list[object] = []

    def clock() -> int:
        if fails:
            raise RuntimeError("no time")
        return 5_000_000_000

    cluster = Cluster(
        "timeless",
        fleet(3),
        policy=RoundRobin(),  # which does not ask for the time
        clock=clock,
        outlier_detection=OutlierDetection(consecutive_5xx=1, max_ejection_percent=50),
    )
    lease = cluster.acquire()
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    fails = True
    lease.done(status=500)
    fails = False
    assert reported == [RuntimeError]
    assert [each.endpoint for each in cluster.stats().endpoints if each.ejected] == [lease.endpoint]


def test_a_clock_that_finishes_other_requests_ejects_no_more_than_allowed() -> None:
    held: list[Lease] = []

    def clock() -> int:
        while held:
            held.pop().done(status=500)
        return 5_000_000_000

    cluster = Cluster(
        "reentrant",
        fleet(10),
        policy=RoundRobin(),  # which does not ask for the time
        clock=clock,
        outlier_detection=OutlierDetection(consecutive_5xx=1, max_ejection_percent=10),
    )
    leases = [cluster.acquire() for _ in range(10)]
    held += leases[1:]
    leases[0].done(status=500)
    assert sum(each.ejected for each in cluster.stats().endpoints) == 1
    assert cluster.stats().active == 0
