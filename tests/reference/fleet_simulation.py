"""A fleet under a virtual clock in plain Python: what the native event loop must do, event by event.

Clients pick through `Cluster.acquire` and tell how it ended through `Lease.done`, as programs do.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from statistics import median_low

from lbcore import Cluster, Lease, LoadReport, NoEndpointAvailable, Prequal, VirtualClock
from lbcore.simulation import Baseline, Burst, Event, FailFast, Join, Leave, Pause, Scenario
from lbcore.simulation.run import Contender
from tests.reference.workload import Request, Stream, Workload

SECOND = 1_000_000_000
# At one time events happen in this order; a change of the fleet before all of them, an arrival after.
SERVED, ANSWERED, TIMED_OUT, REACHED, PROBE_REACHED, PROBED = range(6)
REMEMBERED, ENOUGH = 128, 8


@dataclass(eq=False)
class Attempt:
    serial: int
    request: Request
    server: int
    sent: int
    work: float
    lease: Lease | None
    retry: bool
    waited_for: bool = True
    failed: bool = False
    resumed: int = 0
    version: int = 0
    report: LoadReport | None = None  # what the server told when it answered
    reached: int = 0
    found: int = 0  # requests in flight at the server when it came there


@dataclass(eq=False)
class Probe:
    serial: int
    client: int
    server: int
    version: int = 0
    in_flight: int = 0
    latency: int = -1


@dataclass
class Server:
    workers: int
    nominal: float
    present: bool
    factors: dict[int, float] = field(default_factory=dict)
    queue: deque[Attempt] = field(default_factory=deque)
    served: list[Attempt] = field(default_factory=list)
    outstanding: int = 0
    failing: float = 0.0
    failure_work: float = 0.0
    accounted: int = 0  # ns
    utilization: float = 0.0
    completion_rate: float = 0.0
    failure_rate: float = 0.0
    # When, and what it told from then on; ns.
    told: list[tuple[int, LoadReport]] = field(default_factory=list)
    # When, requests found, latency; ns.
    answers: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def in_flight(self) -> int:
        return len(self.served) + len(self.queue)

    def account(self, now: int, window: float) -> None:
        """Brings the averages up to now; `window` in ns."""
        if now > self.accounted:
            kept = math.exp((self.accounted - now) / window)
            self.utilization = self.utilization * kept + len(self.served) / self.workers * (1.0 - kept)
            self.completion_rate *= kept
            self.failure_rate *= kept
        self.accounted = now

    @property
    def load(self) -> LoadReport:
        return LoadReport(
            rif=self.in_flight,
            application_utilization=self.utilization,
            rps_fractional=self.completion_rate,
            eps=self.failure_rate,
        )

    def load_at(self, moment: int) -> LoadReport:
        return next((load for at, load in reversed(self.told) if at <= moment), LoadReport(rif=0))

    def estimate(self, now: int) -> int:
        """The median latency of the answers whose requests found nearly as many in flight as there are."""
        recent = [(abs(found - self.in_flight), taken) for at, found, taken in self.answers if now - at <= SECOND]
        if not recent:
            return -1 if self.in_flight else 0
        farthest = sorted(distance for distance, _ in recent)[:ENOUGH][-1]
        return median_low(taken for distance, taken in recent if distance <= farthest)

    @property
    def speed(self) -> float:
        speed = self.nominal
        for factor in self.factors.values():
            speed *= factor
        return speed


@dataclass
class Ending:
    """One request's: ns from arrival, the last server or -1, whether it succeeded, how often it was tried."""

    latency: int
    server: int
    succeeded: bool
    tries: int


class FleetSimulation:
    """`run` gives the ending of each request; `picks` the time and server of each attempt."""

    def __init__(self, scenario: Scenario, contender: Contender, seed: int, affected: list[list[int]]) -> None:
        self.scenario = scenario
        self.clock = VirtualClock()
        self.start = self.clock.now
        self.picks: list[tuple[int, int]] = []
        self.endings: dict[int, Ending] = {}
        self._baseline = contender if isinstance(contender, Baseline) else None
        self._affected = affected
        self._bursts: dict[int, float] = {}
        joining = {
            server
            for event, servers in zip(scenario.events, affected, strict=True)
            if isinstance(event, Join)
            for server in servers
        }
        self.servers = [
            Server(workers, speed, number not in joining)
            for number, (workers, speed) in enumerate(zip(scenario.fleet.workers, scenario.fleet.speeds, strict=True))
        ]
        self._workload = Workload(scenario, seed, self.start)
        self._ties, self._faults, self._reports, self._probes = (Stream(seed, number) for number in (4, 5, 6, 7))
        self._probing = scenario.traffic.probes if isinstance(contender, Prequal) else 0
        self._probes_sent = 0
        self._events: list[tuple[int, int, int, int, Attempt | Probe]] = []
        self._arrived: dict[int, int] = {}
        self._tries: dict[int, int] = {}
        self._active = [0] * scenario.fleet.clients
        self._retrying = [0] * scenario.fleet.clients
        self._members = scenario.fleet.members()
        self._addresses = {each.address: number for number, each in enumerate(scenario.fleet.endpoints())}
        seeds = random.Random(f"{seed}/clients")
        self._clusters = []
        if not isinstance(contender, Baseline):
            self._clusters = [
                Cluster(
                    f"client-{number}",
                    policy=contender,
                    outlier_detection=scenario.outlier_detection,
                    seed=seeds.getrandbits(64),
                    clock=self.clock,
                )
                for number in range(scenario.fleet.clients)
            ]
            self._update_clusters()

    def run(self) -> list[Ending]:
        changes = self._changes()
        tick = self.start + SECOND
        while len(self.endings) < self.scenario.traffic.requests:
            change = changes[0][0] if changes else None
            arrival = self._workload.next_at
            event = self._events[0][0] if self._events else None
            # Equal times: a change, a tick, an event, an arrival.
            times = [change, tick if arrival is not None else None, event, arrival]
            now, what = min((time, order) for order, time in enumerate(times) if time is not None)
            self.clock.now = now
            if what == 0:
                _, _, index, begins = heapq.heappop(changes)
                self._change(index, begins, changes, now)
            elif what == 1:
                for cluster in self._clusters:
                    cluster.tick()
                tick += SECOND
            elif what == 2:
                _, kind, _, version, attempt = heapq.heappop(self._events)
                if isinstance(attempt, Probe):
                    self._happen_to_probe(kind, attempt)
                else:
                    self._happen(kind, version, attempt)
            else:
                self._arrive()
        return [self.endings[number] for number in range(len(self.endings))]

    # Changes of the fleet

    def _changes(self) -> list[tuple[int, int, int, bool]]:
        changes = []
        for index, event in enumerate(self.scenario.events):
            changes.append((self.start + round(event.at * 1e9), 1, index, True))
        heapq.heapify(changes)
        return changes

    def _change(self, index: int, begins: bool, changes: list[tuple[int, int, int, bool]], now: int) -> None:
        event = self.scenario.events[index]
        if begins and not isinstance(event, Join) and event.duration is not None:
            heapq.heappush(changes, (now + round(event.duration * 1e9), 0, index, False))
        if begins and isinstance(event, Pause) and event.every is not None:
            heapq.heappush(changes, (now + round(event.every * 1e9), 1, index, True))
        if isinstance(event, Burst):
            self._burst(index, event if begins else None)
        for number in self._affected[index]:
            self._change_server(self.servers[number], event, index, begins)
        if isinstance(event, Join | Leave) and self._clusters:
            self._update_clusters()

    def _change_server(self, server: Server, event: Event, index: int, begins: bool) -> None:
        if isinstance(event, Join | Leave):
            server.present = isinstance(event, Join) == begins
        elif isinstance(event, FailFast):
            server.failing, server.failure_work = (event.share / 100.0, event.latency * 1e9) if begins else (0.0, 0.0)
        elif not isinstance(event, Burst):
            self._account(server)
            for attempt in server.served:
                attempt.work = max(0.0, attempt.work - (self.clock.now - attempt.resumed) * server.speed)
            server.factors.pop(index, None)
            if begins:
                server.factors[index] = 0.0 if isinstance(event, Pause) else 1.0 / event.factor
            for attempt in server.served:
                self._resume(server, attempt)

    def _burst(self, index: int, event: Burst | None) -> None:
        self._bursts.pop(index, None)
        if event is not None:
            self._bursts[index] = event.factor
        interval = self.scenario.interval * 1e9
        for factor in self._bursts.values():
            interval /= factor
        self._workload.set_interval(interval, self.clock.now)

    def _update_clusters(self) -> None:
        endpoints = self.scenario.fleet.endpoints()
        for cluster, members in zip(self._clusters, self._members, strict=True):
            cluster.update(endpoints[number] for number in members if self.servers[number].present)

    # Requests

    def _arrive(self) -> None:
        request = self._workload.take()
        self._arrived[request.number] = self.clock.now
        self._send(request, request.key, retry=False)

    def _send(self, request: Request, key: int, *, retry: bool) -> None:
        lease = None
        self._tries[request.number] = self._tries.get(request.number, 0) + 1
        if self._baseline is not None:
            number = self._choose()
        else:
            with contextlib.suppress(NoEndpointAvailable):
                lease = self._clusters[request.client].acquire(key)
            number = -1 if lease is None else self._addresses[lease.endpoint.address]
        if number < 0:
            self._finish(request, -1, succeeded=False)
            return
        self.picks.append((self.clock.now - self.start, number))
        attempt = Attempt(len(self.picks), request, number, self.clock.now, request.work, lease, retry)
        self._active[request.client] += 1
        self._retrying[request.client] += retry
        self.servers[number].outstanding += 1
        self._later(round(self.scenario.fleet.network_delay * 1e9), REACHED, attempt)
        if self.scenario.retries is not None and self.scenario.retries.per_try_timeout:
            self._later(round(self.scenario.retries.per_try_timeout * 1e9), TIMED_OUT, attempt)
        self._send_probes(request.client)

    def _send_probes(self, client: int) -> None:
        known = [number for number in self._members[client] if self.servers[number].present]
        count = min(self._probing, len(known))
        drawn: list[int] = []
        for last in range(len(known) - count, len(known)):
            place = self._probes.below(last + 1)
            drawn.append(last if place in drawn else place)
            probe = Probe(self._probes_sent, client, known[drawn[-1]])
            self._probes_sent += 1
            self._later(round(self.scenario.fleet.network_delay * 1e9), PROBE_REACHED, probe)

    def _happen_to_probe(self, kind: int, probe: Probe) -> None:
        server = self.servers[probe.server]
        if kind == PROBED:
            latency = None if probe.latency < 0 else (probe.latency + 0.5) / 1e9  # half a nanosecond: none is lost
            address = self.scenario.fleet.endpoints()[probe.server].address
            with contextlib.suppress(KeyError):
                self._clusters[probe.client].observe(address, LoadReport(rif=probe.in_flight), latency=latency)
        elif server.speed > 0.0:
            probe.in_flight, probe.latency = server.in_flight, server.estimate(self.clock.now)
            self._later(round(self.scenario.fleet.network_delay * 1e9), PROBED, probe)

    def _choose(self) -> int:
        def cost(server: Server) -> tuple[float, int]:
            rounds = max(1.0, (server.outstanding + 1) / server.workers)
            delay = rounds / max(server.speed, 1e-12) if self._baseline is Baseline.SED else 0.0
            return delay, server.outstanding

        best, ties = -1, 0
        for number, server in enumerate(self.servers):
            if not server.present:
                continue
            if best < 0 or cost(server) < cost(self.servers[best]):
                best, ties = number, 1
            elif cost(server) == cost(self.servers[best]):
                ties += 1
                if self._ties.below(ties) == 0:
                    best = number
        return best

    def _later(self, delay: int, kind: int, attempt: Attempt | Probe) -> None:
        heapq.heappush(self._events, (self.clock.now + delay, kind, attempt.serial, attempt.version, attempt))

    def _happen(self, kind: int, version: int, attempt: Attempt) -> None:
        server = self.servers[attempt.server]
        if kind == REACHED:
            attempt.reached, attempt.found = self.clock.now, server.in_flight
            if len(server.served) < server.workers:
                self._start(server, attempt)
            else:
                server.queue.append(attempt)
            self._note_load(server)
        elif kind == SERVED and version == attempt.version:
            self._leave(server, attempt)
        elif kind == ANSWERED:
            self._answer(server, attempt)
        elif kind == TIMED_OUT and attempt.waited_for:
            self._end(attempt, ok=False, status=504, load=None)
            self._conclude(attempt, succeeded=False)

    def _account(self, server: Server) -> None:
        if self.scenario.reports is not None:
            server.account(self.clock.now, self.scenario.reports.window * 1e9)

    def _note_load(self, server: Server) -> None:
        if self.scenario.reports is not None and self.scenario.reports.delay:
            self._account(server)
            server.told.append((self.clock.now, server.load))

    def _start(self, server: Server, attempt: Attempt) -> None:
        self._account(server)
        if server.failing > 0.0 and self._faults.unit() < server.failing:
            attempt.failed = True
            attempt.work = server.failure_work
        server.served.append(attempt)
        self._resume(server, attempt)

    def _resume(self, server: Server, attempt: Attempt) -> None:
        attempt.version += 1
        attempt.resumed = self.clock.now
        if server.speed > 0.0:
            self._later(int(attempt.work / server.speed + 0.5), SERVED, attempt)

    def _leave(self, server: Server, attempt: Attempt) -> None:
        self._account(server)
        server.served.remove(attempt)
        if reports := self.scenario.reports:
            server.completion_rate += 1e9 / (reports.window * 1e9)
            if attempt.failed:
                server.failure_rate += 1e9 / (reports.window * 1e9)
            attempt.report = server.load
            if reports.delay:
                attempt.report = server.load_at(self.clock.now - round(reports.delay * 1e9))
        server.answers.append((self.clock.now, attempt.found, self.clock.now - attempt.reached))
        self._later(round(self.scenario.fleet.network_delay * 1e9), ANSWERED, attempt)
        if server.queue:
            self._start(server, server.queue.popleft())
        self._note_load(server)

    def _answer(self, server: Server, attempt: Attempt) -> None:
        server.outstanding -= 1
        if not attempt.waited_for:
            return
        load = None
        reports = self.scenario.reports
        if reports is not None and (reports.loss == 0.0 or self._reports.unit() >= reports.loss / 100.0):
            load = attempt.report
        self._end(attempt, ok=not attempt.failed, status=503 if attempt.failed else 200, load=load)
        self._conclude(attempt, succeeded=not attempt.failed)

    def _end(self, attempt: Attempt, *, ok: bool, status: int, load: LoadReport | None) -> None:
        attempt.waited_for = False
        self._active[attempt.request.client] -= 1
        self._retrying[attempt.request.client] -= attempt.retry
        if attempt.lease is not None:
            attempt.lease.done(ok, status=status, load=load)

    def _conclude(self, attempt: Attempt, *, succeeded: bool) -> None:
        request, retries = attempt.request, self.scenario.retries
        if not succeeded and retries is not None and self._tries[request.number] <= retries.num_retries:
            allowed = max(
                self._active[request.client] * retries.budget_percent / 100.0, float(retries.min_retry_concurrency)
            )
            if self._retrying[request.client] < allowed:
                self._send(request, self._ties.bits(), retry=True)
                return
        self._finish(request, attempt.server, succeeded=succeeded)

    def _finish(self, request: Request, server: int, *, succeeded: bool) -> None:
        latency = self.clock.now - self._arrived[request.number]
        self.endings[request.number] = Ending(latency, server, succeeded, self._tries[request.number])
