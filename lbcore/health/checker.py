"""`HealthChecker`: active checks of the endpoints of a `Cluster`, in any asyncio program."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import TracebackType

from lbcore.cluster import Cluster
from lbcore.health.checks import Checks, Timing
from lbcore.health.counts import CheckCounts
from lbcore.health.debounce import Debounce
from lbcore.health.outcome import Outcome
from lbcore.health.pace import Pace
from lbcore.health.probe import Probe, make_probe
from lbcore.health.state import CheckState, Transition
from lbcore.model import CheckedHealth, Endpoint
from lbcore.settings import HealthCheck
from lbcore.waiting import set_within

__all__ = ["HealthChecker"]

_LOOK = 0.1  # seconds between two looks at the cluster's membership
_NOT_YET = CheckedHealth(passing=False, reason="not checked yet")


class HealthChecker:
    """Checks a cluster's endpoints and tells the cluster what it finds.

    Args:
        cluster: whose endpoints; its updates are followed.
        check: a `HealthCheck`, which `HttpCheck`, `TcpCheck` and `GrpcCheck` make.
        probe: instead of the check's own, for other protocols.
        has_traffic: whether the cluster has ever been used; until then the no-traffic intervals hold. None: it is used.
        window: seconds within which results that change something are taken together, because each change rebuilds
            what picks read.
        max_concurrent: checks that begin at once.
        seed: of the jitter; equal seeds give equal times.

    Endpoints that are there at the start are used until their first check, which decides at once. Those that join
    later are out until they have passed one, as in Envoy. When the checker is closed, what it has found is taken back,
    because nobody would find the opposite.

    `async with` waits for the first round; `start` and `close` do the same without a block.

    >>> import asyncio
    >>> from lbcore.health import HealthChecker, TcpCheck
    >>> async def main() -> list[str]:
    ...     cluster = Cluster("web", [Endpoint("127.0.0.1:1")])  # where nobody listens
    ...     async with HealthChecker(cluster, TcpCheck(timeout=1.0)):
    ...         return [each.availability.value for each in cluster.stats().endpoints]
    >>> asyncio.run(main())
    ['unavailable']
    """

    def __init__(
        self,
        cluster: Cluster,
        check: HealthCheck,
        *,
        probe: Probe | None = None,
        has_traffic: Callable[[], bool] | None = None,
        window: float = 0.05,
        max_concurrent: int = 64,
        seed: int | None = None,
    ) -> None:
        self._cluster = cluster
        self._settings = check
        self._probe = probe
        self._has_traffic = has_traffic
        self._max_concurrent = max_concurrent
        self._seed = seed
        self._checks: Checks | None = None
        self._task: asyncio.Task[None] | None = None
        self._members: tuple[Endpoint, ...] = ()
        self._known: dict[str, CheckedHealth] = {}  # by address
        self._found: dict[str, CheckedHealth] = {}  # of that, what is not yet applied
        self._debounce = Debounce(window)
        self._changed = asyncio.Event()

    @property
    def counts(self) -> CheckCounts:
        """What has been counted since the start."""
        return self._checks.counts if self._checks else CheckCounts()

    async def start(self) -> None:
        """Begins, and returns when each endpoint has been checked once."""
        draw = random.Random(self._seed).randrange
        timing = Timing(draw=draw) if self._has_traffic is None else Timing(draw=draw, traffic=self._has_traffic)
        probe = self._probe or make_probe(self._cluster.name, self._settings)
        self._checks = Checks(self._cluster.name, self._settings, probe, self._hear, Pace(self._max_concurrent), timing)
        self._follow(self._checks)
        self._task = asyncio.ensure_future(self._run(self._checks))
        await self._checks.first_round()
        self._apply()

    async def close(self) -> None:
        """Ends the checks and takes their findings back."""
        if self._checks is None or self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._checks.close()
        self._cluster.apply_checks({endpoint.address: CheckedHealth() for endpoint in self._cluster.endpoints})

    async def __aenter__(self) -> HealthChecker:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _hear(self, endpoint: Endpoint, state: CheckState, outcome: Outcome, transition: Transition) -> None:
        if transition is Transition.CHANGED:
            self._known[endpoint.address] = self._found[endpoint.address] = state.found(outcome.reason)
            self._changed.set()
        if outcome.passed and not state.failed:
            self._cluster.passed_check(endpoint.address)  # ends an ejection

    async def _run(self, checks: Checks) -> None:
        """Applies what is found, and follows the membership."""
        while True:
            if not await set_within(self._changed, _LOOK):
                self._follow(checks)
                continue
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._debounce.due(now) - now)
            self._follow(checks)
            self._apply()

    def _apply(self) -> None:
        self._changed.clear()
        self._debounce.sent(asyncio.get_running_loop().time())
        found, self._found = self._found, {}
        self._cluster.apply_checks(found)

    def _follow(self, checks: Checks) -> None:
        members = self._cluster.endpoints
        if members is self._members:
            return
        if self._members:
            before = {endpoint.address for endpoint in self._members}
            known = {each.address: self._known.get(each.address) for each in members}
            # All of it, because an address that has left and come back since the last look starts anew in the cluster.
            again = {address: found for address, found in known.items() if found is not None}
            joined = {address: _NOT_YET for address in known if address not in before}
            self._cluster.apply_checks({**joined, **again})
            self._known = again
        self._members = members
        checks.follow(members)
