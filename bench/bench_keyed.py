"""Keyed picks: what hashing a 16-byte key and finding its host add to an empty method with one argument (O).

One constant key shows the path alone, as branches and cache lines are learned; 100 000 distinct keys show it as a proxy
meets it, and their floor walks the same list.
"""

from __future__ import annotations

import pytest

from bench.conftest import Versus
from bench.fleet import endpoints, keys
from bench.floor._floor import Floor
from bench.loop import Loop
from lbcore import Cluster, Maglev, Policy, RingHash

POLICIES = [
    ("maglev 65537", Maglev(), 10, 2.4),
    ("ring of 1024", RingHash(), 10, 2.4),
    ("ring of 65536", RingHash(minimum_ring_size=65536), 100, None),
    ("ring of 1048576", RingHash(minimum_ring_size=1 << 20), 100, None),
]
NAMES = [row[0] for row in POLICIES]


@pytest.mark.parametrize(("name", "policy", "count", "goal"), POLICIES, ids=NAMES)
def test_one_constant_key(versus: Versus, name: str, policy: Policy, count: int, goal: float | None) -> None:
    cluster = Cluster("bench", endpoints(count), policy=policy)
    (key,) = keys(1)
    versus(
        f"pick(key), {name}, one key",
        Loop("cluster.pick(one)", {"cluster": cluster, "one": key}),
        "O: empty method of one argument",
        Loop("floor.one(one)", {"floor": Floor(cluster.endpoints[0]), "one": key}),
        goal=goal,
    )


@pytest.mark.parametrize(("name", "policy", "count", "_goal"), POLICIES, ids=NAMES)
def test_distinct_keys(versus: Versus, name: str, policy: Policy, count: int, _goal: float | None) -> None:
    cluster = Cluster("bench", endpoints(count), policy=policy)
    many = keys(100_000)
    versus(
        f"pick(key), {name}, 100 000 keys",
        Loop("cluster.pick(key)", {"cluster": cluster}, many),
        "O: empty method of one argument",
        Loop("floor.one(key)", {"floor": Floor(cluster.endpoints[0])}, many),
        rounds=30,
    )
