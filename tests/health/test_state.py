"""Thresholds, first checks, jitter and intervals of one endpoint, result by result (Envoy health_checker_base_impl.cc).

Without time: an interval is what the state machine says, a random number what the test gives.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.health.outcome import Cause, Outcome
from lbcore.health.state import CheckState, Transition, first_delay
from lbcore.settings import HealthCheck, HttpHealthCheck

PASS = Outcome()
DEGRADED = Outcome(degraded=True)
REFUSED = Outcome(Cause.NETWORK)
TIMED_OUT = Outcome(Cause.NETWORK_TIMEOUT)
WRONG = Outcome(Cause.ACTIVE)
RETRIABLE = Outcome(Cause.ACTIVE, retriable=True)
LEAVES = Outcome(Cause.ACTIVE, excluded=True)

UNCHANGED, PENDING, CHANGED = Transition.UNCHANGED, Transition.PENDING, Transition.CHANGED


def settings(**given: Any) -> HealthCheck:
    return HealthCheck(http=HttpHealthCheck(), **given)


def state_after(*outcomes: Outcome, **given: Any) -> CheckState:
    state = CheckState(settings(**given))
    for outcome in outcomes:
        state.take(outcome)
    return state


def transitions(*outcomes: Outcome, **given: Any) -> list[Transition]:
    state = CheckState(settings(**given))
    return [state.take(outcome) for outcome in outcomes]


def lowest(_: int) -> int:
    return 0


def highest(below: int) -> int:
    return below - 1


def test_an_endpoint_begins_as_failed_and_not_yet_checked() -> None:
    state = CheckState(settings())
    assert (state.checked, state.failed, state.degraded, state.excluded) == (False, True, False, False)


def test_the_first_passed_check_decides_whatever_the_threshold() -> None:
    assert transitions(PASS, healthy_threshold=5) == [CHANGED]
    assert not state_after(PASS, healthy_threshold=5).failed


@pytest.mark.parametrize("outcome", [REFUSED, TIMED_OUT, WRONG, RETRIABLE])
def test_the_first_failed_check_decides_whatever_the_threshold(outcome: Outcome) -> None:
    assert transitions(outcome, unhealthy_threshold=5) == [CHANGED]
    assert state_after(outcome, unhealthy_threshold=5).failed


@pytest.mark.parametrize("outcome", [REFUSED, TIMED_OUT, RETRIABLE])
def test_failures_that_count_need_the_threshold(outcome: Outcome) -> None:
    assert transitions(PASS, outcome, outcome, outcome, outcome, unhealthy_threshold=3) == [
        *(CHANGED, PENDING, PENDING, CHANGED, UNCHANGED)
    ]


def test_a_wrong_answer_fails_at_once() -> None:
    assert transitions(PASS, WRONG, unhealthy_threshold=3) == [CHANGED, CHANGED]


def test_a_pass_between_failures_begins_the_count_anew() -> None:
    state = state_after(PASS, REFUSED, REFUSED, PASS, REFUSED, REFUSED, unhealthy_threshold=3)
    assert not state.failed
    state.take(REFUSED)
    assert state.failed


def test_recovery_needs_the_healthy_threshold_in_a_row() -> None:
    assert transitions(REFUSED, PASS, REFUSED, PASS, PASS, PASS, healthy_threshold=3) == [
        *(CHANGED, PENDING, UNCHANGED, PENDING, PENDING, CHANGED)
    ]


def test_thresholds_of_one_change_at_once() -> None:
    one = {"healthy_threshold": 1, "unhealthy_threshold": 1}
    assert transitions(PASS, REFUSED, PASS, REFUSED, **one) == [CHANGED] * 4


def test_degraded_comes_and_goes_with_each_answer() -> None:
    assert transitions(DEGRADED, DEGRADED, PASS, DEGRADED) == [CHANGED, UNCHANGED, CHANGED, CHANGED]
    assert state_after(DEGRADED).found("").degraded


def test_degraded_while_recovering_waits_for_the_threshold() -> None:
    state = state_after(WRONG, healthy_threshold=2)
    assert state.take(DEGRADED) is PENDING
    assert (state.failed, state.degraded, state.found("").degraded) == (True, True, False)
    assert state.take(DEGRADED) is CHANGED
    assert state.found("").degraded


def test_one_that_leaves_is_excluded_until_it_is_healthy_again() -> None:
    state = state_after(PASS, LEAVES, healthy_threshold=2)
    assert state.found("").excluded
    state.take(PASS)
    assert state.found("").excluded
    state.take(PASS)
    assert not state.found("").excluded


def test_one_that_says_it_leaves_but_has_not_failed_is_not_excluded() -> None:
    state = state_after(PASS, Outcome(Cause.ACTIVE, retriable=True, excluded=True))
    assert not state.found("").excluded


def test_a_timeout_shows_while_it_is_why_the_endpoint_fails() -> None:
    state = state_after(PASS, TIMED_OUT, unhealthy_threshold=2)
    assert not state.timed_out
    state.take(TIMED_OUT)
    assert state.timed_out
    state.take(REFUSED)
    assert not state.timed_out
    state.take(TIMED_OUT)
    assert state.timed_out


@given(st.lists(st.sampled_from([PASS, DEGRADED, REFUSED, TIMED_OUT, WRONG, RETRIABLE, LEAVES])), st.integers(1, 4))
def test_against_runs_of_equal_results(outcomes: list[Outcome], threshold: int) -> None:
    """The definition in words: failed since a run of failures, healthy since a run of passes."""
    state = CheckState(settings(healthy_threshold=threshold, unhealthy_threshold=threshold))
    failed, passes, failures = True, 0, 0
    for position, outcome in enumerate(outcomes):
        passes, failures = (passes + 1, 0) if outcome.passed else (0, failures + 1)
        if outcome.passed and (position == 0 or passes >= threshold):
            failed = False
        if not outcome.passed and (position == 0 or failures >= threshold or not outcome.counts):
            failed = True
        state.take(outcome)
        assert state.failed == failed


INTERVALS = {
    "interval": 1.0,
    "unhealthy_interval": 2.0,
    "unhealthy_edge_interval": 3.0,
    "healthy_edge_interval": 4.0,
    "no_traffic_interval": 5.0,
    "no_traffic_healthy_interval": 6.0,
    "healthy_threshold": 2,
    "unhealthy_threshold": 2,
}


@pytest.mark.parametrize(
    ("outcomes", "with_traffic", "without"),
    [
        pytest.param([PASS], 1.0, 6.0, id="healthy"),
        pytest.param([PASS, PASS], 1.0, 6.0, id="still healthy"),
        pytest.param([PASS, REFUSED], 3.0, 5.0, id="failing"),
        pytest.param([PASS, REFUSED, REFUSED], 2.0, 5.0, id="failed"),
        pytest.param([PASS, WRONG], 2.0, 5.0, id="failed at once"),
        pytest.param([REFUSED], 2.0, 5.0, id="failed first"),
        pytest.param([REFUSED, PASS], 4.0, 5.0, id="recovering"),
        pytest.param([REFUSED, PASS, PASS], 1.0, 6.0, id="recovered"),
        pytest.param([REFUSED, PASS, REFUSED], 2.0, 5.0, id="failing again"),
        pytest.param([PASS, DEGRADED], 1.0, 6.0, id="degraded"),
    ],
)
def test_the_interval_after(outcomes: list[Outcome], with_traffic: float, without: float) -> None:
    state = state_after(*outcomes, **INTERVALS)
    assert state.next_interval(lowest) == with_traffic
    assert state.next_interval(lowest, traffic=False) == without


@pytest.mark.parametrize(
    ("given", "outcomes", "seconds"),
    [
        ({"interval": 1.0}, [PASS, REFUSED], 1.0),
        ({"interval": 1.0, "unhealthy_interval": 2.0}, [PASS, REFUSED], 2.0),
        ({"interval": 1.0, "unhealthy_interval": 2.0}, [REFUSED, PASS], 1.0),
    ],
)
def test_an_interval_that_is_not_given_is_that_of_the_next_larger_case(
    given: dict[str, float], outcomes: list[Outcome], seconds: float
) -> None:
    assert state_after(*outcomes, **given).next_interval(lowest) == seconds


def test_without_traffic_the_default_is_a_minute() -> None:
    assert state_after(PASS).next_interval(lowest, traffic=False) == 60.0
    assert state_after(PASS, no_traffic_interval=5.0).next_interval(lowest, traffic=False) == 5.0


def test_jitter_adds_less_than_its_share_and_less_than_itself() -> None:
    state = state_after(PASS, interval=2.0, interval_jitter_percent=10, interval_jitter=0.5)
    assert state.next_interval(lowest) == 2.0
    assert state.next_interval(highest) == pytest.approx(2.0 + 0.199 + 0.499)


def test_an_interval_is_never_below_a_millisecond() -> None:
    assert state_after(PASS, interval=0.001).next_interval(lowest) == 0.001


def test_the_first_check_comes_at_once_or_within_the_initial_jitter() -> None:
    assert first_delay(settings(), highest) == 0.0
    assert first_delay(settings(initial_jitter=3.0), highest) == pytest.approx(2.999)
    assert first_delay(settings(initial_jitter=3.0), lowest) == 0.001
