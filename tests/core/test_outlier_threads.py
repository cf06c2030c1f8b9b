"""Threads fail and finish requests while others update, check and tick: counts of ejections stay whole, limits hold."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lbcore import Cluster, LeastRequest, NoEndpointAvailable, OutlierDetection, RingHash, RoundRobin
from lbcore.policy import Policy
from tests.core.fleets import address, fleet

MEMBERS = 10
LONGEST = 3  # ejected at once
USED: dict[str, Policy] = {
    "round_robin": RoundRobin(),
    "least_request": LeastRequest(),
    "ring_hash": RingHash(minimum_ring_size=64),
}


@pytest.fixture(autouse=True)
def _switch_threads_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("in_python", [False, True], ids=["native clock", "clock in Python"])
@pytest.mark.parametrize("policy", USED)
def test_counts_stay_whole(policy: str, in_python: bool) -> None:
    cluster = Cluster(
        "threads",
        fleet(MEMBERS),
        policy=USED[policy],
        seed=1,
        panic_threshold=0.0,
        clock=(lambda: time.monotonic_ns()) if in_python else None,
        outlier_detection=OutlierDetection(
            consecutive_5xx=2, interval=0.002, base_ejection_time=0.001, max_ejection_percent=10 * LONGEST
        ),
    )
    views = [cluster, cluster.handle(), cluster.handle()]
    failures: list[str] = []
    stop = threading.Event()

    def repeat(work: Callable[[int], None]) -> None:
        turn = 0
        try:
            while not stop.is_set():
                work(turn)
                turn += 1
        except BaseException as failure:  # a thread has nobody else to tell
            failures.append(repr(failure))

    def serve(view: Cluster) -> Callable[[int], None]:
        def request(turn: int) -> None:
            try:
                lease = view.acquire(turn)
            except NoEndpointAvailable:
                return
            lease.done(ok=turn % 3 == 0)

        return request

    def update(turn: int) -> None:
        cluster.update(fleet(MEMBERS - turn % 2, weights=(1, 1 + turn % 3)))

    def check(turn: int) -> None:
        cluster.tick()
        cluster.passed_check(address(turn % MEMBERS))
        cluster.set_health(address(0), turn % 2 == 0)
        found = cluster.stats().outlier_detection
        assert found is not None
        if found.ejections_active > LONGEST:
            failures.append(f"{found.ejections_active} ejected")

    jobs = [*(serve(view) for view in views), serve(cluster), update, check]  # type: ignore[arg-type]
    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    stats = cluster.stats()
    assert stats.active == 0
    assert stats.outlier_detection is not None
    assert stats.outlier_detection.ejections_enforced_total > 0
    assert stats.outlier_detection.ejections_active == sum(each.ejected for each in stats.endpoints)
