"""Batch picks: per key, beside a C loop that only looks each hash up in a table of 65537 slots."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.conftest import Versus
from bench.fleet import endpoints, keys
from bench.floor._floor import Floor, gather
from bench.loop import Loop
from lbcore import Cluster, Jump, Maglev, Policy, RingHash, RoundRobin
from lbcore._core import _use_simd

LARGE = 1 << 18  # keys in a batch: 2 MiB of hashes, past the first-level caches
TABLE_SIZE = 65537

# The goals are 0.7, 0.3 and 0.15 G picks a second, and hold as ratios where the C loop does its 1.4 G.
POLICIES = [
    ("maglev 65537", Maglev(), 2.0),
    ("ring of 1024", RingHash(), None),
    ("ring of 32768", RingHash(minimum_ring_size=32768), None),
]


def hashes(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(6).integers(0, 2**64, count, dtype=np.uint64)


def gather_loop(count: int) -> Loop:
    """The floor over as many hashes."""
    table = np.random.default_rng(7).integers(0, 100, TABLE_SIZE, dtype=np.uint16)
    names = {"gather": gather, "hashes": hashes(count), "table": table, "picks": np.empty(count, np.int32)}
    return Loop("gather(hashes, table, picks)", names, 1, calls=count)


@pytest.mark.parametrize(("name", "policy", "goal"), POLICIES, ids=[row[0] for row in POLICIES])
def test_array_of_hashes(versus: Versus, name: str, policy: Policy, goal: float | None) -> None:
    cluster = Cluster("bench", endpoints(100), policy=policy)
    versus(
        f"pick_many(array of {LARGE}), {name}",
        Loop(
            "cluster.pick_many(hashes, out)",
            {"cluster": cluster, "hashes": hashes(LARGE), "out": np.empty(LARGE, np.int32)},
            1,
            calls=LARGE,
        ),
        "C loop: table[hash % 65537]",
        gather_loop(LARGE),
        goal=goal,
    )


@pytest.mark.parametrize("count", [1, 8])
def test_small_batch(versus: Versus, count: int) -> None:
    cluster = Cluster("bench", endpoints(10), policy=Maglev())
    versus(
        f"pick_many(array of {count}), whole call",
        Loop("cluster.pick_many(hashes)", {"cluster": cluster, "hashes": hashes(count)}),
        "F: empty method",
        Loop("floor.noargs()", {"floor": Floor(None)}),
        goal=15 if count == 1 else None,
    )


def test_list_of_str(versus: Versus) -> None:
    cluster = Cluster("bench", endpoints(100), policy=Maglev())
    versus(
        "pick_many(list of 10 000 str), maglev 65537",
        Loop("cluster.pick_many(many)", {"cluster": cluster, "many": keys(10_000)}, 1, calls=10_000),
        "C loop: table[hash % 65537]",
        gather_loop(10_000),
    )


def test_plain_count(versus: Versus) -> None:
    cluster = Cluster("bench", endpoints(100), policy=RoundRobin(), seed=1)
    versus(
        f"pick_many({LARGE}), round robin",
        Loop(f"cluster.pick_many({LARGE})", {"cluster": cluster}, 1, calls=LARGE),
        "C loop: table[hash % 65537]",
        gather_loop(LARGE),
    )


@pytest.mark.parametrize("shards", [10, 100, 1000])
def test_jump_beside_its_plain_loop(versus: Versus, shards: int) -> None:
    cluster = Cluster("bench", endpoints(shards), policy=Jump())
    names = {"cluster": cluster, "hashes": hashes(LARGE), "out": np.empty(LARGE, np.int32), "simd": _use_simd}
    pick = "cluster.pick_many(hashes, out)"
    versus(
        f"pick_many(array of {LARGE}), jump, {shards} shards",
        Loop(pick, names, 1, calls=LARGE),
        "the same without vectors",
        Loop(f"simd('scalar'); {pick}; simd()", names, 1, calls=LARGE),
        goal=1 / 3,
        rounds=30,
    )
