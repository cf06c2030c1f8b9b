"""Queues whose mean wait is known: M/M/1, M/M/c (Erlang C) and M/G/1 (Pollaczek and Khinchine)."""

from __future__ import annotations

import math

import pytest

from lbcore import Random
from lbcore.simulation import (
    Bimodal,
    Deterministic,
    Exponential,
    Fleet,
    Hyperexponential,
    Lognormal,
    Measured,
    Pareto,
    Scenario,
    Servers,
    ServiceTime,
    Traffic,
    run_once,
)

MEAN = 0.01
SEEDS = range(1, 7)
REQUESTS = 150_000


def waits(service_time: ServiceTime, load: float, workers: int = 1) -> list[float]:
    """The mean wait in the queue, one a seed, in mean service times."""
    scenario = Scenario(
        fleet=Fleet(servers=(Servers(count=1, workers=workers),), network_delay=0.0),
        traffic=Traffic(load=100 * load, service_time=service_time, requests=REQUESTS),
        measured=Measured(after=0.5),
    )
    return [run_once(scenario, Random(), seed).mean / MEAN - 1.0 for seed in SEEDS]


def assert_agrees(found: list[float], expected: float) -> None:
    """Within four standard errors, which 6 runs tell to about a third, or 3 %."""
    mean = sum(found) / len(found)
    error = math.sqrt(sum((each - mean) ** 2 for each in found) / (len(found) - 1) / len(found))
    assert abs(mean - expected) < max(4 * error, 0.03 * expected), (mean, error, expected)


def erlang_c(workers: int, load: float) -> float:
    """The probability that a request waits."""
    offered = workers * load
    served = sum(offered**n / math.factorial(n) for n in range(workers))
    waiting = offered**workers / math.factorial(workers) / (1 - load)
    return waiting / (served + waiting)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_of_one_server(load: float) -> None:
    assert_agrees(waits(Exponential(mean=MEAN), load), load / (1 - load))


@pytest.mark.parametrize(("workers", "load"), [(2, 0.7), (8, 0.9)])
def test_mean_wait_of_several_workers(workers: int, load: float) -> None:
    expected = erlang_c(workers, load) / (workers * (1 - load))
    assert_agrees(waits(Exponential(mean=MEAN), load, workers), expected)


@pytest.mark.parametrize(
    ("service_time", "squared_variation"),
    [
        (Deterministic(mean=MEAN), 0.0),
        (Lognormal(mean=MEAN, sigma=1.0), math.e - 1),
        (Bimodal(mean=MEAN, long_share=10.0, long_factor=10.0), (0.9 + 0.1 * 100) / 1.9**2 - 1),
        (Hyperexponential(mean=MEAN, long_share=10.0, long_factor=10.0), 2 * (0.9 + 0.1 * 100) / 1.9**2 - 1),
        (Pareto(mean=MEAN, alpha=5.0), 1 / (5.0 * 3.0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_mean_wait_of_other_service_times(service_time: ServiceTime, squared_variation: float) -> None:
    load = 0.7
    assert_agrees(waits(service_time, load), load / (1 - load) * (1 + squared_variation) / 2)
