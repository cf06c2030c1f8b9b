"""Nothing stays behind: references balance, and memory is flat over updates, picks, leases and errors.

Exact on the sanitizers' build; elsewhere the allocator's own figures serve (tests/harness/allocation.py).
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable

import numpy
import pytest

from lbcore import Cluster, Endpoint, NoEndpointAvailable
from tests.core.fleets import POLICIES, address, fleet
from tests.harness.allocation import allocated_bytes


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ROUNDS = 60


def assert_flat(work: Callable[[int], object]) -> None:
    """Once warm, a round of work leaves less than one Python object and 256 bytes of the allocator's behind."""
    for number in range(ROUNDS):
        work(number)
    gc.collect()
    objects, memory = sys.getallocatedblocks(), allocated_bytes()
    for number in range(ROUNDS):
        work(number)
    gc.collect()
    assert sys.getallocatedblocks() - objects < ROUNDS
    assert allocated_bytes() - memory < 256 * ROUNDS


def test_a_dropped_cluster_gives_all_references_back(policy: str) -> None:
    members = fleet(10)
    before = [sys.getrefcount(endpoint) for endpoint in members]
    cluster = Cluster("references", members, policy=POLICIES[policy])
    picks = [cluster.pick(key) for key in range(100)] + [cluster.acquire().endpoint for _ in range(100)]
    cluster.rank("key", 5)
    cluster.update(members[:5])
    del cluster, picks
    gc.collect()
    assert [sys.getrefcount(endpoint) for endpoint in members] == before


def test_picks_take_and_give_back_one_reference_each(policy: str) -> None:
    (only,) = fleet(1)
    cluster = Cluster("references", [only], policy=POLICIES[policy])
    before = sys.getrefcount(only)
    picks = [cluster.pick("key") for _ in range(50)]
    assert sys.getrefcount(only) == before + len(picks)
    del picks
    assert sys.getrefcount(only) == before


def test_keys_are_given_back(policy: str) -> None:
    cluster = Cluster("references", fleet(3), policy=POLICIES[policy])
    for key in ("k" * 100, b"k" * 100, 2**63 + 12345):
        before = sys.getrefcount(key)
        for _ in range(50):
            cluster.pick(key)
            cluster.acquire(key).done()
            cluster.rank(key, 2)
            cluster.pick_many([key] * 3)
        assert sys.getrefcount(key) == before


def test_removed_endpoints_are_let_go(policy: str) -> None:
    removed = Endpoint(address(0))
    cluster = Cluster("removed", [removed, *fleet(3)[1:]], policy=POLICIES[policy])
    cluster.pick()
    held_elsewhere = sys.getrefcount(Endpoint(address(0))) + 1  # by the name here
    cluster.update(fleet(3)[1:])
    assert sys.getrefcount(removed) == held_elsewhere


def test_a_cluster_in_a_cycle_is_collected(policy: str) -> None:
    class Named(Cluster):
        itself: Cluster

    cluster = Named("cycle", fleet(3), policy=POLICIES[policy])
    cluster.itself = cluster
    gone = weakref.ref(cluster)
    del cluster
    gc.collect()
    assert gone() is None


def test_updates_leave_no_memory_behind(policy: str) -> None:
    cluster = Cluster("flat", policy=POLICIES[policy])
    layouts = [fleet(200), fleet(150, (1, 2, 3)), fleet(200, (5,))]
    assert_flat(lambda number: cluster.update(layouts[number % 3]))


def test_changing_addresses_leave_no_memory_behind(policy: str) -> None:
    cluster = Cluster("flat", policy=POLICIES[policy])
    assert_flat(lambda number: cluster.update([Endpoint(address(number * 50 + i)) for i in range(50)]))


def test_leases_leave_no_memory_behind(policy: str) -> None:
    cluster = Cluster("flat", fleet(5), policy=POLICIES[policy])

    def use(_: int) -> None:
        for _ in range(20):
            cluster.acquire("key").done()
            cluster.acquire()
            with cluster.acquire():
                pass

    assert_flat(use)


def test_leases_on_removed_endpoints_leave_no_memory_behind(policy: str) -> None:
    cluster = Cluster("flat", fleet(5), policy=POLICIES[policy])

    def replace(number: int) -> None:
        leases = [cluster.acquire() for _ in range(20)]
        cluster.update([Endpoint(address(number * 5 + i)) for i in range(5)])
        leases[0].done()

    assert_flat(replace)


def test_batches_leave_no_memory_behind(policy: str) -> None:
    cluster = Cluster("flat", fleet(5), policy=POLICIES[policy])
    hashes = numpy.arange(10_000, dtype=numpy.uint64)
    words = [f"user-{i}" for i in range(100)]
    assert_flat(lambda _: (cluster.pick_many(hashes), cluster.pick_many(words), cluster.pick_many(1000)))


def test_errors_leave_no_memory_behind(policy: str) -> None:
    cluster = Cluster("flat", fleet(5), policy=POLICIES[policy])
    empty = Cluster("empty", policy=POLICIES[policy])

    def fail(_: int) -> None:
        for _ in range(5):
            with pytest.raises(NoEndpointAvailable):
                empty.pick("key")
            with pytest.raises(TypeError):
                cluster.pick(1.5)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="10"):
                cluster.update([*fleet(5), *fleet(1)])

    assert_flat(fail)


def test_whole_clusters_leave_no_memory_behind(policy: str) -> None:
    members = fleet(50)
    assert_flat(lambda _: Cluster("flat", members, policy=POLICIES[policy]).pick("key"))
