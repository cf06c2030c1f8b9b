"""The health of one service in a `Directory`: this server's share of the checks, and what follows from all servers'."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from lbcore.board import Board, Verdict
from lbcore.directory import Directory
from lbcore.findings import Findings
from lbcore.health.checks import Checks, Timing
from lbcore.health.counts import CheckCounts
from lbcore.health.debounce import Debounce
from lbcore.health.outcome import Outcome
from lbcore.health.pace import Pace
from lbcore.health.probe import make_probe
from lbcore.health.sharing import ServiceShare, digest
from lbcore.health.state import CheckState, Transition
from lbcore.model import CheckedHealth, Endpoint
from lbcore.settings import HealthCheck
from lbcore.snapshot import ServiceSnapshot

__all__ = ["ServiceHealth"]

_GATHERING = 0.05  # seconds that the first change of a window waits for those that come with it
_NO_VERDICTS: Mapping[str, Verdict] = MappingProxyType({})


class ServiceHealth:
    """The checks of one service, and what of their results has not gone out yet. See `DirectoryHealth`."""

    def __init__(
        self,
        name: str,
        settings: HealthCheck,
        directory: Directory,
        pace: Pace,
        timing: Timing,
        debounce: Debounce,
        passed: Callable[[str, str], None],
        board: Board | None,
    ) -> None:
        self.settings = settings
        self.checking: set[str] = set()  # the addresses that this server checks
        self._passed = passed
        self._name = name
        self._directory = directory
        self._debounce = debounce
        self._checks = Checks(name, settings, make_probe(name, settings), self._hear_check, pace, timing)
        self._board = board
        self._digest = digest(settings)
        self._share = ServiceShare(board.me if board else "", name, board.owners if board else 1)
        self._endpoints: dict[str, Endpoint] = {}
        self._found: dict[str, CheckedHealth] = {}
        self._seen: ServiceSnapshot | None = None
        self._first_ones: set[str] = set()  # of the first round, of which nothing is known yet
        self._unheard: dict[str, float] = {}  # since when nobody has said anything of an endpoint
        self._timer: asyncio.TimerHandle | None = None
        self._assigning: asyncio.Handle | None = None
        self._silent = False

    @property
    def counts(self) -> CheckCounts:
        return self._checks.counts

    def follow(self, service: ServiceSnapshot) -> None:
        """Checks this server's share of the endpoints that the service has now."""
        if service is self._seen:
            return
        before, self._endpoints = self._endpoints, {endpoint.address: endpoint for endpoint in service.endpoints}
        if self._seen is None:
            self._first_ones = set(self._endpoints)
            self._meet()
        self._seen = service
        for address in before.keys() - self._endpoints.keys():
            self._share.forget(address)
            self._found.pop(address, None)
            self._first_ones.discard(address)
        self._listen(self._endpoints.keys() - before.keys())
        self._assign()

    def meet(self) -> None:
        """Takes the members that there are now."""
        if self._meet():
            self._listen(self._endpoints)
            self._assign()

    def hear(self, addresses: Collection[str]) -> None:
        """Takes what members say of endpoints now."""
        if not self._share.alone:
            self._listen(self._endpoints.keys() & addresses)

    def adopt_orphans(self, now: float) -> None:
        """Checks what nobody speaks of though its owners have had time to: they may not know it."""
        if self._board is None:
            return
        silent = {address for address in self._endpoints if self._share.unheard(address)}
        self._unheard = {address: self._unheard.get(address, now) for address in silent}
        limit = self._board.patience + self.settings.initial_jitter + self.settings.interval + self.settings.timeout
        orphans = [address for address, since in self._unheard.items() if now - since > limit]
        if orphans:
            self._share.adopt(orphans)
            self._assign()

    async def first_round(self, limit: float) -> None:
        await self._checks.first_round(limit)
        self._publish()

    def silence(self) -> None:
        """Publishes nothing more."""
        for timer in (self._timer, self._assigning):
            if timer is not None:
                timer.cancel()
        self._timer = self._assigning = None
        self._silent = True
        self._retract(self.checking)

    async def close(self) -> None:
        await self._checks.close()

    def _meet(self) -> bool:
        if self._board is None:
            return False
        members = self._board.members
        same = {member for member, services in members.items() if services.get(self._name) == self._digest}
        alone = self._share.alone
        changed = self._share.meet({*same, self._board.me} if members else ())
        if alone is not self._share.alone:  # what is checked goes on from what is known by then
            self._checks.follow(())
            self.checking = set()
        return changed

    def _listen(self, addresses: Iterable[str]) -> None:
        """Takes all that there is on the board about some endpoints."""
        if self._board is not None and not self._share.alone:
            verdicts = self._board.verdicts(self._name)
            for address in addresses:
                self._share.hear(address, verdicts.get(address, _NO_VERDICTS))
                self._take(address)

    def _hear_check(self, endpoint: Endpoint, state: CheckState, outcome: Outcome, transition: Transition) -> None:
        address = endpoint.address
        if self._silent or address not in self.checking:
            return
        changed = transition is Transition.CHANGED
        if not changed and outcome.passed and not state.failed:
            self._passed(self._name, address)
        if not changed and self._share.own(address) is not None:
            return
        known = None if changed else self._share.found(address)  # with the reason for it
        found = known or state.found(outcome.reason)
        self._share.say(address, found)
        if self._board is not None and not self._share.alone:
            self._board.say(self._name, address, found)
        self._take(address)

    def _take(self, address: str) -> None:
        """Takes what follows for an endpoint, and has it published and its checks given to whom they belong."""
        found = self._share.found(address)
        if found is not None and found != self._found.get(address):
            self._found[address] = found
            self._first_ones.discard(address)
            self._publish_soon()
        if self._share.checks(address) is not (address in self.checking) and self._assigning is None:
            self._assigning = asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self) -> None:
        """Checks what is this server's to check, and leaves the rest to others."""
        if self._assigning is not None:
            self._assigning.cancel()
            self._assigning = None
        mine = [endpoint for address, endpoint in self._endpoints.items() if self._share.checks(address)]
        before, self.checking = self.checking, {endpoint.address for endpoint in mine}
        self._retract(before - self.checking)
        known = {address: found for address in self.checking - before if (found := self._share.found(address))}
        self._checks.follow(mine, known)

    def _retract(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self._share.drop(address)
            if self._board is not None and not self._share.alone:
                self._board.say(self._name, address, None)

    def _publish_soon(self) -> None:
        if self._timer is None and not self._silent:
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
