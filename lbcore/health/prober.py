"""`Prober`: asks a few random endpoints for their load, with each request or at an interval, and tells the cluster.

Of a report counts `rif`, the server's requests in flight, and the named metric `latency`, the seconds that requests
take there now. Probes are cheap and many, so a lost one is only counted: the next is on its way.

Source: "Load is not what you should balance: Introducing Prequal", NSDI 2024.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

from lbcore.cluster import Cluster
from lbcore.model import Endpoint, LoadReport
from lbcore.validation import UINT32_MAX, number, whole

__all__ = ["KeepsConnections", "LoadProbe", "Prober"]

logger = logging.getLogger(__name__)

LATENCY = "latency"  # the named metric

Counted = Literal["observed", "failed", "skipped"]


class LoadProbe(Protocol):
    """Asks one endpoint: `lbcore.health.load_probes` has HTTP's and gRPC's. Write your own for other protocols.

    One that keeps connections of its own has `KeepsConnections.forget` as well.
    """

    async def ask(self, endpoint: Endpoint) -> LoadReport | None:
        """The endpoint's load, in no longer than the timeout; None where it did not say."""

    async def close(self) -> None:
        """Closes everything."""


@runtime_checkable
class KeepsConnections(Protocol):
    """What a `LoadProbe` has besides, if it keeps something open to each endpoint."""

    async def forget(self, endpoint: Endpoint) -> None:
        """Closes what is kept open to an endpoint that has left the cluster."""


class Prober:
    """Feeds a cluster that picks by `Prequal` or `Adaptive`.

    Args:
        cluster: whose endpoints; its updates are followed.
        probe: how to ask; closed with the prober.
        probes: endpoints asked at a time; parts of one add up, so 0.5 is one each second time.
        interval: seconds from one time to the next; None: only when `picked` is called.
        max_concurrent: probes under way; what would be more is skipped.
        seed: of the choice of endpoints; None: a random one.

    `async with` runs it in the event loop at hand. Raises `InvalidSetting`.

    >>> import asyncio
    >>> from lbcore import Cluster, Endpoint, LoadReport, Prequal
    >>> class Idle:
    ...     async def ask(self, endpoint: Endpoint) -> LoadReport:
    ...         return LoadReport(rif=0)
    ...     async def close(self) -> None: ...
    >>> async def main() -> int:
    ...     cluster = Cluster("web", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")], policy=Prequal())
    ...     async with Prober(cluster, Idle(), probes=2) as prober:
    ...         prober.picked()
    ...         await asyncio.sleep(0.01)
    ...         return prober.counts["observed"]
    >>> asyncio.run(main())
    2
    """

    def __init__(
        self,
        cluster: Cluster,
        probe: LoadProbe,
        *,
        probes: float = 3.0,
        interval: float | None = None,
        max_concurrent: int = 64,
        seed: int | None = None,
    ) -> None:
        self._cluster = cluster
        self._probe = probe
        self._probes = number(probes, "probes", 0.0)
        self._interval = None if interval is None else number(interval, "interval", 0.001)
        self._max_concurrent = whole(max_concurrent, "max_concurrent", 1, UINT32_MAX)
        self._random = random.Random(seed)
        self._due = 0.0
        self._members: tuple[Endpoint, ...] = ()
        self._asking: dict[asyncio.Task[None], str] = {}  # which address
        self._forgetting: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self.counts: Counter[Counted] = Counter()

    def picked(self) -> None:
        """Sends the probes of one request; call it beside `acquire`, in the event loop's thread."""
        endpoints = self._cluster.endpoints
        if endpoints is not self._members:
            self._follow(endpoints)
        self._due = min(self._due + self._probes, float(len(endpoints)))
        count = int(self._due)
        self._due -= count
        for endpoint in self._random.sample(endpoints, count):
            if len(self._asking) >= self._max_concurrent:
                self.counts["skipped"] += 1
                continue
            task = asyncio.ensure_future(self._ask(endpoint))
            self._asking[task] = endpoint.address
            task.add_done_callback(self._asking.pop)

    async def close(self) -> None:
        """Ends the probes under way."""
        tasks = [*self._asking, *self._forgetting, *([self._ticking] if self._ticking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._probe.close()

    async def __aenter__(self) -> Prober:
        if self._interval is not None:
            self._ticking = asyncio.ensure_future(self._tick(self._interval))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _tick(self, interval: float) -> None:
        while True:
            self.picked()
            await asyncio.sleep(interval)

    def _follow(self, endpoints: tuple[Endpoint, ...]) -> None:
        """The members are now these."""
        before, self._members = self._members, endpoints
        if isinstance(self._probe, KeepsConnections):
            here = {each.address for each in endpoints}
            for endpoint in before:
                if endpoint.address not in here:
                    task = asyncio.ensure_future(self._forget(self._probe, endpoint))
                    self._forgetting.add(task)
                    task.add_done_callback(self._forgetting.discard)

    async def _forget(self, probe: KeepsConnections, endpoint: Endpoint) -> None:
        """Closes what is kept open to it, when the last answer of it is in; unless it has come back meanwhile."""
        if under_way := [task for task, address in self._asking.items() if address == endpoint.address]:
            await asyncio.wait(under_way)
        if all(each.address != endpoint.address for each in self._cluster.endpoints):
            try:
                await probe.forget(endpoint)
            except Exception:  # as below
                logger.exception("forgetting %s", endpoint.address)

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            report = await self._probe.ask(endpoint)
        except Exception:  # a probe of the caller's own may raise anything
            logger.exception("asking %s for its load", endpoint.address)
            report = None
        if report is None or report.rif is None:
            self.counts["failed"] += 1
            return
        latency = report.named_metrics.get(LATENCY)
        try:
            self._cluster.observe(endpoint.address, report, latency=latency)
        except (KeyError, ValueError):  # it has left meanwhile; or says nonsense
            self.counts["failed"] += 1
        else:
            self.counts["observed"] += 1
