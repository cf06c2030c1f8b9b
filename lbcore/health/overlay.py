"""`DirectoryHealth`: checks the services of a `Directory` that ask for it, and lays what it finds over them.

It reads what sources say and writes findings beside it, so nothing runs in a circle. Changes of one service go out at
most once a window: an endpoint that flaps costs the clients one update a window, and what a source removes never waits.
Where several servers have a `lbcore.board` in common, each checks a share (`lbcore.health.sharing`), and all lay over
what all of them found.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterator, Mapping

from lbcore.board import Board
from lbcore.directory import Directory, DirectorySnapshot
from lbcore.errors import LbError
from lbcore.health.checks import LOG, Timing
from lbcore.health.counts import CheckCounts
from lbcore.health.debounce import Debounce
from lbcore.health.pace import Pace
from lbcore.health.service_health import ServiceHealth
from lbcore.health.sharing import digest
from lbcore.snapshot import ServiceSnapshot

__all__ = ["DirectoryHealth"]

WINDOW = 1.0  # seconds; Envoy merges updates of health for as long (update_merge_window)
_LONGEST_FIRST_ROUND = 5.0  # seconds that a start waits for first checks
_LOOK = 1.0  # seconds between two looks for endpoints that nobody checks


class DirectoryHealth:
    """Follows a directory: `run` until cancelled, then `close`.

    The traffic of the clients does not pass here, so the no-traffic intervals are for Envoy alone. `passed` hears the
    service and address of each check that passed and changed nothing. Without a `board` this server checks everything.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        window: float = WINDOW,
        seed: int | None = None,
        passed: Callable[[str, str], None] = lambda service, address: None,  # noqa: ARG005
        board: Board | None = None,
    ) -> None:
        self._directory = directory
        self._passed = passed
        self._window = window
        self._timing = Timing(draw=random.Random(seed).randrange)
        self._pace = Pace()
        self._board = board
        self._services: dict[str, ServiceHealth] = {}
        self._closing: set[asyncio.Task[None]] = set()
        if board is not None:
            board.follow(self)

    def counts(self) -> Iterator[tuple[str, CheckCounts]]:
        """What each checked service has counted, by name."""
        return ((name, self._services[name].counts) for name in sorted(self._services))

    @property
    def members(self) -> int:
        """How many servers share the checks, this one included."""
        return max(1, len(self._board.members)) if self._board is not None else 1

    def checked_here(self) -> Iterator[tuple[str, int]]:
        """How many endpoints of each service this server checks."""
        return ((name, len(self._services[name].checking)) for name in sorted(self._services))

    def members_changed(self) -> None:
        """See `BoardReader.members_changed`."""
        for service in self._services.values():
            service.meet()

    def verdicts_changed(self, changed: Mapping[str, Collection[str]]) -> None:
        """See `BoardReader.verdicts_changed`."""
        for name in changed.keys() & self._services.keys():
            self._services[name].hear(changed[name])

    async def first_round(self) -> None:
        """Begins with what is in the directory, and returns when it has been checked once, or took too long."""
        self._follow(self._directory.current)
        rounds = [service.first_round(_LONGEST_FIRST_ROUND) for service in self._services.values()]
        await asyncio.gather(*rounds)

    async def run(self) -> None:
        """Follows the directory for ever."""
        looking = asyncio.ensure_future(self._look_for_orphans())
        try:
            async for snapshot in self._directory.watch():
                self._follow(snapshot)
        finally:
            looking.cancel()

    async def _look_for_orphans(self) -> None:
        while self._board is not None:
            await asyncio.sleep(_LOOK)
            for service in list(self._services.values()):
                service.adopt_orphans(asyncio.get_running_loop().time())

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
        if self._board is not None:
            self._board.offer({name: digest(each.settings) for name, each in self._services.items()})

    def _begin(self, service: ServiceSnapshot) -> ServiceHealth | None:
        assert service.health_check is not None
        debounce = Debounce(self._window)
        try:
            running = ServiceHealth(
                service.name,
                service.health_check,
                self._directory,
                self._pace,
                self._timing,
                debounce,
                self._passed,
                self._board,
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


def _is_checked(service: ServiceSnapshot) -> bool:
    return service.health_check is not None and service.health_check.checked_by != "clients"
