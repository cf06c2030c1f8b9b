"""Which outcomes are tried again, how soon, and what the budget allows; no time, no I/O."""

from __future__ import annotations

import http.client
from types import SimpleNamespace
from typing import Any

import aiohttp
import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import InvalidSetting
from lbcore.resilience import Backoff, Retry, RetryBudget, RetryThrottle
from lbcore.resilience.outcome import Outcome, outcome_of

REFUSED = outcome_of(error=ConnectionRefusedError())
RESET = outcome_of(error=ConnectionResetError())
TIMED_OUT = outcome_of(error=TimeoutError())
BUG = outcome_of(error=KeyError("x"))


def status(code: int | str) -> Outcome:
    return Outcome(status=code)


@pytest.mark.parametrize(
    ("condition", "wanted", "not_wanted"),
    [
        ("5xx", [status(500), status(503), RESET, REFUSED, TIMED_OUT], [status(404), status(200), BUG]),
        ("gateway-error", [status(502), status(503), status(504), RESET], [status(500), status(200)]),
        ("reset", [RESET, REFUSED, TIMED_OUT], [status(503), BUG]),
        ("connect-failure", [REFUSED], [RESET, status(503)]),
        ("refused-stream", [REFUSED], [RESET]),
        ("retriable-4xx", [status(409)], [status(404), RESET]),
        ("retriable-status-codes", [status(404)], [status(503)]),
        ("unavailable", [status("UNAVAILABLE")], [status("INTERNAL"), status(503)]),
        ("deadline-exceeded", [status("DEADLINE_EXCEEDED")], [status("CANCELLED")]),
        (KeyError, [BUG], [RESET, status(503)]),
    ],
)
def test_conditions_are_envoys(condition: Any, wanted: list[Outcome], not_wanted: list[Outcome]) -> None:
    retry = Retry(retry_on=[condition], retriable_status_codes=[404])
    assert [retry.wanted(outcome) for outcome in wanted] == [True] * len(wanted)
    assert [retry.wanted(outcome) for outcome in not_wanted] == [False] * len(not_wanted)


def test_a_predicate_adds_to_the_conditions() -> None:
    retry = Retry(retry_on=[], also=lambda outcome: outcome.result == "again")
    assert retry.wanted(Outcome(result="again"))
    assert not retry.wanted(status(503))


def test_envoy_ratelimited_is_a_header() -> None:
    limited = outcome_of(SimpleNamespace(status=429, headers={"x-envoy-ratelimited": "true"}))
    assert Retry(retry_on=["envoy-ratelimited"]).wanted(limited)
    assert not Retry(retry_on=["envoy-ratelimited"]).wanted(status(429))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"retry_on": ["5xy"]}, "retry_on '5xy': expected a class of errors, or one of 5xx"),
        ({"retry_on": "5xx"}, "retry_on '5xx': expected a sequence"),
        ({"attempts": 0}, "attempts 0: expected a whole number, 1 to 100"),
        ({"retriable_status_codes": [99]}, "retriable_status_codes 99: expected a whole number"),
        ({"budget": 5}, "budget 5: expected a RetryBudget"),
        ({"also": "5xx"}, "also '5xx': expected a callable"),
    ],
)
def test_a_bad_setting_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Retry(**fields)


class TestOutcome:
    @pytest.mark.parametrize(
        ("value", "read"),
        [
            (SimpleNamespace(status=404), 404),
            (SimpleNamespace(status_code=503), 503),
            (SimpleNamespace(status="open"), None),
            (SimpleNamespace(code=lambda: grpc.StatusCode.UNAVAILABLE), "UNAVAILABLE"),
            (SimpleNamespace(code=lambda: SimpleNamespace(name="NO_CODE")), None),
            ("plain", None),
            (None, None),
        ],
    )
    def test_the_status_is_read_from_what_comes_back(self, value: Any, read: Any) -> None:
        assert outcome_of(value).status == read
        error = Exception()
        error.response = value  # type: ignore[attr-defined]
        if isinstance(read, int):
            assert outcome_of(error=error).status == read

    @pytest.mark.parametrize(
        ("outcome", "ok"),
        [
            (Outcome(), True),
            (status(200), True),
            (status(404), True),
            (status(500), False),
            (status("OK"), True),
            (status("UNAVAILABLE"), False),
            (BUG, False),
            (Outcome(error=KeyError(), status=404), True),
        ],
    )
    def test_what_counts_against_the_endpoint(self, outcome: Outcome, ok: bool) -> None:
        assert outcome.ok == ok

    @pytest.mark.parametrize(
        "error",
        [
            aiohttp.ServerDisconnectedError(),
            aiohttp.ClientPayloadError(),
            http.client.RemoteDisconnected(),
            EOFError(),
        ],
    )
    def test_broken_connections_of_known_libraries(self, error: Exception) -> None:
        assert outcome_of(error=error).broken

    @pytest.mark.parametrize(
        ("trailing", "pushback"),
        [
            ((("grpc-retry-pushback-ms", "250"),), 0.25),
            ((("grpc-retry-pushback-ms", "0"),), 0.0),
            ((("grpc-retry-pushback-ms", "-1"),), -1.0),
            ((("grpc-retry-pushback-ms", "soon"),), -1.0),
            ((("other", "1"),), None),
            (None, None),
        ],
    )
    def test_pushback_of_a_grpc_server(self, trailing: Any, pushback: float | None) -> None:
        error = Exception()
        error.trailing_metadata = lambda: trailing  # type: ignore[attr-defined]
        assert outcome_of(error=error).pushback == pushback


class TestBackoff:
    def test_it_doubles_up_to_ten_times_the_base(self) -> None:
        delays = [Backoff().delay(retry, lambda: 1.0) for retry in range(1, 7)]
        assert delays == [0.025, 0.05, 0.1, 0.2, 0.25, 0.25]

    @given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.001, 10), st.floats(1, 100))
    def test_jitter_is_full_and_the_maximum_holds(self, retry: int, drawn: float, base: float, factor: float) -> None:
        backoff = Backoff(base_interval=base, max_interval=base * factor)
        assert 0 <= backoff.delay(retry, lambda: drawn) <= base * factor
        assert backoff.delay(retry, lambda: 0.0) == 0.0

    def test_a_maximum_below_the_base_is_refused(self) -> None:
        with pytest.raises(InvalidSetting, match="max_interval 1: expected at least base_interval 2"):
            Backoff(base_interval=2, max_interval=1)


class TestBudget:
    @pytest.mark.parametrize(
        ("calls", "percent", "least", "allowed"),
        [(0, 20, 3, 3), (15, 20, 3, 3), (20, 20, 3, 4), (100, 20, 3, 20), (7, 50, 0, 4), (10, 0, 0, 0), (4, 100, 0, 4)],
    )
    def test_retries_are_a_share_of_the_calls(self, calls: int, percent: float, least: int, allowed: int) -> None:
        budget = RetryBudget(budget_percent=percent, min_retry_concurrency=least)
        for _ in range(calls):
            budget.begin()
        taken = 0
        while budget.take():
            taken += 1
        assert taken == allowed
        if allowed:
            budget.give_back()
            assert budget.take()
        for _ in range(calls):
            budget.end()

    def test_each_value_of_retry_has_a_budget_of_its_own(self) -> None:
        assert Retry().budget is not Retry().budget


class TestThrottle:
    def test_half_the_tokens_stop_retries_and_successes_bring_them_back(self) -> None:
        throttle = RetryThrottle(max_tokens=4, token_ratio=0.5)
        throttle.heard(failed=True)
        assert throttle.take()
        throttle.heard(failed=True)
        assert not throttle.take()  # 2 of 4: more than half is needed
        throttle.heard(failed=False)
        assert throttle.take()

    def test_tokens_stay_within_their_bounds(self) -> None:
        throttle = RetryThrottle(max_tokens=2, token_ratio=1.0)
        for _ in range(10):
            throttle.heard(failed=True)
        throttle.heard(failed=False)
        throttle.heard(failed=False)
        assert throttle.take()

    def test_the_ratio_has_three_decimals(self) -> None:
        assert RetryThrottle(token_ratio=0.5466).token_ratio == 0.546
