"""Outlier detection by gRPC's rules (gRFC A50): each priority by itself, rates only, no failures in a row."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore import EjectionCause, Endpoint
from tests.core.fleets import address
from tests.core.outliers import Watched, counts


def watched(endpoints: int | list[Endpoint] = 5, **detection: Any) -> Watched:
    return Watched(endpoints, algorithm="grpc", **detection)


def serve(cluster: Watched, successes: dict[int, int], volume: int = 100) -> None:
    for number, good in successes.items():
        cluster.end(number, good)
        cluster.end(number, volume - good, status="UNAVAILABLE")


HALF = {0: 50, 1: 100, 2: 100, 3: 100, 4: 100}


def test_failures_in_a_row_do_not_eject() -> None:
    cluster = watched(consecutive_5xx=1)
    cluster.end(0, 50, status="UNAVAILABLE")
    assert cluster.ejected() == set()


def test_a_success_rate_below_the_threshold_ejects() -> None:
    cluster = watched()
    serve(cluster, HALF)
    cluster.tick(10.0)
    assert cluster.ejected() == {0}
    assert counts(cluster).success_rate_ejection_threshold == 52.0


@pytest.mark.parametrize("status", ["CANCELLED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL"])
def test_every_code_but_ok_is_a_failure(status: str) -> None:
    cluster = watched()
    serve(cluster, {1: 100, 2: 100, 3: 100, 4: 100})
    cluster.end(0, 50, status="OK")
    cluster.end(0, 50, status=status)
    cluster.tick(10.0)
    assert cluster.ejected() == {0}


@pytest.mark.parametrize(("successes", "ejected"), [(15, set()), (14, {0})])
def test_the_failure_percentage_must_be_more_than_the_threshold(successes: int, ejected: set[int]) -> None:
    cluster = watched(enforcing_success_rate=0, enforcing_failure_percentage=100)
    serve(cluster, HALF | {0: successes})
    cluster.tick(10.0)
    assert cluster.ejected() == ejected


@pytest.mark.parametrize(("percent", "ejected"), [(0, 0), (1, 1), (10, 1), (20, 1), (21, 2), (40, 2), (41, 3)])
def test_the_percentage_does_not_count_the_one_to_be_ejected(percent: int, ejected: int) -> None:
    cluster = watched(enforcing_success_rate=0, enforcing_failure_percentage=100, max_ejection_percent=percent)
    serve(cluster, {0: 0, 1: 0, 2: 0, 3: 100, 4: 100})
    cluster.tick(10.0)
    assert len(cluster.ejected()) == ejected


def test_each_priority_is_judged_by_itself() -> None:
    endpoints = [Endpoint(address(number), priority=number // 5) for number in range(10)]
    cluster = watched(endpoints, enforcing_success_rate=0, enforcing_failure_percentage=100, max_ejection_percent=10)
    for number in (0, 1):
        cluster.end(number, 100, status=500)
    for number in (2, 3, 4):
        cluster.end(number, 100)
    for number in range(5):  # out, so that the others serve
        cluster.cluster.set_health(address(number), False)
    for number in range(5, 10):
        cluster.end(number, 100, status=500 if number == 5 else 200)
    for number in range(5):
        cluster.cluster.set_health(address(number), True)
    cluster.tick(10.0)
    assert cluster.ejected() == {0, 5}  # one of five in each


def test_an_ejection_ends_after_its_time_and_grows_with_each() -> None:
    cluster = watched(interval=1.0, base_ejection_time=3.0, success_rate_request_volume=10)
    lengths = []
    for _ in range(2):
        serve(cluster, {0: 0, 1: 10, 2: 10, 3: 10, 4: 10}, 10)
        cluster.tick(1.0)
        assert cluster.cluster.stats().endpoints[0].ejection_cause is EjectionCause.SUCCESS_RATE
        seconds = 0
        while cluster.ejected():
            cluster.tick(1.0)
            seconds += 1
        lengths.append(seconds)
    assert lengths == [4, 7]  # later than three, and six, seconds after


def test_the_last_usable_one_stays() -> None:
    cluster = watched(2, enforcing_success_rate=0, enforcing_failure_percentage=100, failure_percentage_minimum_hosts=1)
    serve(cluster, {0: 0, 1: 0})
    cluster.tick(10.0)
    assert len(cluster.ejected()) == 1
