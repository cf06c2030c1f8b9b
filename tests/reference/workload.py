"""The requests of a simulation, drawn in plain Python from the same random numbers as the native core draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lbcore.simulation import Bimodal, Exponential, Hyperexponential, Lognormal, Pareto, Scenario, ServiceTime

MASK = 2**64 - 1
STEP = 0xA0761D6478BD642F
OTHER = 0xE7037ED1A0B428DB


def mix(state: int) -> int:
    """wyrand: both halves of a product, folded."""
    product = state * (state ^ OTHER)
    return (product >> 64) ^ (product & MASK)


class Stream:
    """One of a seed's independent sources of random numbers."""

    def __init__(self, seed: int, number: int) -> None:
        self._state = mix((mix((seed + STEP) & MASK) + number * OTHER) & MASK)

    def bits(self) -> int:
        self._state = (self._state + STEP) & MASK
        return mix(self._state)

    def below(self, bound: int) -> int:
        return (self.bits() * bound) >> 64

    def unit(self) -> float:
        return (self.bits() >> 11) / 2**53

    def exponential(self) -> float:
        return -math.log(1.0 - self.unit())


@dataclass(frozen=True)
class Request:
    number: int
    client: int
    work: float  # ns at speed 1
    key: int


class Workload:
    """Requests in order, and the time of the next one: `next_at`, in ns; None after the last."""

    def __init__(self, scenario: Scenario, seed: int, start: int) -> None:
        self._service_time = scenario.traffic.service_time
        self._clients = scenario.fleet.clients
        self._requests = scenario.traffic.requests
        self._arrivals, self._sizes, self._choice, self._keys = (Stream(seed, number) for number in range(4))
        self._interval = scenario.interval * 1e9
        self._number = 0
        self._next = start
        self._advance()

    @property
    def next_at(self) -> int | None:
        return self._next if self._number < self._requests else None

    def take(self) -> Request:
        request = Request(
            self._number,
            self._choice.below(self._clients),
            work(self._service_time, self._sizes),
            self._keys.bits(),
        )
        self._number += 1
        self._advance()
        return request

    def set_interval(self, interval: float, now: int) -> None:
        self._next = now + int((self._next - now) * interval / self._interval + 0.5)
        self._interval = interval

    def _advance(self) -> None:
        self._next += int(self._interval * self._arrivals.exponential() + 0.5)


def work(service_time: ServiceTime, random: Stream) -> float:
    """ns that a request takes at speed 1."""
    mean = service_time.mean * 1e9
    if isinstance(service_time, Exponential):
        return mean * random.exponential()
    if isinstance(service_time, Lognormal):
        normal = math.sqrt(2.0 * random.exponential()) * math.cos(2.0 * math.pi * random.unit())
        return mean * math.exp(service_time.sigma * normal - service_time.sigma * service_time.sigma / 2.0)
    unit = random.unit()
    if isinstance(service_time, Bimodal | Hyperexponential):
        share = service_time.long_share / 100.0
        length = service_time.long_factor if unit < share else 1.0
        length = mean * length / (1.0 + share * (service_time.long_factor - 1.0))
        return length if isinstance(service_time, Bimodal) else length * random.exponential()
    if isinstance(service_time, Pareto):
        alpha = service_time.alpha
        return mean * (alpha - 1.0) / alpha * (1.0 - unit) ** (-1.0 / alpha)
    return mean
