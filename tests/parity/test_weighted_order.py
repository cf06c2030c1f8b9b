"""Weighted round robin: hosts come in Envoy's order, begun anywhere.

Where deadlines tie, rounding decides in Envoy and a rule of its own in lbcore, so hosts that are due together may
change places; they are due together at the end of a cycle and, for weights with a common divisor, within it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from math import gcd

import pytest

from lbcore.model import Endpoint
from lbcore.policy import RoundRobin
from tests.harness.bootstrap import StaticCluster
from tests.parity.envoy_picks import EnvoyPicks, host_address

CYCLES = 3
WEIGHTS = [(1, 2), (1, 2, 3), (3, 5, 7), (5, 8, 13, 21), (2, 3, 5, 7, 11), (1, 7), (7, 1, 1, 1), (4, 6, 10), (97, 89)]


def generated_weights() -> Iterator[tuple[int, ...]]:
    choose = random.Random(7)
    yield from WEIGHTS
    for _ in range(11):
        yield tuple(choose.sample(range(1, 30), choose.randint(2, 6)))


LAYOUTS = [
    StaticCluster(
        name="-".join(map(str, weights)),
        endpoints=tuple(Endpoint(host_address(number), weight=weight) for number, weight in enumerate(weights)),
        policy=RoundRobin(),
    )
    for weights in generated_weights()
]


def due_together(layout: StaticCluster) -> list[Counter[str]]:
    """One cycle: who is due at each deadline, k / weight for the k-th pick."""
    divisor = gcd(*(endpoint.weight for endpoint in layout.endpoints))
    deadlines = sorted(
        (Fraction(turn, endpoint.weight // divisor), endpoint.address)
        for endpoint in layout.endpoints
        for turn in range(1, endpoint.weight // divisor + 1)
    )
    return [Counter(host for _, host in due) for _, due in groupby(deadlines, key=lambda pair: pair[0])]


def follows(picks: Sequence[str], groups: Sequence[Counter[str]]) -> bool:
    """Whether the picks hold whole cycles, from some place within the first on."""
    length = sum(group.total() for group in groups)
    return any(begins_with_cycles(picks[start : start + (CYCLES - 1) * length], groups) for start in range(length))


def begins_with_cycles(picks: Sequence[str], groups: Sequence[Counter[str]]) -> bool:
    place = 0
    for group in list(groups) * (CYCLES - 1):
        if Counter(picks[place : place + group.total()]) != group:
            return False
        place += group.total()
    return True


@pytest.fixture(scope="module")
def envoy() -> Iterator[EnvoyPicks]:
    with EnvoyPicks(LAYOUTS) as running:
        yield running


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_weighted_hosts_come_in_envoys_order(layout: StaticCluster, envoy: EnvoyPicks) -> None:
    groups = due_together(layout)
    count = CYCLES * sum(group.total() for group in groups)
    theirs = [host for host in envoy.hosts(layout.name, [""] * count) if host is not None]
    balancer = layout.balancer()
    ours = [balancer.pick().address for _ in range(count)]
    assert follows(theirs, groups), "Envoy"
    assert follows(ours, groups), "lbcore"
