"""The ten hottest paths, each as an expression, and a program that runs one so many times.

`python -m bench.callgrind.paths NAME COUNT`; ten calls a turn, so that the loop itself weighs little.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench.fleet import endpoints
from lbcore import Cluster, LeastRequest, Maglev, Policy, Random, RingHash, RoundRobin

__all__ = ["PATHS"]

PATHS: dict[str, tuple[Policy, bool, str]] = {
    "round robin, pick": (RoundRobin(), False, "cluster.pick()"),
    "round robin weighted, pick": (RoundRobin(), True, "cluster.pick()"),
    "random, pick": (Random(), False, "cluster.pick()"),
    "random weighted, pick": (Random(), True, "cluster.pick()"),
    "least request, acquire and done": (LeastRequest(), False, "cluster.acquire().done()"),
    "least request weighted, acquire and done": (LeastRequest(), True, "cluster.acquire().done()"),
    "least request, with": (LeastRequest(), False, "run_with(cluster)"),
    "ring hash, pick a key": (RingHash(), False, "cluster.pick(key)"),
    "maglev, pick a key": (Maglev(), False, "cluster.pick(key)"),
    "maglev, 1 000 hashes": (Maglev(), False, "cluster.pick_many(hashes, out)"),
}


def run_with(cluster: Cluster) -> None:
    with cluster.acquire():
        pass


def main(name: str, count: int) -> None:
    policy, weighted, expression = PATHS[name]
    names: dict[str, Any] = {
        "cluster": Cluster("bench", endpoints(10, weighted=weighted), policy=policy, seed=1),
        "key": "0123456789abcdef",
        "hashes": np.random.default_rng(1).integers(0, 2**64, 1000, dtype=np.uint64),
        "out": np.empty(1000, np.int32),
        "run_with": run_with,
    }
    body = "\n".join([f"        {expression}"] * 10)
    exec(f"def run(turns, {', '.join(names)}):\n    for _ in range(turns):\n{body}\n", names)
    names["run"](count // 10, *(names[each] for each in ("cluster", "key", "hashes", "out", "run_with")))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
