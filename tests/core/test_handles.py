"""Handles: one thread's own way into a cluster."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from lbcore import Cluster, Endpoint, LeastRequest, Maglev, Policy, Random, RingHash, RoundRobin

ENDPOINTS = [Endpoint(f"10.0.0.{number}:80", weight=number % 3 + 1) for number in range(1, 31)]


@pytest.mark.parametrize("policy", [RingHash(), Maglev()], ids=lambda policy: type(policy).__name__)
def test_a_handle_picks_what_its_cluster_picks_for_a_key(policy: Policy) -> None:
    cluster = Cluster("web", ENDPOINTS, policy=policy)
    handle = cluster.handle()
    assert [handle.pick(str(key)) for key in range(200)] == [cluster.pick(str(key)) for key in range(200)]


def test_a_handle_follows_updates_and_checks() -> None:
    cluster = Cluster("web", ENDPOINTS)
    handle = cluster.handle()
    cluster.update(ENDPOINTS[:2])
    assert set(handle.endpoints) == set(ENDPOINTS[:2])
    cluster.set_health(ENDPOINTS[0].address, False)
    assert {handle.pick().address for _ in range(20)} == {ENDPOINTS[1].address}


def test_turns_of_a_handle_are_its_own() -> None:
    cluster = Cluster("web", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")], policy=RoundRobin())
    handle = cluster.handle()
    first = handle.pick()
    cluster.pick()
    assert handle.pick() != first


def test_requests_through_a_handle_count_in_the_cluster() -> None:
    cluster = Cluster("web", ENDPOINTS, policy=LeastRequest())
    lease = cluster.handle().acquire()
    assert cluster.stats().active == 1
    lease.done()
    assert cluster.stats().active == 0


def test_a_cluster_does_not_keep_handles_alive() -> None:
    cluster = Cluster("web", ENDPOINTS)
    handle = weakref.ref(cluster.handle())
    gc.collect()
    assert handle() is None


@pytest.mark.parametrize("policy", [RoundRobin(), Random(), RingHash(), Maglev()], ids=lambda p: type(p).__name__)
def test_batches_on_handles_are_whole_while_the_cluster_changes(policy: Policy) -> None:
    cluster = Cluster("web", ENDPOINTS, policy=policy)
    hashes = np.random.default_rng(3).integers(0, 2**64, 20_000, dtype=np.uint64)
    stop = threading.Event()
    wrong: list[str] = []

    def pick() -> None:
        handle = cluster.handle()
        while not stop.is_set():
            members = handle.pick_many(hashes)
            if members.min() < 0 or members.max() >= len(ENDPOINTS):
                wrong.append(f"{members.min()} to {members.max()}")

    threads = [threading.Thread(target=pick) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(150):
        cluster.update(ENDPOINTS[: 10 + turn % 20])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
