"""Prequal in plain Python, from "Load is not what you should balance: Introducing Prequal", NSDI 2024."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

HOT, UNKNOWN = 1e12, 4e12


@dataclass
class Probe:
    name: str
    at: int  # ns
    rif: float
    latency: float  # seconds
    uses: float


@dataclass
class Pool:
    """Places for probes of some endpoints, of which nobody fails and all have weight 1."""

    size: int
    endpoints: int
    probes_per_pick: float
    quantile: float = 0.84
    max_age: int = 1_000_000_000  # ns
    places: list[Probe | None] = field(init=False)
    found: deque[int] = field(default_factory=lambda: deque(maxlen=128))
    active: dict[str, int] = field(default_factory=dict)
    oldest_next: bool = False

    def __post_init__(self) -> None:
        self.places = [None] * self.size

    @property
    def probes(self) -> list[Probe]:
        return [each for each in self.places if each is not None]

    @property
    def threshold(self) -> float:
        if self.quantile == 1.0 or not self.found:
            return math.inf
        return sorted(self.found)[int(self.quantile * len(self.found))]

    @property
    def uses(self) -> float:
        """b_reuse with delta = 1 and one removal a request."""
        kept = (1 - self.size / self.endpoints) * self.probes_per_pick - 1
        return max(1.0, 2 / kept) if kept > 0 else math.inf

    def observe(self, name: str, rif: int, latency: float, now: int) -> None:
        probe = Probe(name, now, rif, latency, self.uses)
        names = [each.name if each else None for each in self.places]
        if name in names:
            place = names.index(name)
        elif None in names:
            place = names.index(None)
        else:
            place = min(range(self.size), key=lambda i: self.probes[i].at)
        self.places[place] = probe
        self.found.append(rif)

    def send(self, name: str) -> None:
        self.active[name] = self.active.get(name, 0) + 1
        for place, probe in enumerate(self.places):
            if probe and probe.name == name:
                probe.rif += 1
                probe.uses -= 1
                if probe.uses < 1:
                    self.places[place] = None
        if self.probes:
            gone = (
                min(self.probes, key=lambda each: each.at) if self.oldest_next else max(self.probes, key=self.score_of)
            )
            self.places[self.places.index(gone)] = None
        self.oldest_next = not self.oldest_next

    def score_of(self, probe: Probe) -> float:
        return HOT + probe.rif if probe.rif > self.threshold else probe.latency

    def score(self, name: str, now: int) -> float:
        for probe in self.probes:
            if probe.name == name and now - probe.at <= self.max_age:
                return self.score_of(probe)
        return UNKNOWN + self.active.get(name, 0) + 1
