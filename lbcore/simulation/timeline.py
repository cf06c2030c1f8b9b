"""A scenario's events as single changes to a running simulation, in the order of time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lbcore._core import Simulation
from lbcore.simulation.events import Burst, Event, FailFast, Join, Leave, Pause
from lbcore.simulation.scenario import Scenario

__all__ = ["Change", "FleetState", "affected_servers", "changes", "spans"]


def affected_servers(scenario: Scenario, seed: int) -> list[list[int]]:
    """The servers of each event, drawn at random; those of several joins are distinct."""
    everything = range(len(scenario.fleet.speeds))
    joined: set[int] = set()
    affected: list[list[int]] = []
    for index, event in enumerate(scenario.events):
        drawn: list[int] = []
        if not isinstance(event, Burst):
            choice = [each for each in everything if not isinstance(event, Join) or each not in joined]
            drawn = sorted(random.Random(f"{seed}/event/{index}").sample(choice, event.servers))
        if isinstance(event, Join):
            joined.update(drawn)
        affected.append(drawn)
    return affected


class FleetState:
    """What holds of the servers now, with several events on one server at a time, and the simulation told of it."""

    def __init__(self, scenario: Scenario, simulation: Simulation, present: set[int]) -> None:
        self.present = present  # clients know them
        self._simulation = simulation
        self._interval = scenario.interval * 1e9
        self._speeds = scenario.fleet.speeds
        self._factors: dict[int, dict[int, float]] = {server: {} for server in range(len(self._speeds))}
        self._bursts: dict[int, float] = {}
        for server, speed in enumerate(self._speeds):
            simulation.set_speed(server, speed)
            simulation.set_present(server, server in present)

    def speed(self, server: int, event: int, factor: float | None) -> None:
        """An event changes a server's speed by a factor; None: no longer."""
        self._factors[server].pop(event, None)
        if factor is not None:
            self._factors[server][event] = factor
        speed = self._speeds[server]
        for each in self._factors[server].values():
            speed *= each
        self._simulation.set_speed(server, speed)

    def failing(self, server: int, share: float, latency: float) -> None:
        self._simulation.set_failing(server, share / 100.0, latency * 1e9)

    def burst(self, event: int, factor: float | None) -> None:
        """An event multiplies the rate of requests; None: no longer."""
        self._bursts.pop(event, None)
        if factor is not None:
            self._bursts[event] = factor
        interval = self._interval
        for each in self._bursts.values():
            interval /= each
        self._simulation.set_interval(interval)

    def membership(self, servers: Iterable[int], present: bool) -> None:
        for server in servers:
            self._simulation.set_present(server, present)
        self.present = self.present | set(servers) if present else self.present - set(servers)


@dataclass(order=True)
class Change:
    """One moment at which something begins or ends.

    Fields:
        at: nanoseconds since the start.
        order: among those of one time: ends before beginnings, then as the scenario has them.
        apply: does it.
        membership: whether clients have to be told who is there.
    """

    at: int
    order: tuple[int, int]
    apply: Callable[[FleetState], None] = field(compare=False)
    membership: bool = field(compare=False, default=False)


def changes(scenario: Scenario, affected: list[list[int]]) -> Iterator[Change]:
    """All changes in the order of time; without end where an event repeats."""
    return heapq.merge(*(_changes_of(event, index, affected[index]) for index, event in enumerate(scenario.events)))


def spans(scenario: Scenario, last: float) -> list[tuple[float, float]]:
    """From when to when something is going on, in seconds, each repetition by itself, up to `last`."""
    found = []
    for event in scenario.events:
        duration = None if isinstance(event, Join) else event.duration
        every = event.every if isinstance(event, Pause) else None
        begin = event.at
        while begin < last:
            found.append((begin, last if duration is None else min(last, begin + duration)))
            if every is None:
                break
            begin += every
    return found


def _changes_of(event: Event, index: int, servers: list[int]) -> Iterator[Change]:
    begin, end = _effect(event, index, servers)
    membership = isinstance(event, Join | Leave)
    at = round(event.at * 1e9)
    while True:
        yield Change(at, (1, index), begin, membership)
        if isinstance(event, Join) or event.duration is None:
            return
        yield Change(at + round(event.duration * 1e9), (0, index), end, membership)
        if not isinstance(event, Pause) or event.every is None:
            return
        at += round(event.every * 1e9)


def _effect(
    event: Event, index: int, servers: list[int]
) -> tuple[Callable[[FleetState], None], Callable[[FleetState], None]]:
    """What to do at its beginning, and at its end."""
    if isinstance(event, Burst):
        factor = event.factor
        return lambda fleet: fleet.burst(index, factor), lambda fleet: fleet.burst(index, None)
    if isinstance(event, Join):
        return lambda fleet: fleet.membership(servers, True), _nothing
    if isinstance(event, Leave):
        return lambda fleet: fleet.membership(servers, False), lambda fleet: fleet.membership(servers, True)
    if isinstance(event, FailFast):
        share, latency = event.share, event.latency
        return _for_each(servers, lambda fleet, server: fleet.failing(server, share, latency)), _for_each(
            servers, lambda fleet, server: fleet.failing(server, 0.0, 0.0)
        )
    slowed = 0.0 if isinstance(event, Pause) else 1.0 / event.factor
    return _for_each(servers, lambda fleet, server: fleet.speed(server, index, slowed)), _for_each(
        servers, lambda fleet, server: fleet.speed(server, index, None)
    )


def _nothing(_: FleetState) -> None:
    return None


def _for_each(servers: list[int], apply: Callable[[FleetState, int], None]) -> Callable[[FleetState], None]:
    def to_all(fleet: FleetState) -> None:
        for server in servers:
            apply(fleet, server)

    return to_all
