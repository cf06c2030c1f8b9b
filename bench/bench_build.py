"""Building what hash policies look keys up in: the whole of `update` after a change of membership.

Maglev beside a C loop that takes each slot once; rings beside numpy's sort of as many 64-bit numbers.
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


MAGLEV_SIZES = [(65537, 100), (65537, 1000), (655373, 1000)]


@pytest.mark.parametrize(("size", "members"), MAGLEV_SIZES)
def test_maglev(versus: Versus, size: int, members: int) -> None:
    toggled = Toggled(members, Maglev(table_size=size))
    toggled.rebuild()
    assert visit(size, size // 3 | 1) == size
    versus(
        f"update, maglev {size}, {members} endpoints",
        Loop("toggled.rebuild()", {"toggled": toggled}, 1),
        "C loop: each slot once",
        Loop("visit(size, skip)", {"visit": visit, "size": size, "skip": size // 3 | 1}, 1),
        rounds=20,
    )


@pytest.mark.parametrize("exponent", [10, 17, 20])
def test_ring(versus: Versus, exponent: int) -> None:
    size = 1 << exponent
    toggled = Toggled(100, RingHash(minimum_ring_size=size))
    toggled.rebuild()
    numbers = np.random.default_rng(8).integers(0, 2**64, size, dtype=np.uint64)
    versus(
        f"update, ring of 2^{exponent}, 100 endpoints",
        Loop("toggled.rebuild()", {"toggled": toggled}, 1),
        "numpy.sort of as many uint64",
        Loop("sort(numbers)", {"sort": np.sort, "numbers": numbers}, 1),
        rounds=20,
    )
