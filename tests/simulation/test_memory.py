"""Adaptive with a memory far from the usual one: slower than it could be, but not without bound.

What it was before an endpoint was judged by no more than twenty answers, and forgotten no sooner than in the time of as
many: 29 times JSQ's p99 in the first, 8 and growing in the second.
"""

from __future__ import annotations

import pytest

from lbcore import Adaptive
from lbcore.simulation import Exponential, Fleet, Scenario, Servers, Traffic, run

EVEN = (Servers(count=100),)
TENTH_SLOW = (Servers(count=90), Servers(count=10, speed=0.2))


@pytest.mark.parametrize(("clients", "servers", "memory"), [(20, EVEN, 200.0), (100, TENTH_SLOW, 5.0)])
def test_it_stays_bounded(clients: int, servers: tuple[Servers, ...], memory: float) -> None:
    traffic = Traffic(load=90.0, service_time=Exponential(mean=0.01), requests=250_000)
    scenario = Scenario(fleet=Fleet(servers=servers, clients=clients), traffic=traffic)
    row = run(scenario, policies=[Adaptive(memory=memory)]).rows[2]
    assert row.p99_to_jsq < 6.0
    assert row.growth < 1.5
