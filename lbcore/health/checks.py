"""The checks of one service: a session an endpoint, each with its own state, timer and connection.

An endpoint's checks follow each other: the next interval begins when a check has ended, as in Envoy, so a slow host is
never asked twice at once. All on one event loop; a timeout while that loop itself is late by half the time limit says
nothing of the endpoint, or a busy processor would take a whole fleet out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lbcore.health.counts import CheckCounts
from lbcore.health.events import CheckEventLog, events_of
from lbcore.health.outcome import Cause, Outcome
from lbcore.health.pace import Pace
from lbcore.health.probe import Probe
from lbcore.health.state import CheckState, Draw, Transition, first_delay
from lbcore.model import CheckedHealth, Endpoint
from lbcore.settings import HealthCheck

__all__ = ["Checks", "Listener", "Timing"]

LOG = logging.getLogger(__name__)
_NOTHING_KNOWN: Mapping[str, CheckedHealth] = MappingProxyType({})

Listener = Callable[[Endpoint, CheckState, Outcome, Transition], None]


def _always() -> bool:
    return True


async def _sleep_until(event: asyncio.Event, seconds: float) -> None:
    """Sleeps, unless the event wakes it."""
    if event.is_set():
        return
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class Timing:
    """Where time and chance come from.

    Fields:
        draw: random whole numbers below its argument.
        sleep: waits for an event to be set, or for that many seconds.
        traffic: whether the service has ever had traffic.
        lateness: told, in seconds, how much later than due each check began.
    """

    draw: Draw = field(default_factory=lambda: random.Random().randrange)
    sleep: Callable[[asyncio.Event, float], Awaitable[None]] = _sleep_until
    traffic: Callable[[], bool] = _always
    lateness: Callable[[float], None] | None = None


class Checks:
    """Keeps checking a set of endpoints; `listener` hears every result."""

    def __init__(
        self, service: str, settings: HealthCheck, probe: Probe, listener: Listener, pace: Pace, timing: Timing
    ) -> None:
        self.counts = CheckCounts()
        self._events = CheckEventLog(service, settings)
        self._settings = settings
        self._probe = probe
        self._listener = listener
        self._pace = pace
        self._timing = timing
        self._sessions: dict[str, _Session] = {}

    def follow(self, endpoints: Iterable[Endpoint], known: Mapping[str, CheckedHealth] = _NOTHING_KNOWN) -> None:
        """Checks these from now on: begins with the new ones, ends with those that are gone.

        `known` has what others have found, by address: new checks go on from there.
        """
        wanted = {endpoint.address: endpoint for endpoint in endpoints}
        for address in self._sessions.keys() - wanted.keys():
            self._sessions.pop(address).end()
        for address, endpoint in wanted.items():
            session = self._sessions.get(address)
            if session is None:
                self._sessions[address] = _Session(self, endpoint, known.get(address))
            else:
                session.endpoint = endpoint

    async def first_round(self, limit: float | None = None) -> None:
        """Returns when each endpoint has been checked once, or after `limit` seconds."""
        waiting = [asyncio.ensure_future(session.first.wait()) for session in self._sessions.values()]
        if not waiting:
            return
        try:
            await asyncio.wait(waiting, timeout=limit)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def close(self) -> None:
        """Ends all checks and closes their connections."""
        ending = [session.end() for session in self._sessions.values()]
        self._sessions.clear()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._probe.close()
        self._events.close()


class _Session:
    """The checks of one endpoint."""

    def __init__(self, checks: Checks, endpoint: Endpoint, known: CheckedHealth | None) -> None:
        self.endpoint = endpoint
        self.state = CheckState(checks._settings)
        if known is not None:
            self.state.adopt(known)
        self.first = asyncio.Event()
        self._checks = checks
        self._due = asyncio.Event()
        self._ended = False
        self._lag = 0.0  # seconds by which the event loop itself was late at the last check's time limit
        self._task = asyncio.ensure_future(self._run())

    def end(self) -> asyncio.Task[None]:
        """Ends the checks; returns the task that then ends."""
        self._ended = True  # a probe may take the cancellation for a failed check
        self._task.cancel()
        self.first.set()  # nobody waits for what will not come
        return self._task

    async def _run(self) -> None:
        watching = asyncio.ensure_future(self._checks._probe.watch(self.endpoint, self._due.set))
        try:
            await self._keep_checking()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if self.endpoint.address not in self._checks._sessions:  # it may be back already, on the same connection
                await self._checks._probe.forget(self.endpoint)

    async def _keep_checking(self) -> None:
        timing, settings = self._checks._timing, self._checks._settings
        loop = asyncio.get_running_loop()
        wait = first_delay(settings, timing.draw)
        while True:
            due = loop.time() + wait
            if wait:
                await timing.sleep(self._due, wait)
            with await self._checks._pace.place():
                self._due.clear()
                if timing.lateness is not None:
                    timing.lateness(max(0.0, loop.time() - due))
                outcome = await self._check()
            if self._ended:
                return
            if outcome.cause is Cause.NETWORK_TIMEOUT and self._lag > settings.timeout / 2:
                self._checks.counts.inconclusive += 1
                self.first.set()
            else:
                self._take(outcome)
            wait = self.state.next_interval(timing.draw, traffic=timing.traffic())

    async def _check(self) -> Outcome:
        self._checks.counts.attempt += 1
        loop = asyncio.get_running_loop()
        self._lag = 0.0
        limit = loop.time() + self._checks._settings.timeout
        timer = loop.call_at(limit, self._note_lag, limit)
        try:
            return await self._checks._probe.check(self.endpoint)
        except Exception as error:  # a probe of the caller's own may raise anything, and the others go on
            LOG.exception("checking %s", self.endpoint.address)
            return Outcome(Cause.NETWORK, f"{type(error).__name__}: {error}")
        finally:
            timer.cancel()

    def _note_lag(self, limit: float) -> None:
        self._lag = asyncio.get_running_loop().time() - limit

    def _take(self, outcome: Outcome) -> None:
        counts = self._checks.counts
        counts.take(outcome)
        before = (self.state.checked, self.state.failed, self.state.degraded)
        transition = self.state.take(outcome)
        events = events_of(self._checks._settings, before, self.state, outcome)
        self._checks._events.write(self.endpoint, events, outcome.reason)
        if transition is Transition.CHANGED:
            name = "unhealthy" if self.state.failed else "degraded" if self.state.degraded else "healthy"
            counts.transitions[name, outcome.cause.value if outcome.cause else "passed"] += 1
        self._checks._listener(self.endpoint, self.state, outcome, transition)
        self.first.set()
