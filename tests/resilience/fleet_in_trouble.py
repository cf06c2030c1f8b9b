"""A fleet of 30 of which a third fails in every way there is, recovers, and fails again, while calls go on.

The parts are real: sockets, aiohttp, active checks, outlier detection, retries. Used by the test of seconds and by the
bench of a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from lbcore import Availability, Cluster, Endpoint, LeastRequest, OutlierDetection
from lbcore.health import HealthChecker, HttpCheck
from lbcore.resilience import Retry, RetryBudget, call
from tests.harness.unreliable import Mood, UnreliableBackends

FLEET, FAILING = 30, 10
WORKERS, PAUSE = 8, 0.01  # calls at once, and seconds between two of one worker
PER_TRY = 0.5  # seconds
PATIENCE = 30.0  # seconds, for what must come
MOODS = (Mood.FAILS, Mood.HANGS, Mood.RESETS, Mood.GARBAGE, Mood.LEAVES)
RETRY = Retry(attempts=5, budget=RetryBudget(budget_percent=100.0))


@dataclass
class Report:
    """What came of it."""

    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    served_after: set[str] = field(default_factory=set)  # endpoints, since the last recovery
    lost: list[str] = field(default_factory=list)  # endpoints that are not used again
    active: int = 0
    open_connections: int = 0
    tasks_left: int = 0
    retries: int = 0

    @property
    def success_rate(self) -> float:
        return 1 - sum(self.failures.values()) / self.calls


async def trouble(seconds: float) -> Report:
    """Runs it: well, in trouble, well, in trouble, well, a fifth of the time each."""
    report = Report()
    before = len(asyncio.all_tasks())
    async with AsyncExitStack() as parts:
        backends = await parts.enter_async_context(UnreliableBackends(FLEET))
        async with AsyncExitStack() as clients:
            await _under_load(backends, seconds, report, clients)
        report.open_connections = await _left_open(backends)
    report.tasks_left = len(asyncio.all_tasks()) - before
    return report


async def _left_open(backends: UnreliableBackends) -> int:
    """Connections that the backends do not see closed in time."""
    deadline = time.monotonic() + PATIENCE
    while sum(backends.open.values()) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(0.05)
    return sum(backends.open.values())


async def _under_load(backends: UnreliableBackends, seconds: float, report: Report, clients: AsyncExitStack) -> None:
    cluster = Cluster(
        "web",
        map(Endpoint, backends.addresses),
        policy=LeastRequest(),
        outlier_detection=OutlierDetection(interval=0.5, base_ejection_time=0.5, max_ejection_percent=40),
        seed=1,
    )
    session = await clients.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    check = HttpCheck(interval=0.2, timeout=PER_TRY, healthy_threshold=2, unhealthy_threshold=2)
    await clients.enter_async_context(HealthChecker(cluster, check))
    stop = asyncio.Event()
    working = [asyncio.ensure_future(_work(cluster, session, stop, report)) for _ in range(WORKERS)]
    troubled = backends.addresses[:FAILING]
    for phase in range(5):
        for address, mood in zip(troubled, itertools.cycle(MOODS), strict=False):
            backends.become(address, mood if phase % 2 else Mood.ANSWERS)
        report.served_after.clear()
        for _ in range(10):
            await asyncio.sleep(seconds / 50)
            cluster.tick()
    await _until_all_are_back(cluster, backends.addresses, report)
    stop.set()
    await asyncio.gather(*working)
    report.active = cluster.stats().active
    report.retries = sum(each.requests for each in cluster.stats().endpoints) - report.calls


async def _work(cluster: Cluster, session: aiohttp.ClientSession, stop: asyncio.Event, report: Report) -> None:
    async def attempt(endpoint: Endpoint) -> int:
        async with session.get(f"http://{endpoint.address}/") as response:
            response.raise_for_status()
            await response.read()
            report.served_after.add(endpoint.address)
            return response.status

    while not stop.is_set():
        report.calls += 1
        try:
            await call(cluster, attempt, retry=RETRY, per_try_timeout=PER_TRY, timeout=10.0)
        except Exception as error:
            report.failures[f"{type(error).__name__}: {error}"] += 1
        await asyncio.sleep(PAUSE)


async def _until_all_are_back(cluster: Cluster, addresses: list[str], report: Report) -> None:
    """Waits until every endpoint is healthy and has served; notes those that never do."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        cluster.tick()
        healthy = {
            each.endpoint.address for each in cluster.stats().endpoints if each.availability is Availability.HEALTHY
        }
        report.lost = sorted(set(addresses) - (healthy & report.served_after))
        if not report.lost:
            return
        await asyncio.sleep(0.05)
