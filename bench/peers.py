"""`make peers`: lbcore beside the libraries and the plain Python that people use today, in one process and one run.

What is measured: one lookup of a 16-byte key among 10 and among 100 nodes (4000 distinct keys, or the same number of
picks), building for 100 nodes, the fullest node beside the mean, and the keys that move when one of 100 nodes leaves
(1 % have to). Contenders of one kind run in turn, round by round, so that a slow spell of the machine falls on all; the
figures are of the fastest round, without the loop around the call. The table goes to docs/measured-peers.md.
"""

from __future__ import annotations

import argparse
import bisect
import gc
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import emcache._cython.cyemcache as emcache
import jump
import numpy as np
import uhashring
import xxhash
from pymemcache.client.rendezvous import RendezvousHash

from bench.fleet import keys
from bench.loop import Loop
from lbcore import Cluster, Endpoint, Jump, LeastRequest, Maglev, Policy, Rendezvous, RingHash, hash64

PAGE = Path(__file__).parents[1] / "docs" / "measured-peers.md"
ROUNDS = 40  # short and many: on a busy machine some run undisturbed
KEYS = keys(50_000)  # for balance and movement
LOOKED_UP = KEYS[:4000]
FEW, MANY = 10, 100


class BisectRing:
    """A ring as it is commonly written: a sorted list of hashes, 160 for a node, and bisect."""

    def __init__(self, nodes: Sequence[str]) -> None:
        points = sorted((xxhash.xxh64_intdigest(f"{node}_{i}".encode()), node) for node in nodes for i in range(160))
        self._hashes = [point for point, _ in points]
        self._nodes = [node for _, node in points]

    def get_node(self, key: str) -> str:
        return self._nodes[bisect.bisect(self._hashes, xxhash.xxh64_intdigest(key.encode())) % len(self._nodes)]


class PythonP2C:
    """Least request of two choices as it is commonly written."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = list(nodes)
        self._active = dict.fromkeys(nodes, 0)

    def pick(self) -> str:
        one, other = random.choice(self._nodes), random.choice(self._nodes)
        chosen = one if self._active[one] <= self._active[other] else other
        self._active[chosen] += 1
        return chosen

    def done(self, node: str) -> None:
        self._active[node] -= 1


class EmcacheNodes:
    """The native selection of emcache's cluster client, without its connections."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = [emcache.RendezvousNode(node.replace(":", ""), node) for node in nodes]

    def get_node(self, key: str) -> str:
        return str(emcache.node_selection(key.encode(), self.nodes))


def names(count: int) -> list[str]:
    return [f"10.0.{number >> 8}.{number & 255}:11211" for number in range(count)]


def pymemcache_nodes(nodes: Sequence[str]) -> RendezvousHash:
    return RendezvousHash(list(nodes))


def cluster(policy: Policy) -> Callable[[Sequence[str]], Cluster]:
    return lambda nodes: Cluster("peers", map(Endpoint, nodes), policy=policy)


@dataclass(frozen=True)
class Contender:
    """One way to find a node.

    Fields:
        expression: a lookup, with `it` for what `build` has made and `key` for the key.
        node: the node of a key, for balance and movement; None where keys do not matter.
        sampled: how many keys balance and movement are measured by.
        names: more names in the expression.
        calls: lookups that one evaluation of the expression does.
    """

    name: str
    build: Callable[[Sequence[str]], Any]
    expression: str
    node: Callable[[Any, str], str] | None
    keys: Sequence[Any] = field(default_factory=lambda: LOOKED_UP)
    names: dict[str, object] = field(default_factory=dict)
    calls: int = 1
    sampled: int = len(KEYS)


def by_address(it: Cluster, key: str) -> str:
    return it.pick(key).address


def by_get_node(it: Any, key: str) -> str:
    return str(it.get_node(key))


HASHES = [hash64(key) for key in LOOKED_UP]
BATCH = [np.array(HASHES, dtype=np.uint64)]


def in_batches(policy: Policy) -> Contender:
    return Contender(
        "lbcore, pick_many of hashes", cluster(policy), "it.pick_many(key)", None, BATCH, calls=len(HASHES)
    )


ENVOY_RING = RingHash(minimum_ring_size=16384)

# The first of each kind is what the others are compared with.
KINDS: dict[str, list[Contender]] = {
    "ring": [
        Contender("lbcore, ketama points", cluster(RingHash(point_layout="ketama")), "it.pick(key)", by_address),
        Contender("lbcore, Envoy's ring of 16 384", cluster(ENVOY_RING), "it.pick(key)", by_address),
        in_batches(ENVOY_RING),
        Contender(
            "uhashring, ketama",
            lambda nodes: uhashring.HashRing(nodes=list(nodes), hash_fn="ketama"),
            "it.get_node(key)",
            by_get_node,
        ),
        Contender("uhashring", lambda nodes: uhashring.HashRing(nodes=list(nodes)), "it.get_node(key)", by_get_node),
        Contender("bisect over xxhash", BisectRing, "it.get_node(key)", by_get_node),
    ],
    "Maglev": [
        Contender("lbcore, 65 537 slots", cluster(Maglev()), "it.pick(key)", by_address),
        in_batches(Maglev()),
    ],
    "rendezvous": [
        Contender("lbcore", cluster(Rendezvous()), "it.pick(key)", by_address),
        Contender("pymemcache", pymemcache_nodes, "it.get_node(key)", by_get_node, KEYS[:40], sampled=500),
        Contender(
            "emcache (native)",
            EmcacheNodes,
            "select(key, nodes)",
            by_get_node,
            [key.encode() for key in KEYS[:1000]],
            {"select": emcache.node_selection},
            sampled=5000,
        ),
    ],
    "jump": [
        Contender("lbcore, text keys", cluster(Jump()), "it.pick(key)", by_address),
        Contender("lbcore, ints", cluster(Jump()), "it.pick(key)", by_address, HASHES),
        in_batches(Jump()),
        Contender(
            "jump-consistent-hash (native), ints",
            list,
            "it[find(key, count)]",
            lambda it, key: str(it[jump.hash(hash64(key), len(it))]),
            HASHES,
            {"find": jump.hash},
        ),
        Contender(
            "jump-consistent-hash (Python), ints",
            list,
            "it[find(key, count)]",
            lambda it, key: str(it[jump.py_hash(hash64(key), len(it))]),
            HASHES[:1000],
            {"find": jump.py_hash},
            sampled=5000,
        ),
    ],
    "least request of two, pick and done": [
        Contender("lbcore", cluster(LeastRequest()), "it.acquire().done()", None),
        Contender("plain Python", PythonP2C, "it.done(it.pick())", None),
    ],
}


@dataclass(frozen=True)
class Figures:
    """Of one contender: seconds for a lookup among few and among many nodes and for building; the rest as fractions."""

    few: float
    many: float
    build: float
    fullest: float | None
    moved: float | None


def loop(contender: Contender, count: int) -> Loop:
    it = contender.build(names(count))
    nodes = it.nodes if isinstance(it, EmcacheNodes) else None
    given = {"it": it, "nodes": nodes, "count": count, **contender.names}
    return Loop(contender.expression, given, contender.keys, contender.calls)


def seconds_in_turn(loops: Sequence[Loop]) -> list[float]:
    """The fastest round of each, per lookup, less the loop around it."""
    times: list[list[float]] = [[] for _ in loops]
    empty: list[list[float]] = [[] for _ in loops]
    bare = [each.empty() for each in loops]
    gc.disable()
    for _ in range(ROUNDS):
        for place, each in enumerate(loops):
            each.run()  # its tables into the caches that the others have taken
            times[place].append(each.seconds())
            empty[place].append(bare[place].seconds())
    gc.enable()
    return [(min(full) - min(around)) / each.calls for full, around, each in zip(times, empty, loops, strict=True)]


def build_seconds(contender: Contender) -> float:
    def once() -> float:
        nodes = names(MANY)
        start = time.perf_counter()
        contender.build(nodes)
        return time.perf_counter() - start

    return min(once() for _ in range(5))


def spread(contender: Contender) -> tuple[float | None, float | None]:
    """The fullest node over the mean, and the part of the keys that move when a node in the middle leaves."""
    if contender.node is None:
        return None, None
    sample = KEYS[: contender.sampled]
    nodes = names(MANY)
    gone = nodes[MANY // 2]
    before, after = contender.build(nodes), contender.build([each for each in nodes if each != gone])
    found = [contender.node(before, key) for key in sample]
    moved = sum(old != contender.node(after, key) for old, key in zip(found, sample, strict=True))
    return max(Counter(found).values()) * MANY / len(sample), moved / len(sample)


def measure(contenders: Sequence[Contender]) -> list[Figures]:
    few = seconds_in_turn([loop(each, FEW) for each in contenders])
    many = seconds_in_turn([loop(each, MANY) for each in contenders])
    return [
        Figures(few[place], many[place], build_seconds(each), *spread(each)) for place, each in enumerate(contenders)
    ]


def rows() -> Iterator[tuple[str, ...]]:
    for kind, contenders in KINDS.items():
        figures = measure(contenders)
        for contender, mine in zip(contenders, figures, strict=True):
            yield (
                kind,
                contender.name,
                _time(mine.few),
                _time(mine.many),
                f"{mine.many / figures[0].many:.3g}",
                _time(mine.build),
                "" if mine.fullest is None else f"{mine.fullest:.2f}",
                "" if mine.moved is None else f"{mine.moved:.1%}",
            )


HEADINGS = ("kind", "what", "lookup of 10", "of 100", "x lbcore", "build of 100", "fullest / mean", "moved, 1 leaves")


def page() -> str:
    table = [HEADINGS, tuple("---" for _ in HEADINGS), *rows()]
    libraries = ("uhashring", "jump-consistent-hash", "pymemcache", "emcache", "xxhash")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    what = " ".join((__doc__ or "").split("\n\n", 1)[1].split())
    lines = [
        "# Beside other libraries",
        "",
        f"Printed by `make peers`. {what.removesuffix(' The table goes to docs/measured-peers.md.')}",
        "",
        f"{platform.python_implementation()} {platform.python_version()}, {versions}.",
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        "Jump hashing numbers its nodes: where one in the middle leaves, all after it move up and their keys with",
        "them. It is for shards that come and go at the end.",
        "",
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size or unit == "ns":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make peers", description="lbcore beside its peers")
    parser.add_argument("--check", action="store_true", help="print the table and write nothing")
    arguments = parser.parse_args()
    text = page()
    print(text)
    if not arguments.check:
        PAGE.write_text(text)
