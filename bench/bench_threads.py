"""Two threads with a handle each, beside one thread: what a second core adds where the GIL is not held."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from bench.conftest import Versus
from bench.fleet import endpoints
from bench.loop import Loop
from lbcore import Cluster, Maglev, Policy, Random, RingHash

BATCH = 1 << 16
BATCHES = 40  # a thread's work in a round: some milliseconds, far above what starting a thread costs


def worker(cluster: Cluster) -> Callable[[], None]:
    """Picks BATCHES batches through a handle of its own."""
    handle = cluster.handle()
    hashes = np.random.default_rng(8).integers(0, 2**64, BATCH, dtype=np.uint64)
    picks = np.empty(BATCH, np.int32)

    def work() -> None:
        for _ in range(BATCHES):
            handle.pick_many(hashes, picks)

    return work


def in_threads(workers: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("policy", [Maglev(), RingHash(), Random()], ids=lambda policy: type(policy).__name__)
def test_two_threads(versus: Versus, policy: Policy) -> None:
    cluster = Cluster("bench", endpoints(100), policy=policy)
    workers = [worker(cluster), worker(cluster)]
    picks = BATCH * BATCHES
    versus(
        f"pick_many, {type(policy).__name__}, 2 threads",
        Loop("in_threads(workers)", {"in_threads": in_threads, "workers": workers}, 1, calls=2 * picks),
        "1 thread",
        Loop("in_threads(workers)", {"in_threads": in_threads, "workers": workers[:1]}, 1, calls=picks),
        goal=1 / 1.8,
    )
