"""What callers report, summed: rates by locality, totals that never fall, callers that fall silent."""

from __future__ import annotations

import pytest

from lbcore.loads import Loads, LocalityCounts
from lbcore.model import Locality

EU, US = Locality("eu"), Locality("us")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loads(clock: Clock) -> Loads:
    return Loads(clock)


def test_rates_are_of_each_callers_own_interval(loads: Loads) -> None:
    loads.report("a", "web", 10.0, {EU: LocalityCounts(successes=90, errors=10, in_progress=2)})
    loads.report("b", "web", 2.0, {EU: LocalityCounts(successes=8, in_progress=1), US: LocalityCounts(errors=4)})
    eu, us = loads.of("web")[EU], loads.of("web")[US]
    assert (eu.requests_per_second, eu.errors_per_second, eu.in_progress) == (14.0, 1.0, 3)
    assert (us.requests_per_second, us.errors_per_second) == (2.0, 2.0)


def test_the_newest_report_of_a_caller_counts_and_totals_grow(loads: Loads) -> None:
    for successes in (10, 30):
        loads.report("a", "web", 10.0, {EU: LocalityCounts(successes=successes, errors=1)}, dropped=2)
    assert loads.of("web")[EU].requests_per_second == 3.1
    ((service, place, totals),) = loads.totals()
    assert (service, place, totals.successes, totals.errors) == ("web", EU, 40, 2)
    assert loads.dropped() == {"web": 4}


def test_a_caller_that_has_gone_counts_no_more_but_in_the_totals(loads: Loads) -> None:
    loads.report("a", "web", 10.0, {EU: LocalityCounts(successes=10)})
    loads.report("b", "web", 10.0, {EU: LocalityCounts(successes=20)})
    loads.forget("a")
    assert loads.of("web")[EU].requests_per_second == 2.0
    loads.forget("b")
    assert loads.of("web") == {}
    assert loads.services == ()
    assert next(loads.totals())[2].successes == 30


def test_a_caller_that_falls_silent_counts_no_more(loads: Loads, clock: Clock) -> None:
    loads.report("a", "web", 10.0, {EU: LocalityCounts(successes=10)})
    clock.now += 30
    assert loads.of("web")[EU].requests_per_second == 1.0
    clock.now += 0.1
    assert loads.of("web") == {}


def test_measurements_are_means_over_requests(loads: Loads) -> None:
    loads.report("a", "web", 10.0, {EU: LocalityCounts(metrics={"latency": (10, 5.0), "none": (0, 0.0)})})
    loads.report("b", "web", 10.0, {EU: LocalityCounts(metrics={"latency": (30, 3.0)})})
    assert loads.of("web")[EU].metrics == {"latency": 0.2}


def test_nobody_reported_is_no_load(loads: Loads) -> None:
    assert loads.of("web") == {}
    loads.report("a", "web", 0.0, {EU: LocalityCounts(successes=10)})
    assert loads.of("web") == {}
