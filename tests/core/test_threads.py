"""Threads pick and finish requests while another replaces the endpoints: nothing is lost or comes from nowhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy
import pytest

from lbcore import Cluster, Endpoint, RingHash, RoundRobin, SlowStart, Subsets, SubsetSelector
from lbcore.policy import Policy
from tests.core.fleets import POLICIES
from tests.core.observed import active_requests

USED: dict[str, Policy] = {
    **POLICIES,
    "ring_hash": RingHash(minimum_ring_size=64),
    "bounded_ring": RingHash(minimum_ring_size=64, hash_balance_factor=120),
    "slow_start": RoundRobin(slow_start=SlowStart(3600.0)),
}
UPDATES = dict.fromkeys(USED, 150) | {"least_request_full_scan": 1_000, "ring_hash": 1_000}
THREADS = 8
MEMBERS = 5


@pytest.fixture(autouse=True)
def _switch_threads_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


EVERY = {"every": "one"}
SUBSETS = Subsets(selectors=(SubsetSelector(keys=("every",)),))


def generation(number: int) -> list[Endpoint]:
    """Endpoints whose port tells the generation; the first one stays through all of them, its weight changing."""
    changing = [Endpoint(f"10.0.0.{i}:{1 + number}", metadata=EVERY) for i in range(1, MEMBERS)]
    return [Endpoint("10.0.0.99:1", weight=1 + number % 3, metadata=EVERY), *changing]


class Generations:
    """A cluster that one thread takes from generation to generation while others use it."""

    def __init__(self, policy: str) -> None:
        self.cluster = Cluster(
            "threads",
            generation(0),
            policy=USED[policy],
            seed=1,
            subsets=SUBSETS,
            clock=lambda: time.monotonic_ns(),  # in Python, so that threads change places while it is read
        )
        self.updates = UPDATES[policy]
        self.begun = 0
        self.finished = 0
        self.failures: list[str] = []

    def run(self, work: Callable[[int], None]) -> None:
        """Calls work(thread) again and again in eight threads until the updates are through."""
        stop = threading.Event()

        def repeat(thread: int) -> None:
            try:
                while not stop.is_set():
                    work(thread)
            except BaseException as failure:  # a thread has nobody else to tell
                self.failures.append(repr(failure))

        threads = [threading.Thread(target=repeat, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            for number in range(1, self.updates + 1):
                self.begun = number
                self.cluster.update(generation(number))
                self.finished = number
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert self.failures == []
        assert not any(thread.is_alive() for thread in threads)

    def check(self, endpoint: Endpoint, earliest: int) -> None:
        """The endpoint must be of a generation in force between `earliest` and now."""
        host, port = endpoint.address.rsplit(":", 1)
        if host != "10.0.0.99" and not earliest <= int(port) - 1 <= self.begun:
            self.failures.append(f"{endpoint.address} picked between generations {earliest} and {self.begun}")


@pytest.mark.parametrize("policy", USED)
def test_every_pick_is_of_a_generation_in_force(policy: str) -> None:
    generations = Generations(policy)

    def pick(thread: int) -> None:
        earliest = generations.finished
        generations.check(generations.cluster.pick(thread), earliest)

    generations.run(pick)


@pytest.mark.parametrize("policy", USED)
def test_every_pick_through_a_threads_own_handle_is_of_a_generation_in_force(policy: str) -> None:
    generations = Generations(policy)
    handles = [generations.cluster.handle() for _ in range(THREADS)]

    def pick(thread: int) -> None:
        earliest = generations.finished
        generations.check(handles[thread].pick(thread), earliest)

    generations.run(pick)


@pytest.mark.parametrize("policy", USED)
def test_every_pick_through_a_shared_subset_is_of_a_generation_in_force(policy: str) -> None:
    generations = Generations(policy)

    def pick(thread: int) -> None:
        earliest = generations.finished
        generations.check(generations.cluster.subset(EVERY).pick(thread), earliest)

    generations.run(pick)


@pytest.mark.parametrize("policy", USED)
def test_no_request_in_flight_is_lost_or_left_behind(policy: str) -> None:
    generations = Generations(policy)
    cluster = generations.cluster
    held = [cluster.acquire("held") for _ in range(10)]

    def use(thread: int) -> None:
        earliest = generations.finished
        leases = [cluster.acquire(thread), cluster.acquire()]
        for lease in leases:
            generations.check(lease.endpoint, earliest)
        leases[0].done()
        leases[0].done()
        with leases[1]:
            pass

    generations.run(use)
    for lease in held:
        lease.done()
    assert set(active_requests(cluster).values()) == {0}


@pytest.mark.parametrize("policy", USED)
def test_batches_stay_within_the_endpoints_while_they_change(policy: str) -> None:
    generations = Generations(policy)
    hashes = numpy.arange(0, 2**63, 2**63 // 10_000, dtype=numpy.uint64)

    def batch(_: int) -> None:
        picked = generations.cluster.pick_many(hashes)
        if not ((picked >= 0) & (picked < MEMBERS)).all():
            generations.failures.append(f"indices {picked.min()} to {picked.max()}")

    generations.run(batch)


@pytest.mark.parametrize("policy", USED)
def test_checks_and_ranks_go_on_while_endpoints_change(policy: str) -> None:
    generations = Generations(policy)
    cluster = generations.cluster

    def ask(thread: int) -> None:
        cluster.set_health("10.0.0.99:1", thread % 2 == 0)
        cluster.rank(thread, 3)
        cluster.stats()
        cluster.tick()

    generations.run(ask)


def test_eight_threads_count_every_request() -> None:
    cluster = Cluster("count", generation(0), policy=POLICIES["least_request"])
    leases: list[list[object]] = [[] for _ in range(THREADS)]

    def acquire(mine: list[object]) -> None:
        mine.extend(cluster.acquire() for _ in range(2_000))

    threads = [threading.Thread(target=acquire, args=(mine,)) for mine in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(active_requests(cluster).values()) == THREADS * 2_000
