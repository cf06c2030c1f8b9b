"""Picks without a key: what lbcore adds to an empty method of the same signature.

F: an empty method without arguments. F1: an empty `pick(key=None)`. Lease: an `acquire` that hands out an object from a
free list and a `done` that does nothing.
"""

from __future__ import annotations

import random

import pytest

from bench.conftest import Versus
from bench.fleet import endpoints
from bench.floor._floor import Floor
from bench.loop import Loop
from lbcore import CircuitBreakers, Cluster, LeastRequest, OutlierDetection, Policy, Random, RoundRobin

PICKS = [
    ("round robin, 10", RoundRobin(), 10, False, 1.25),
    ("round robin, weighted, 10", RoundRobin(), 10, True, 1.4),
    ("round robin, weighted, 10 000", RoundRobin(), 10_000, True, 1.4),
    ("random, 10", Random(), 10, False, 1.4),
    ("random, weighted, 10", Random(), 10, True, None),
]


@pytest.mark.parametrize(("name", "policy", "count", "weighted", "goal"), PICKS, ids=[row[0] for row in PICKS])
def test_pick(versus: Versus, name: str, policy: Policy, count: int, weighted: bool, goal: float | None) -> None:
    cluster = Cluster("bench", endpoints(count, weighted=weighted), policy=policy, seed=1)
    floor = Floor(cluster.endpoints[0])
    versus(
        f"pick(), {name}",
        Loop("cluster.pick()", {"cluster": cluster}),
        "F1: empty pick(key=None)",
        Loop("floor.pick()", {"floor": floor}),
        goal=goal,
    )


ACQUIRES = [
    ("sampled, 10", LeastRequest(), 10, False, 5.5),
    ("sampled, weighted, 10", LeastRequest(), 10, True, None),
    ("sampled, 1000", LeastRequest(), 1000, False, None),
    ("full scan, 10", LeastRequest(selection_method="full_scan"), 10, False, None),
]


@pytest.mark.parametrize(("name", "policy", "count", "weighted", "goal"), ACQUIRES, ids=[row[0] for row in ACQUIRES])
def test_acquire_and_done(
    versus: Versus, name: str, policy: Policy, count: int, weighted: bool, goal: float | None
) -> None:
    cluster = Cluster("bench", endpoints(count, weighted=weighted), policy=policy, seed=1)
    versus(
        f"acquire().done(), least request, {name}",
        Loop("cluster.acquire().done()", {"cluster": cluster}),
        "F: empty method",
        Loop("floor.noargs()", {"floor": Floor(cluster.endpoints[0])}),
        goal=goal,
    )


def test_acquire_and_done_beside_an_empty_lease(versus: Versus) -> None:
    cluster = Cluster("bench", endpoints(10), policy=LeastRequest(), seed=1)
    versus(
        "acquire().done(), least request, sampled, 10",
        Loop("cluster.acquire().done()", {"cluster": cluster}),
        "empty lease and done()",
        Loop("floor.acquire().done()", {"floor": Floor(cluster.endpoints[0])}),
    )


def test_acquire_and_done_under_outlier_detection(versus: Versus) -> None:
    watched = Cluster(
        "bench",
        endpoints(10),
        policy=LeastRequest(),
        seed=1,
        outlier_detection=OutlierDetection(),
        circuit_breakers=CircuitBreakers(),
    )
    versus(
        "acquire().done(), least request, sampled, 10, outlier detection and circuit breakers",
        Loop("cluster.acquire().done()", {"cluster": watched}),
        "F: empty method",
        Loop("floor.noargs()", {"floor": Floor(watched.endpoints[0])}),
        goal=6.5,  # one F more than without
    )


def test_with_acquire(versus: Versus) -> None:
    cluster = Cluster("bench", endpoints(10), policy=LeastRequest(), seed=1)
    versus(
        "with acquire(), least request, sampled, 10",
        Loop("with cluster.acquire(): pass", {"cluster": cluster}),
        "F: empty method",
        Loop("floor.noargs()", {"floor": Floor(cluster.endpoints[0])}),
        goal=12,
    )


def test_random_beside_the_standard_library(versus: Versus) -> None:
    cluster = Cluster("bench", endpoints(10), policy=Random(), seed=1)
    versus(
        "pick(), random, 10",
        Loop("cluster.pick()", {"cluster": cluster}),
        "random.choice of a list of 10",
        Loop("choice(members)", {"choice": random.choice, "members": list(cluster.endpoints)}),
    )
