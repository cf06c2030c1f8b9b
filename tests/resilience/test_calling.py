"""`call`: attempts, time limits, hedging and cancellation. Each test also holds that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from lbcore import CircuitBreakers, Cluster, Endpoint, Maglev, NoEndpointAvailable, Subsets, SubsetSelector
from lbcore.errors import DeadlineExceeded, Overloaded
from lbcore.fault import Fault, FaultAbort, FaultDelay
from lbcore.picker import Picker
from lbcore.resilience import (
    AdaptiveConcurrency,
    AdmissionControl,
    Backoff,
    FaultInjected,
    FaultInjection,
    Hedge,
    Retry,
    RetryBudget,
    call,
    current_attempt,
    remaining,
)
from lbcore.settings import RetryBudget as ClusterRetryBudget

ADDRESSES = [f"10.0.0.{n}:80" for n in range(1, 4)]
QUICK = Backoff(base_interval=0.001)
LONG = 60.0  # seconds that nothing here takes

Script = Callable[[str, int], Awaitable[Any]]


class Calls:
    """A cluster of three, and attempts by a script: what is to happen at an address, and how often it was asked."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.asked: list[str] = []
        self.cancelled = 0

    def attempts(self, script: Script) -> Callable[[Endpoint], Awaitable[Any]]:
        async def attempt(endpoint: Endpoint) -> Any:
            self.asked.append(endpoint.address)
            try:
                return await script(endpoint.address, len(self.asked))
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        return attempt

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for each in self.cluster.stats().endpoints:
            total.update(requests=each.requests, ok=each.successes, failed=each.failures, active=each.active)
        return total


@pytest_asyncio.fixture
async def calls() -> AsyncIterator[Calls]:
    calls = Calls(Cluster("web", map(Endpoint, ADDRESSES), seed=1))
    yield calls
    attempts = [task for task in asyncio.all_tasks() if "_Running" in str(task.get_coro())]
    assert attempts == []
    counts = calls.counts()
    assert counts["active"] == 0
    # Each lease ended exactly once: those of attempts that were given up without a word.
    assert counts["ok"] + counts["failed"] + calls.cancelled >= counts["requests"]
    assert counts["ok"] + counts["failed"] <= counts["requests"]


async def fail(*_: object) -> None:
    raise ConnectionResetError


async def hang(*_: object) -> None:
    await asyncio.sleep(LONG)


def ok_from(number: int, else_do: Script = fail) -> Script:
    async def script(address: str, asked: int) -> str:
        if asked < number:
            await else_do(address, asked)
        return address

    return script


class TestRetries:
    async def test_one_attempt_without_a_retry(self, calls: Calls) -> None:
        with pytest.raises(ConnectionResetError):
            await call(calls.cluster, calls.attempts(fail))
        assert len(calls.asked) == 1
        assert calls.counts()["failed"] == 1

    async def test_a_failed_attempt_is_made_again_elsewhere(self, calls: Calls) -> None:
        retry = Retry(attempts=3, backoff=QUICK)
        assert await call(calls.cluster, calls.attempts(ok_from(3)), retry=retry) == calls.asked[-1]
        assert len(set(calls.asked)) == 3
        assert (calls.counts()["ok"], calls.counts()["failed"]) == (1, 2)

    async def test_with_everybody_tried_any_will_do(self, calls: Calls) -> None:
        await call(calls.cluster, calls.attempts(ok_from(5)), retry=Retry(attempts=5, backoff=QUICK))
        assert len(calls.asked) == 5

    async def test_previous_endpoints_are_asked_again_where_that_is_allowed(self) -> None:
        calls = Calls(Cluster("cache", map(Endpoint, ADDRESSES), policy=Maglev()))
        retry = Retry(attempts=3, backoff=QUICK, avoid_previous=False)
        await call(calls.cluster, calls.attempts(ok_from(3)), key="k", retry=retry)
        assert len(set(calls.asked)) == 1

    async def test_a_key_goes_on_along_its_own_order(self) -> None:
        calls = Calls(Cluster("cache", map(Endpoint, ADDRESSES), policy=Maglev()))
        await call(calls.cluster, calls.attempts(ok_from(3)), key="k", retry=Retry(attempts=3, backoff=QUICK))
        assert calls.asked == [endpoint.address for endpoint in calls.cluster.rank("k", 3)]

    async def test_what_may_not_be_tried_again_decides(self, calls: Calls) -> None:
        async def bug(*_: object) -> None:
            raise KeyError("bug")

        with pytest.raises(KeyError):
            await call(calls.cluster, calls.attempts(bug), retry=Retry(attempts=3))
        assert len(calls.asked) == 1

    async def test_the_last_outcome_is_handed_over_whatever_it_is(self, calls: Calls) -> None:
        async def busy(*_: object) -> Any:
            return SimpleNamespace(status=503)

        result = await call(calls.cluster, calls.attempts(busy), retry=Retry(attempts=2, backoff=QUICK))
        assert result.status == 503
        assert calls.counts()["failed"] == 2

    async def test_an_empty_budget_ends_the_call_with_what_there_is(self, calls: Calls) -> None:
        retry = Retry(attempts=3, backoff=QUICK, budget=RetryBudget(budget_percent=0, min_retry_concurrency=0))
        with pytest.raises(ConnectionResetError):
            await call(calls.cluster, calls.attempts(fail), retry=retry)
        assert len(calls.asked) == 1

    async def test_places_in_the_budget_are_given_back(self, calls: Calls) -> None:
        budget = RetryBudget(budget_percent=0, min_retry_concurrency=1)
        retry = Retry(attempts=3, backoff=QUICK, budget=budget)
        for _ in range(3):
            calls.asked.clear()
            await call(calls.cluster, calls.attempts(ok_from(3)), retry=retry)
        assert budget.take()
        assert not budget.take()

    async def test_the_clusters_circuit_breakers_bound_retries_as_well(self) -> None:
        breakers = CircuitBreakers(max_retries=1)
        calls = Calls(Cluster("web", map(Endpoint, ADDRESSES), circuit_breakers=breakers))
        retry = Retry(attempts=3, backoff=QUICK, budget=None)
        await call(calls.cluster, calls.attempts(ok_from(3)), retry=retry)
        with calls.cluster.retry_permit(), pytest.raises(ConnectionResetError):
            await call(calls.cluster, calls.attempts(fail), retry=retry)
        assert len(calls.asked) == 4
        calls.cluster.retry_permit().release()  # every one was given back

    async def test_they_take_the_place_of_the_budget_that_nobody_chose(self) -> None:
        breakers = CircuitBreakers(retry_budget=ClusterRetryBudget(budget_percent=0.0, min_retry_concurrency=8))
        calls = Calls(Cluster("web", map(Endpoint, ADDRESSES), circuit_breakers=breakers))
        all_retried = asyncio.Event()

        async def script(address: str, asked: int) -> str:
            if asked <= 8:
                raise ConnectionResetError
            if asked == 16:  # all eight are retried at once, where a budget of `Retry()` lets three
                all_retried.set()
            await all_retried.wait()
            return address

        attempt, retry = calls.attempts(script), Retry(backoff=QUICK)
        answers = await asyncio.wait_for(
            asyncio.gather(*(call(calls.cluster, attempt, retry=retry) for _ in range(8))), LONG
        )
        assert len(answers) == 8
        chosen = Retry(backoff=QUICK, budget=RetryBudget(budget_percent=0, min_retry_concurrency=0))
        with pytest.raises(ConnectionResetError):
            await call(calls.cluster, calls.attempts(fail), retry=chosen)

    @pytest.mark.parametrize(
        "view", [lambda cluster: cluster.handle(), lambda cluster: cluster.subset({"version": "1"})]
    )
    async def test_they_bound_the_retries_of_views_too(self, view: Callable[[Cluster], Picker]) -> None:
        cluster = Cluster(
            "web",
            [Endpoint(address, metadata={"version": "1"}) for address in ADDRESSES],
            circuit_breakers=CircuitBreakers(max_retries=1),
            subsets=Subsets(selectors=(SubsetSelector(keys=("version",)),)),
        )
        calls = Calls(cluster)
        retry = Retry(attempts=3, backoff=QUICK)
        await call(view(cluster), calls.attempts(ok_from(3)), retry=retry)
        with cluster.retry_permit(), pytest.raises(ConnectionResetError):
            await call(view(cluster), calls.attempts(fail), retry=retry)
        with cluster.retry_permit(), pytest.raises(Overloaded, match="max_retries 1 reached"):
            view(cluster).retry_permit()

    async def test_a_server_may_push_back(self, calls: Calls) -> None:
        class PushedBack(Exception):  # as grpc's AioRpcError
            def code(self) -> Any:
                return SimpleNamespace(name="UNAVAILABLE")

            def trailing_metadata(self) -> Any:
                return (("grpc-retry-pushback-ms", "-1"),)

        async def push(*_: object) -> None:
            raise PushedBack

        with pytest.raises(PushedBack):
            await call(calls.cluster, calls.attempts(push), retry=Retry(attempts=3))
        assert len(calls.asked) == 1

    async def test_nobody_available_is_told_at_once(self) -> None:
        with pytest.raises(NoEndpointAvailable):
            await call(Cluster("empty"), lambda _: fail(), retry=Retry(attempts=3))


class TestTimeLimits:
    async def test_an_attempt_that_hangs_is_given_up_blamed_and_made_again(self, calls: Calls) -> None:
        script = ok_from(2, else_do=hang)
        await call(calls.cluster, calls.attempts(script), per_try_timeout=0.05, retry=Retry(backoff=QUICK))
        assert (calls.counts()["ok"], calls.counts()["failed"]) == (1, 1)

    async def test_the_whole_call_has_a_limit_and_the_endpoint_is_blamed(self, calls: Calls) -> None:
        with pytest.raises(DeadlineExceeded, match="after 1 attempts"):
            await call(calls.cluster, calls.attempts(hang), timeout=0.05, retry=Retry(attempts=5))
        assert calls.counts()["failed"] == 1

    async def test_no_retry_begins_after_the_deadline(self, calls: Calls) -> None:
        retry = Retry(attempts=100, backoff=Backoff(base_interval=0.05), budget=None)
        with pytest.raises(DeadlineExceeded):
            await call(calls.cluster, calls.attempts(fail), timeout=0.2, retry=retry, random=lambda: 0.99)
        assert len(calls.asked) < 6

    async def test_an_attempt_knows_how_long_it_has(self, calls: Calls) -> None:
        seen: list[Any] = []

        async def look(_: str, asked: int) -> None:
            seen.append((current_attempt(), remaining()))
            if asked == 1:
                raise ConnectionResetError

        await call(
            calls.cluster, calls.attempts(look), timeout=LONG, per_try_timeout=LONG / 2, retry=Retry(backoff=QUICK)
        )
        assert [attempt.number for attempt, _ in seen] == [1, 2]
        assert [attempt.endpoint.address for attempt, _ in seen] == calls.asked
        assert all(0.0 < left <= LONG / 2 for _, left in seen)
        assert (current_attempt(), remaining()) == (None, None)

    async def test_a_call_within_an_attempt_gets_no_more_time(self, calls: Calls) -> None:
        async def inner(*_: object) -> float | None:
            return await call(calls.cluster, left, timeout=LONG)

        async def left(_: Endpoint) -> float | None:
            return remaining()

        result = await call(calls.cluster, calls.attempts(inner), timeout=LONG / 2)
        assert result is not None
        assert result <= LONG / 2

    @pytest.mark.parametrize("limit", ["timeout", "per_try_timeout"])
    async def test_a_limit_that_is_none_is_refused_by_name(self, calls: Calls, limit: str) -> None:
        with pytest.raises(ValueError, match=f"{limit} 0: expected a number, more than 0"):
            await call(calls.cluster, calls.attempts(fail), **{limit: 0})  # type: ignore[arg-type]


class TestCancellation:
    @pytest.mark.parametrize("script", [hang, fail])
    async def test_a_cancelled_call_leaves_nothing_and_blames_nobody_for_it(self, calls: Calls, script: Script) -> None:
        retry = Retry(attempts=50, backoff=Backoff(base_interval=LONG), budget=RetryBudget(min_retry_concurrency=1))
        task = asyncio.ensure_future(call(calls.cluster, calls.attempts(script), retry=retry, random=lambda: 0.99))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls.counts()["failed"] == (1 if script is fail else 0)
        assert retry.budget is not None
        assert retry.budget.take()  # the place of the retry that waited

    async def test_a_second_cancellation_finds_the_budget_given_back(self, calls: Calls) -> None:
        ending = asyncio.Event()

        async def lingers(*_: object) -> None:
            try:
                await hang()
            finally:
                ending.set()
                await hang()

        budget = RetryBudget(budget_percent=100, min_retry_concurrency=0)
        task = asyncio.ensure_future(call(calls.cluster, calls.attempts(lingers), retry=Retry(budget=budget)))
        await asyncio.sleep(0.01)
        assert budget.take(), "a retry for the call in flight"
        budget.give_back()
        task.cancel()
        await ending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not budget.take(), "no call is in flight"

    async def test_a_call_cancelled_before_its_attempt_began_leaves_nothing(self, calls: Calls) -> None:
        task = asyncio.ensure_future(call(calls.cluster, calls.attempts(hang)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        calls.cancelled += calls.counts()["requests"]  # its lease was released without a word


class TestHedging:
    async def test_a_slow_attempt_gets_company_and_the_first_good_answer_wins(self, calls: Calls) -> None:
        script = ok_from(2, else_do=hang)
        assert await call(calls.cluster, calls.attempts(script), hedge=Hedge(0.02)) == calls.asked[1]
        assert (calls.cancelled, calls.counts()["ok"], calls.counts()["failed"]) == (1, 1, 0)

    async def test_a_quick_answer_gets_none(self, calls: Calls) -> None:
        await call(calls.cluster, calls.attempts(ok_from(1)), hedge=Hedge(LONG))
        assert len(calls.asked) == 1

    async def test_a_failure_brings_the_next_at_once(self, calls: Calls) -> None:
        await asyncio.wait_for(call(calls.cluster, calls.attempts(ok_from(3)), hedge=Hedge(LONG, 3)), 30)
        assert len(set(calls.asked)) == 3

    async def test_a_failed_hedge_leaves_the_decision_to_the_first(self, calls: Calls) -> None:
        async def script(address: str, asked: int) -> str:
            if asked == 1:
                await asyncio.sleep(0.2)
                return address
            raise ConnectionResetError

        assert await call(calls.cluster, calls.attempts(script), hedge=Hedge(0.02)) == calls.asked[0]

    async def test_hedges_need_room_in_the_budget(self, calls: Calls) -> None:
        none = Retry(attempts=3, budget=RetryBudget(budget_percent=0, min_retry_concurrency=0))
        with pytest.raises(DeadlineExceeded):
            await call(calls.cluster, calls.attempts(hang), hedge=Hedge(0.01, 3), retry=none, timeout=0.2)
        assert len(calls.asked) == 1


class TestFaults:
    async def test_a_share_of_calls_is_failed_and_goes_nowhere(self, calls: Calls) -> None:
        faults = FaultInjection(Fault(abort=FaultAbort(http_status=503, percentage=30)))
        draws: Iterator[float] = iter([n / 100 for n in range(100)])
        attempt = calls.attempts(ok_from(1))

        async def one() -> Any:
            return await call(calls.cluster, attempt, fault=faults, retry=Retry(), random=lambda: next(draws))

        ended = await asyncio.gather(*(one() for _ in range(100)), return_exceptions=True)
        assert [each.status for each in ended if isinstance(each, FaultInjected)] == [503] * 30
        assert len(calls.asked) == 70

    async def test_headers_and_keys_choose_whom(self, calls: Calls) -> None:
        faults = FaultInjection(Fault(abort=FaultAbort(http_status=500)), headers={"X-Canary": "1"}, keys=["a"])
        attempt = calls.attempts(ok_from(1))
        await call(calls.cluster, attempt, fault=faults, key="a")
        await call(calls.cluster, attempt, fault=faults, key="b", headers={"x-canary": "1"})
        with pytest.raises(FaultInjected):
            await call(calls.cluster, attempt, fault=faults, key="a", headers={"x-canary": "1"})

    async def test_delays_count_as_active_and_are_bounded(self, calls: Calls) -> None:
        fault = Fault(delay=FaultDelay(fixed_delay=LONG), max_active_faults=1)
        faults = FaultInjection(fault)
        delayed = asyncio.ensure_future(call(calls.cluster, calls.attempts(ok_from(1)), fault=faults))
        await asyncio.sleep(0.01)
        assert faults.active == 1
        await asyncio.wait_for(call(calls.cluster, calls.attempts(ok_from(1)), fault=faults), 30)
        delayed.cancel()
        await asyncio.gather(delayed, return_exceptions=True)
        assert faults.active == 0


class TestLimits:
    async def test_limits_are_asked_in_order_and_hear_how_each_call_ended(self, calls: Calls) -> None:
        heard: list[tuple[str, bool | None]] = []

        class Listening:
            def __init__(self, name: str, full: bool = False) -> None:
                self.name, self.full = name, full

            def admit(self) -> Callable[[bool | None], None]:
                if self.full:
                    raise Overloaded("full")
                return lambda ok: heard.append((self.name, ok))

        one, two, full = Listening("one"), Listening("two"), Listening("full", full=True)
        await call(calls.cluster, calls.attempts(ok_from(1)), limits=[one, two])
        with pytest.raises(ConnectionResetError):
            await call(calls.cluster, calls.attempts(fail), limits=[one])
        with pytest.raises(Overloaded):
            await call(calls.cluster, calls.attempts(ok_from(1)), limits=[one, full])
        assert heard == [("two", True), ("one", True), ("one", False), ("one", None)]

    async def test_adaptive_concurrency_refuses_what_is_too_much(self, calls: Calls) -> None:
        limits = AdaptiveConcurrency()
        attempt = calls.attempts(hang)
        running = [asyncio.ensure_future(call(calls.cluster, attempt, limits=[limits])) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="3 calls in flight: expected at most 3"):
            await call(calls.cluster, attempt, limits=[limits])
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert limits.active == 0

    async def test_admission_control_counts_calls(self, calls: Calls) -> None:
        control = AdmissionControl(seed=1)
        refused = 0
        for _ in range(50):
            (ended,) = await asyncio.gather(
                call(calls.cluster, calls.attempts(fail), limits=[control]), return_exceptions=True
            )
            refused += isinstance(ended, Overloaded)
        assert refused + len(calls.asked) == 50
        assert refused > 20
