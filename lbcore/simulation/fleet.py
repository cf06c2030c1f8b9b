"""The simulated fleet: servers with their speeds, clients, which servers each of them knows, what lies between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lbcore.errors import Mistake
from lbcore.model import MAX_WEIGHT, Endpoint
from lbcore.schema import Checked
from lbcore.subsetting import DeterministicSubsetting
from lbcore.validation import Number, Seconds, Whole

__all__ = ["Fleet", "Servers"]

MAX_SERVERS = 100_000
MAX_CLIENTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers(Checked):
    """Servers that are alike.

    Fields:
        count: how many.
        speed: 1.0 takes the service time as it is, 0.2 five times as long.
        workers: how many requests each serves at a time; the others wait in the order of arrival.
        weight: of their endpoints, for policies that weigh.
    """

    count: Annotated[int, Whole(1, MAX_SERVERS)]
    speed: Annotated[float, Number(0.001, 1000.0)] = 1.0
    workers: Annotated[int, Whole(1, 1024)] = 1
    weight: Annotated[int, Whole(1, MAX_WEIGHT)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet(Checked):
    """Servers, and the clients that balance over them, each with a cluster of its own and no knowledge of the others.

    Fields:
        servers: groups of servers that are alike.
        clients: how many; each request comes to one of them at random.
        subset_size: how many servers each client knows; None: all. As `DeterministicSubsetting` chooses.
        network_delay: seconds from a client to a server, and again back.

    >>> fleet = Fleet(servers=(Servers(count=90), Servers(count=10, speed=0.2)))
    >>> len(fleet.speeds), fleet.capacity
    (100, 92.0)
    """

    servers: tuple[Servers, ...]
    clients: Annotated[int, Whole(1, MAX_CLIENTS)] = 1
    subset_size: Annotated[int, Whole(1, MAX_SERVERS)] | None = None
    network_delay: Annotated[float, Seconds(0.0)] = 0.00025

    def contradictions(self) -> Iterator[Mistake]:
        count = sum(group.count for group in self.servers)
        if not 1 <= count <= MAX_SERVERS:
            yield Mistake(("servers",), f"servers: {count} in all, expected 1 to {MAX_SERVERS}")
        if self.subset_size is not None and self.subset_size > count:
            yield Mistake(
                ("subset_size",), f"subset_size {self.subset_size}: expected at most as many as servers, {count}"
            )

    @property
    def speeds(self) -> list[float]:
        """Of each server."""
        return [group.speed for group in self.servers for _ in range(group.count)]

    @property
    def workers(self) -> list[int]:
        """Of each server."""
        return [group.workers for group in self.servers for _ in range(group.count)]

    @property
    def capacity(self) -> float:
        """Requests of mean service time 1 that the fleet serves in time 1."""
        return sum(group.count * group.speed * group.workers for group in self.servers)

    def endpoints(self) -> list[Endpoint]:
        """Of each server."""
        weights = [group.weight for group in self.servers for _ in range(group.count)]
        return [
            Endpoint(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:80", weight=weight)
            for number, weight in enumerate(weights)
        ]

    def members(self) -> list[list[int]]:
        """The servers that each client knows, in the order of its cluster."""
        endpoints = self.endpoints()
        if self.subset_size is None:
            return [list(range(len(endpoints)))] * self.clients
        numbers = {endpoint.address: number for number, endpoint in enumerate(endpoints)}
        known = []
        for client in range(self.clients):
            subsetting = DeterministicSubsetting(
                client_index=client, client_count=self.clients, subset_size=self.subset_size
            )
            known.append([numbers[endpoint.address] for endpoint in subsetting.choose(endpoints)])
        return known
