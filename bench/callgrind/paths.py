"""The hot paths whose instructions are counted, and the floors beside them.

Run under callgrind by `bench.callgrind`: counts each path's loop at two lengths, so that the difference is one
evaluation of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.callgrind._requests import count
from bench.fleet import endpoints, keys
from bench.floor._floor import Floor
from bench.loop import Loop
from lbcore import (
    Adaptive,
    CircuitBreakers,
    Cluster,
    LeastRequest,
    Maglev,
    OutlierDetection,
    PeakEwma,
    Policy,
    Random,
    RingHash,
    RoundRobin,
    VirtualClock,
)

SHORT, LONG = 500, 2500  # evaluations
BATCH = 1024  # keys
EMPTY = "the loop itself"


def cluster(policy: Policy, *, weighted: bool = False, **settings: Any) -> Cluster:
    return Cluster("bench", endpoints(10, weighted=weighted), policy=policy, seed=1, **settings)


def paths() -> dict[str, tuple[str, dict[str, object]]]:
    """Expression and its names, by what a reader calls the path."""
    floor = Floor(object())
    (key,) = keys(1)
    clock = VirtualClock()  # by a real one Adaptive would look round the more often the slower it is run
    hashes = np.random.default_rng(6).integers(0, 2**64, BATCH, dtype=np.uint64)
    return {
        EMPTY: ("pass", {}),
        "floor: method without arguments": ("it.noargs()", {"it": floor}),
        "floor: method of one argument": ("it.one(key16)", {"it": floor, "key16": key}),
        "floor: pick(key=None)": ("it.pick()", {"it": floor}),
        "round robin pick": ("it.pick()", {"it": cluster(RoundRobin())}),
        "weighted round robin pick": ("it.pick()", {"it": cluster(RoundRobin(), weighted=True)}),
        "random pick": ("it.pick()", {"it": cluster(Random())}),
        "weighted random pick": ("it.pick()", {"it": cluster(Random(), weighted=True)}),
        "least request acquire, done": ("it.acquire().done()", {"it": cluster(LeastRequest())}),
        "least request acquire, done, with outlier detection": (
            "it.acquire().done()",
            {"it": cluster(LeastRequest(), outlier_detection=OutlierDetection())},
        ),
        "least request acquire, done, with circuit breakers": (
            "it.acquire().done()",
            {"it": cluster(LeastRequest(), circuit_breakers=CircuitBreakers())},
        ),
        "weighted least request acquire, done": (
            "it.acquire().done()",
            {"it": cluster(LeastRequest(), weighted=True)},
        ),
        "least request full scan acquire, done": (
            "it.acquire().done()",
            {"it": cluster(LeastRequest(selection_method="full_scan"))},
        ),
        "peak EWMA acquire, done": ("it.acquire().done()", {"it": cluster(PeakEwma(), clock=clock)}),
        "adaptive acquire, done": ("it.acquire().done()", {"it": cluster(Adaptive(), clock=clock)}),
        "adaptive acquire, 10 us, done": (
            "lease = it.acquire(); clock.now += 10_000; lease.done()",
            {"it": cluster(Adaptive(), clock=clock), "clock": clock},
        ),
        "with acquire": ("with it.acquire(): pass", {"it": cluster(LeastRequest())}),
        "maglev pick, 16-byte key": ("it.pick(key16)", {"it": cluster(Maglev()), "key16": key}),
        "ring pick, 16-byte key": ("it.pick(key16)", {"it": cluster(RingHash()), "key16": key}),
        f"maglev pick_many of {BATCH}": (
            "it.pick_many(hashes, out)",
            {"it": cluster(Maglev()), "hashes": hashes, "out": np.empty(BATCH, np.int32)},
        ),
        f"ring pick_many of {BATCH}": (
            "it.pick_many(hashes, out)",
            {"it": cluster(RingHash()), "hashes": hashes, "out": np.empty(BATCH, np.int32)},
        ),
    }


def main() -> None:
    """Counts every path at both lengths, the lengths named in the labels."""
    for name, (expression, names) in paths().items():
        Loop(expression, names, LONG).run()  # so that the interpreter has specialised and every page is there
        for length in (SHORT, LONG):
            loop = Loop(expression, names, length)
            loop.run()
            count(f"{length} {name}".encode(), loop.run)


if __name__ == "__main__":
    main()
