"""One run of a scenario under one policy, or under a baseline, with one seed."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import TypeAlias

from lbcore._core import Simulation, VirtualClock
from lbcore.cluster import Cluster
from lbcore.policy import Policy
from lbcore.simulation.events import Join
from lbcore.simulation.outcome import Outcome, outcome_of
from lbcore.simulation.scenario import Scenario
from lbcore.simulation.service_time import native_form
from lbcore.simulation.timeline import Change, FleetState, affected_servers, changes

__all__ = ["Baseline", "Contender", "Progress", "run_once", "run_to_end"]

SECOND = 1_000_000_000
MOST_TICKS = 10_000  # of each client, which calls Cluster.tick once a second unless that is more often
Progress: TypeAlias = Callable[[float], None]  # told of the share that is done, 0 to 1


class Baseline(enum.Enum):
    """What a policy that knows everything at once would do. Its picks cost nothing and see through the network.

    JSQ joins the truly shortest queue, requests under way included: full-scan least request in one place for all
    clients, each of whom knows every server. SED, shortest expected delay, knows the true speeds as well.
    """

    JSQ = 1
    SED = 2


Contender: TypeAlias = Policy | Baseline


def run_once(scenario: Scenario, contender: Contender, seed: int, progress: Progress | None = None) -> Outcome:
    """Runs a scenario to its last answer, and measures.

    Equal arguments give an equal outcome. Whatever the contender, equal seeds give the same requests: the same times of
    arrival, the same work, at the same clients.
    """
    affected = affected_servers(scenario, seed)
    return outcome_of(scenario, run_to_end(scenario, contender, seed, affected, progress), affected)


def run_to_end(
    scenario: Scenario, contender: Contender, seed: int, affected: list[list[int]], progress: Progress | None = None
) -> Simulation:
    """The native loop after the last answer; `affected` are the servers of each event."""
    joining = {
        server
        for event, servers in zip(scenario.events, affected, strict=True)
        for server in servers
        if isinstance(event, Join)
    }
    present = set(range(len(scenario.fleet.speeds))) - joining
    simulation = _simulation(scenario, contender, seed)
    fleet = FleetState(scenario, simulation, present)
    clients = None if isinstance(contender, Baseline) else _Clients(scenario, contender, seed, simulation, present)
    pending = changes(scenario, affected)
    change = next(pending, None)
    total = scenario.traffic.requests
    every = max(SECOND, round(scenario.duration * SECOND / MOST_TICKS))
    tick, finished = every, 0
    while finished < total:
        # Without an event to come what is left is to wait for answers; until the last arrival clients tick.
        arriving = simulation.arrivals_left > 0
        stops = ([change.at] if change else []) + ([tick] if arriving else [])
        finished = simulation.run(min(stops, default=None))
        if progress is not None:
            progress(finished / total)
        if change is not None and stops and min(stops) == change.at:
            _apply(change, fleet, clients)
            change = next(pending, None)
        elif arriving:
            tick += every
            if clients is not None:
                clients.tick()
    return simulation


def _simulation(scenario: Scenario, contender: Contender, seed: int) -> Simulation:
    """The native loop, set up but for its clients."""
    simulation = Simulation(
        VirtualClock(),
        seed=seed,
        requests=scenario.traffic.requests,
        workers=scenario.fleet.workers,
        clients=scenario.fleet.clients,
        baseline=contender.value if isinstance(contender, Baseline) else 0,
        network_delay=round(scenario.fleet.network_delay * 1e9),
    )
    simulation.set_arrivals(scenario.interval * 1e9, *native_form(scenario.traffic.service_time))
    after, until = scenario.window
    simulation.set_measured(round(after * 1e9), None if until is None else round(until * 1e9))
    simulation.set_probes(scenario.traffic.probes)
    if reports := scenario.reports:
        simulation.set_reports(reports.loss / 100.0, reports.window * 1e9, round(reports.delay * 1e9))
    if retries := scenario.retries:
        simulation.set_retries(
            retries.num_retries,
            round((retries.per_try_timeout or 0.0) * 1e9),
            retries.budget_percent / 100.0,
            retries.min_retry_concurrency,
        )
    return simulation


def _apply(change: Change, fleet: FleetState, clients: _Clients | None) -> None:
    change.apply(fleet)
    if change.membership and clients is not None:
        clients.update(fleet.present)


class _Clients:
    """Each client's cluster, which knows the members of its subset that are there."""

    def __init__(
        self, scenario: Scenario, policy: Policy, seed: int, simulation: Simulation, present: set[int]
    ) -> None:
        self._simulation = simulation
        self._endpoints = scenario.fleet.endpoints()
        self._members = scenario.fleet.members()
        seeds = random.Random(f"{seed}/clients")
        self._clusters = [
            Cluster(
                f"client-{number}",
                policy=policy,
                outlier_detection=scenario.outlier_detection,
                seed=seeds.getrandbits(64),
                clock=simulation.clock,
            )
            for number in range(scenario.fleet.clients)
        ]
        self.update(present)

    def update(self, present: set[int]) -> None:
        for number, (cluster, members) in enumerate(zip(self._clusters, self._members, strict=True)):
            known = [server for server in members if server in present]
            cluster.update(self._endpoints[server] for server in known)
            self._simulation.set_client(number, cluster, known)

    def tick(self) -> None:
        for cluster in self._clusters:
            cluster.tick()
