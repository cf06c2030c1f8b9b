"""`call`: one request to a cluster, with as many attempts as it takes and is allowed.

The invariants: whatever happens, also cancellation, each attempt's lease ends exactly once, each retry gives back its
place in the budget, and no task outlives the call.
"""

from __future__ import annotations

import asyncio
import math
import random as chance
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from lbcore._core import Lease, Permit
from lbcore.errors import DeadlineExceeded, LbError, NoEndpointAvailable, Overloaded
from lbcore.model import Endpoint
from lbcore.picker import Picker
from lbcore.resilience.attempt import Attempt, running_attempt
from lbcore.resilience.budget import DefaultBudget, RetryLimit
from lbcore.resilience.fault_injection import FaultInjection
from lbcore.resilience.hedge import Hedge
from lbcore.resilience.limit import Limit
from lbcore.resilience.outcome import Outcome, outcome_of
from lbcore.resilience.retry import Retry
from lbcore.validation import number

__all__ = ["call"]

T = TypeVar("T")
Work = Callable[[Endpoint], Awaitable[Any]]
_ONCE = Retry(attempts=1, budget=None)


async def call(
    cluster: Picker,
    attempt: Callable[[Endpoint], Awaitable[T]],
    *,
    key: str | bytes | int | None = None,
    retry: Retry | None = None,
    hedge: Hedge | None = None,
    timeout: float | None = None,
    per_try_timeout: float | None = None,
    limits: Sequence[Limit] = (),
    fault: FaultInjection | None = None,
    headers: Mapping[str, str] | None = None,
    random: Callable[[], float] = chance.random,
) -> T:
    """Runs `attempt(endpoint)` on an endpoint that the cluster picks, again where it fails and may be tried again.

    Args:
        cluster: a `Cluster`, or a view of one.
        attempt: the caller's coroutine. What it returns or raises is read by `lbcore.resilience.outcome`; 5xx, errors
            and timeouts count against the endpoint, a cancelled attempt counts as neither success nor failure.
        key: what a hash policy hashes; retries go on along the key's own order.
        retry: None: one attempt. A `Hedge` without it makes attempts again by the rules of `Retry()`.
        hedge: when to begin another attempt beside one that takes long.
        timeout: seconds for all of it; within an attempt of another call no more than that has left.
        per_try_timeout: seconds for one attempt.
        limits: asked in this order, before anything else.
        fault: faults to inject, once for the whole call; `headers` are for it to match.
        random: numbers from 0 up to, but without, 1.

    Returns the result of the attempt that decides, also where its status is a failure and no retry is left. Raises what
    that attempt raised, `DeadlineExceeded`, `NoEndpointAvailable`, `Overloaded`, or `FaultInjected`.

    >>> import asyncio
    >>> from lbcore import Cluster
    >>> cluster = Cluster("web", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")])
    >>> async def attempt(endpoint: Endpoint) -> str:
    ...     if endpoint.address == "10.0.0.1:80":
    ...         raise ConnectionResetError
    ...     return endpoint.address
    >>> asyncio.run(call(cluster, attempt, retry=Retry(attempts=2)))
    '10.0.0.2:80'
    """
    deadline = _deadline(timeout)
    longest = math.inf if per_try_timeout is None else number(per_try_timeout, "per_try_timeout", 0.0, above=True)
    with ExitStack() as admitted:
        ending = Admissions(limits, admitted)
        if fault is not None:
            await fault.apply(key, headers or {}, random)
        outcome = await _Call(cluster, attempt, key, retry, hedge, deadline, longest, random).run()
        ending.ok = outcome.ok
    if outcome.error is not None:
        raise outcome.error
    result: T = outcome.result
    return result


class Admissions:
    """Lets a call in through every limit, and tells each how it ended."""

    def __init__(self, limits: Sequence[Limit], admitted: ExitStack) -> None:
        self.ok: bool | None = None  # until it is known: cancelled
        for limit in limits:
            admitted.callback(self._tell, limit.admit())

    def _tell(self, done: Callable[[bool | None], None]) -> None:
        done(self.ok)


def _deadline(timeout: float | None) -> float:
    """By the loop's clock: of this call, or of the attempt that it is made in, whichever is sooner."""
    around = running_attempt.get()
    outer = math.inf if around is None or around.deadline is None else around.deadline
    if timeout is None:
        return outer
    return min(outer, asyncio.get_running_loop().time() + number(timeout, "timeout", 0.0, above=True))


class _Call:
    """A call's attempts, under way and to come."""

    def __init__(
        self,
        cluster: Picker,
        work: Work,
        key: str | bytes | int | None,
        retry: Retry | None,
        hedge: Hedge | None,
        deadline: float,
        per_try_timeout: float,
        random: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._work = work
        self._key = key
        self._retry = retry or (Retry(attempts=hedge.attempts) if hedge else _ONCE)
        # The cluster's circuit breakers limit retries by themselves; what nobody chose does not limit them once more.
        own = isinstance(self._retry.budget, DefaultBudget) and cluster.limited
        self._budget = None if own else self._retry.budget
        self._hedge = hedge
        self._deadline = deadline
        self._per_try_timeout = per_try_timeout
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[Outcome], _Running] = {}
        self._tried: list[str] = []
        self._next_at = math.inf  # when the next attempt begins
        self._waiting: _Place | None = None  # of the retry that waits for that

    async def run(self) -> Outcome:
        budget = self._budget
        if budget is not None:
            budget.begin()
        try:
            self._begin(None)
            return await self._until_decided()
        finally:
            if self._waiting is not None:
                self._waiting.give_back()
            if budget is not None:
                budget.end()  # before what a second cancellation may cut short
            await self._end_all()

    async def _until_decided(self) -> Outcome:
        last = Outcome()
        while True:
            for task in await self._some_done():
                self._running.pop(task).give_back()
                last = task.result()
                if not self._try_again_after(last):
                    return last
            now = self._loop.time()
            if now >= self._deadline:
                return self._too_late()
            if now >= self._next_at:
                self._begin_next()
            if not self._running and self._next_at == math.inf:
                return last

    async def _some_done(self) -> set[asyncio.Task[Outcome]]:
        """Waits for an attempt to end, for the next one to be due or for the deadline."""
        until = min(self._deadline, self._next_at)
        pause = None if until == math.inf else max(0.0, until - self._loop.time())
        if not self._running:
            await asyncio.sleep(pause or 0.0)
            return set()
        done, _ = await asyncio.wait(self._running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        return done

    def _try_again_after(self, outcome: Outcome) -> bool:
        """Arranges for the next attempt; returns whether the call goes on, by it or by attempts still under way."""
        wanted = self._retry.wanted(outcome)
        budget = self._budget
        if budget is not None:
            budget.heard(wanted)
        if not wanted:
            return False
        pushback = outcome.pushback
        if pushback is not None and pushback < 0:
            self._next_at = math.inf
        elif self._waiting is None and self._may_begin_another():
            self._next_at = self._loop.time() + self._delay(pushback)
        return bool(self._running) or self._next_at < math.inf

    def _delay(self, pushback: float | None) -> float:
        if pushback is not None:
            return pushback
        return 0.0 if self._hedge else self._retry.backoff.delay(len(self._tried), self._random)

    def _may_begin_another(self) -> bool:
        """Takes a place for it, if so."""
        if len(self._tried) < self._retry.attempts:
            self._waiting = _take_place(self._cluster, self._budget)
        return self._waiting is not None

    def _begin_next(self) -> None:
        """Begins the attempt that is due: the retry that waited, or a hedge."""
        self._next_at = math.inf
        if self._waiting is None and not self._may_begin_another():
            return
        place, self._waiting = self._waiting, None
        try:
            self._begin(place)
        except LbError:  # nobody left to ask: what has been heard so far decides
            if place is not None:
                place.give_back()

    def _begin(self, place: _Place | None) -> None:
        lease = self._acquire()
        self._tried.append(lease.endpoint.address)
        number = len(self._tried)
        deadline = min(self._deadline, self._loop.time() + self._per_try_timeout)
        this = Attempt(lease.endpoint, number, None if deadline == math.inf else deadline)
        running = _Running(self._work, lease, this, place)
        self._running[self._loop.create_task(running.run())] = running
        if self._hedge and number < self._retry.attempts:
            self._next_at = self._loop.time() + self._hedge.delay

    def _acquire(self) -> Lease:
        if self._tried and self._retry.avoid_previous:
            try:
                return self._cluster.acquire(self._key, exclude=self._tried)
            except NoEndpointAvailable:
                pass  # all have been tried: any will do
        return self._cluster.acquire(self._key)

    def _too_late(self) -> Outcome:
        for task, running in self._running.items():
            running.time_out(task)
        return Outcome(error=DeadlineExceeded(f"no answer in time after {len(self._tried)} attempts"))

    async def _end_all(self) -> None:
        """Cancels what is still under way, and waits for it."""
        for task, running in self._running.items():
            running.give_back()
            task.cancel()
        if self._running:
            await asyncio.gather(*self._running, return_exceptions=True)


class _Place:
    """Leave to retry: of the budget, and of the cluster's circuit breakers."""

    def __init__(self, budget: RetryLimit | None, permit: Permit) -> None:
        self._budget = budget
        self._permit = permit

    def give_back(self) -> None:
        if self._budget is not None:
            self._budget.give_back()
        self._permit.release()


def _take_place(cluster: Picker, budget: RetryLimit | None) -> _Place | None:
    """None where there is no room for one more retry."""
    if budget is not None and not budget.take():
        return None
    try:
        return _Place(budget, cluster.retry_permit())
    except Overloaded:
        if budget is not None:
            budget.give_back()
        return None


class _Running:
    """One attempt: runs the caller's coroutine within its time and reports to the lease."""

    def __init__(self, work: Work, lease: Lease, this: Attempt, place: _Place | None) -> None:
        self._place = place
        self._work = work
        self._lease = lease
        self._this = this
        self._timed_out = False

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        running_attempt.set(self._this)  # a task has a context of its own
        began = loop.time()
        deadline = self._this.deadline
        timer = None if deadline is None else loop.call_at(deadline, self.time_out, task)
        try:
            outcome = outcome_of(await self._work(self._this.endpoint))
        except asyncio.CancelledError:
            if not self._timed_out:
                del self._lease  # released without a word: a call that was given up says nothing of the endpoint
                raise
            seconds = loop.time() - began
            address = self._this.endpoint.address
            outcome = Outcome(error=DeadlineExceeded(f"no answer from {address} within {seconds:.3g} s"), status=504)
        except Exception as error:
            outcome = outcome_of(error=error)
        finally:
            if timer is not None:
                timer.cancel()
        self._lease.done(outcome.ok, status=outcome.status, latency=loop.time() - began)
        return outcome

    def give_back(self) -> None:
        """The place of a retry, if it is one."""
        if self._place is not None:
            self._place.give_back()

    def time_out(self, task: asyncio.Task[Any]) -> None:
        """Ends it as one that took too long, for which its endpoint is to blame."""
        self._timed_out = True
        task.cancel()
