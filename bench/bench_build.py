"""Building what hash policies look keys up in: for a new cluster, and anew when one endpoint comes or goes.

Maglev beside a C loop that takes each slot once; rings beside numpy's sort of as many 64-bit numbers. Both
include all that `Cluster(...)` and `update` do besides: the checks, the slots, the swap.
"""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from bench.conftest import Versus
from bench.fleet import endpoints
from bench.floor._floor import visit
from bench.loop import Loop
from lbcore import Cluster, Endpoint, Maglev, Policy, RingHash


class Toggled:
    """A cluster whose every `rebuild` is a real change: one endpoint comes and goes."""

    def __init__(self, members: int, policy: Policy) -> None:
        self.cluster = Cluster("bench", policy=policy)
        self._without = endpoints(members)
        self._with = [*self._without, Endpoint("10.255.255.255:80")]
        self._turn = count()

    def rebuild(self) -> None:
        if not self.cluster.update(self._with if next(self._turn) % 2 == 0 else self._without):
            raise AssertionError("the update changed nothing, so nothing was measured")


MAGLEV_SIZES = [(65537, 100, 1.5e-3), (65537, 1000, 1.5e-3), (655373, 1000, 20e-3)]
RING_SIZES = [(10, None), (17, 8e-3), (20, 45e-3)]


def new_cluster(members: int, policy: Policy) -> Loop:
    names = {"Cluster": Cluster, "members": endpoints(members), "policy": policy}
    return Loop('Cluster("bench", members, policy=policy)', names, 1)


def one_change(members: int, policy: Policy) -> Loop:
    toggled = Toggled(members, policy)
    toggled.rebuild()
    return Loop("toggled.rebuild()", {"toggled": toggled}, 1)


def each_slot_once(size: int) -> Loop:
    skip = size // 3 | 1
    assert visit(size, skip) == size
    return Loop("visit(size, skip)", {"visit": visit, "size": size, "skip": skip}, 1)


def sorting(size: int) -> Loop:
    numbers = np.random.default_rng(8).integers(0, 2**64, size, dtype=np.uint64)
    return Loop("sort(numbers)", {"sort": np.sort, "numbers": numbers}, 1)


@pytest.mark.parametrize(("size", "members", "limit"), MAGLEV_SIZES)
def test_new_maglev(versus: Versus, size: int, members: int, limit: float) -> None:
    subject = new_cluster(members, Maglev(table_size=size))
    name = f"new cluster, maglev {size}, {members} endpoints"
    versus(name, subject, "C loop: each slot once", each_slot_once(size), limit=limit, rounds=30)


@pytest.mark.parametrize(("exponent", "limit"), RING_SIZES)
def test_new_ring(versus: Versus, exponent: int, limit: float | None) -> None:
    subject = new_cluster(100, RingHash(minimum_ring_size=1 << exponent))
    name = f"new cluster, ring of 2^{exponent}, 100 endpoints"
    versus(name, subject, "numpy.sort of as many uint64", sorting(1 << exponent), limit=limit, rounds=30)


@pytest.mark.parametrize(("exponent", "limit"), [(10, None), (17, None), (20, 3e-3)])
def test_one_change_of_a_ring(versus: Versus, exponent: int, limit: float | None) -> None:
    subject = one_change(100, RingHash(minimum_ring_size=1 << exponent))
    name = f"one endpoint comes or goes, ring of 2^{exponent}, 100 endpoints"
    versus(name, subject, "numpy.sort of as many uint64", sorting(1 << exponent), limit=limit, rounds=30)


def test_one_change_of_a_maglev_table(versus: Versus) -> None:
    name = "one endpoint comes or goes, maglev 65537, 100 endpoints"
    versus(name, one_change(100, Maglev()), "C loop: each slot once", each_slot_once(65537), rounds=30)
