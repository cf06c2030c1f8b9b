"""`DirectoryHealth`: checks the services of a `Directory` that ask for it, and lays what it finds over them.

It reads what sources say and writes findings beside it, so nothing runs in a circle. Changes of one service go out at
most once a window: an endpoint that flaps costs the clients one update a window, and what a source removes never waits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

from lbcore.directory import Directory, DirectorySnapshot
from lbcore.errors import LbError
from lbcore.findings import Findings
from lbcore.health.checks import LOG, Checks, Timing
from lbcore.health.counts import CheckCounts
from lbcore.health.debounce import Debounce
from lbcore.health.outcome import Outcome
from lbcore.health.pace import Pace
from lbcore.health.probe import make_probe
from lbcore.health.state import CheckState, Transition
from lbcore.model import CheckedHealth, Endpoint
from lbcore.settings import HealthCheck
from lbcore.snapshot import ServiceSnapshot

__all__ = ["DirectoryHealth"]

WINDOW = 1.0  # seconds; Envoy merges updates of health for as long (update_merge_window)
_GATHERING = 0.05  # seconds that the first change of a window waits for those that come with it
_LONGEST_FIRST_ROUND = 5.0  # seconds that a start waits for first checks


class DirectoryHealth:
    """Follows a directory: `run` until cancelled, then `close`.

    The traffic of the clients does not pass here, so the no-traffic intervals are for Envoy alone. `passed` hears the
    service and address of each check that passed and changed nothing.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        window: float = WINDOW,
        seed: int | None = None,
        passed: Callable[[str, str], None] = lambda service, address: None,  # noqa: ARG005
    ) -> None:
        self._directory = directory
        self._passed = passed
        self._window = window
        self._timing = Timing(draw=random.Random(seed).randrange)
        self._pace = Pace()
        self._services: dict[str, _ServiceHealth] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def counts(self) -> Iterator[tuple[str, CheckCounts]]:
        """What each checked service has counted, by name."""
        return ((name, self._services[name].counts) for name in sorted(self._services))

    async def first_round(self) -> None:
        """Begins with what is in the directory, and returns when it has been checked once, or took too long."""
        self._follow(self._directory.current)
        rounds = [service.first_round(_LONGEST_FIRST_ROUND) for service in self._services.values()]
        await asyncio.gather(*rounds)

    async def run(self) -> None:
        """Follows the directory for ever."""
        async for snapshot in self._directory.watch():
            self._follow(snapshot)

    async def close(self) -> None:
        """Ends every check."""
        for name in list(self._services):
            self._end(name)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _follow(self, snapshot: DirectorySnapshot) -> None:
        wanted = {name: service for name, service in snapshot.said.items() if _is_checked(service)}
        for name in self._services.keys() - wanted.keys():
            self._end(name)
            self._directory.lay_over(name, None)
        for name, service in wanted.items():
            running = self._services.get(name)
            if running is not None and running.settings != service.health_check:
                self._end(name)
                running = None
            if running is None:
                running = self._begin(service)
            if running is not None:
                running.follow(service)

    def _begin(self, service: ServiceSnapshot) -> _ServiceHealth | None:
        assert service.health_check is not None
        debounce = Debounce(self._window)
        try:
            running = _ServiceHealth(
                service, service.health_check, self._directory, self._pace, self._timing, debounce, self._passed
            )
        except (LbError, OSError) as error:
            LOG.error("service %r is not checked: %s", service.name, error)
            self._directory.lay_over(service.name, None)
            return None
        self._services[service.name] = running
        return running

    def _end(self, name: str) -> None:
        ending = self._services.pop(name)
        ending.silence()
        task = asyncio.ensure_future(ending.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _ServiceHealth:
    """The checks of one service, and what of their results has not gone out yet."""

    def __init__(
        self,
        service: ServiceSnapshot,
        settings: HealthCheck,
        directory: Directory,
        pace: Pace,
        timing: Timing,
        debounce: Debounce,
        passed: Callable[[str, str], None],
    ) -> None:
        self.settings = settings
        self._passed = passed
        self._name = service.name
        self._directory = directory
        self._debounce = debounce
        self._checks = Checks(service.name, settings, make_probe(service.name, settings), self._hear, pace, timing)
        self._found: dict[str, CheckedHealth] = {}
        self._seen: ServiceSnapshot | None = None
        self._first_ones: set[str] = set()  # of the first round, that have not been checked yet
        self._timer: asyncio.TimerHandle | None = None
        self._silent = False

    @property
    def counts(self) -> CheckCounts:
        return self._checks.counts

    def follow(self, service: ServiceSnapshot) -> None:
        """Checks the endpoints that the service has now."""
        if service is self._seen:
            return
        addresses = {endpoint.address for endpoint in service.endpoints}
        if self._seen is None:
            self._first_ones = set(addresses)
        self._first_ones &= addresses
        self._seen = service
        self._found = {address: found for address, found in self._found.items() if address in addresses}
        self._checks.follow(service.endpoints)

    async def first_round(self, limit: float) -> None:
        await self._checks.first_round(limit)
        self._publish()

    def silence(self) -> None:
        """Publishes nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._silent = True

    async def close(self) -> None:
        await self._checks.close()

    def _hear(self, endpoint: Endpoint, state: CheckState, outcome: Outcome, transition: Transition) -> None:
        self._first_ones.discard(endpoint.address)
        if self._silent:
            return
        if transition is not Transition.CHANGED:
            if outcome.passed and not state.failed:
                self._passed(self._name, endpoint.address)
            return
        self._found[endpoint.address] = state.found(outcome.reason)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = max(self._debounce.due(loop.time()), loop.time() + _GATHERING)
            self._timer = loop.call_at(due, self._publish)

    def _publish(self) -> None:
        if self._silent:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._debounce.sent(asyncio.get_running_loop().time())
        self._directory.lay_over(self._name, Findings(dict(self._found), hold_new=not self._first_ones))


def _is_checked(service: ServiceSnapshot) -> bool:
    return service.health_check is not None and service.health_check.checked_by != "clients"
