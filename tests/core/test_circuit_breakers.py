"""Circuit breakers: requests are limited where they are acquired, the rest by permits; a refusal names its limit."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from lbcore import (
    CircuitBreakers,
    Cluster,
    NoEndpointAvailable,
    Overloaded,
    PerHostThresholds,
    Permit,
    RetryBudget,
    Subsets,
    SubsetSelector,
)
from tests.core.fleets import FULL_SCAN, POLICIES, address, fleet
from tests.core.observed import active_requests


def limited(endpoints: int = 3, policy: str = "round_robin", **limits: Any) -> Cluster:
    return Cluster("limited", fleet(endpoints), policy=POLICIES[policy], circuit_breakers=CircuitBreakers(**limits))


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_so_many_requests_may_be_in_flight_and_no_more(policy: str, limit: int) -> None:
    cluster = limited(policy=policy, max_requests=limit)
    leases = [cluster.acquire(key) for key in range(limit)]
    for key in (None, "key", 3):
        with pytest.raises(Overloaded, match=f"'limited': max_requests {limit} reached") as refusal:
            cluster.acquire(key)
        assert refusal.value.limit == "max_requests"
    if leases:
        leases.pop().done()
        cluster.acquire()


def test_a_pick_is_not_limited() -> None:
    assert limited(max_requests=0).pick()


def test_a_request_dropped_unfinished_makes_room() -> None:
    cluster = limited(max_requests=1)
    lease = cluster.acquire()
    del lease
    gc.collect()
    cluster.acquire().done()


def test_handles_and_subsets_share_the_limit() -> None:
    cluster = Cluster(
        "shared",
        fleet(3),
        circuit_breakers=CircuitBreakers(max_requests=2),
        subsets=Subsets(selectors=(SubsetSelector(keys=("version",), fallback_policy="any_endpoint"),)),
    )
    views = (cluster.handle(), cluster.subset({"version": 1}), cluster)
    held = [views[0].acquire(), views[1].acquire()]
    for view in views:
        with pytest.raises(Overloaded):
            view.acquire()
    assert view.stats().active == len(held)


def test_requests_to_endpoints_that_have_left_still_count() -> None:
    cluster = limited(1, max_requests=1)
    lease = cluster.acquire()
    cluster.update(fleet(3)[1:])
    with pytest.raises(Overloaded):
        cluster.acquire()
    lease.done()
    cluster.acquire().done()


def test_an_endpoint_at_its_own_limit_is_passed_over(policy: str) -> None:
    cluster = limited(policy=policy, per_host_thresholds=PerHostThresholds(max_connections=2))
    leases = [cluster.acquire("one key for all") for _ in range(6)]
    assert set(active_requests(cluster).values()) == {2}
    with pytest.raises(Overloaded, match=r"per_host_thresholds\.max_connections 2 reached") as refusal:
        cluster.acquire("one key for all")
    assert refusal.value.limit == "per_host_thresholds.max_connections"
    leases[3].done()
    assert cluster.acquire().endpoint == leases[3].endpoint


def test_exclusions_hold_beside_the_limit_of_an_endpoint() -> None:
    cluster = limited(per_host_thresholds=PerHostThresholds(max_connections=1))
    lease = cluster.acquire(exclude=address(0))
    other = cluster.acquire(exclude=address(0))
    assert {lease.endpoint.address, other.endpoint.address} == {address(1), address(2)}
    with pytest.raises(Overloaded):
        cluster.acquire(exclude=address(0))


def test_nobody_usable_is_no_overload() -> None:
    cluster = Cluster(
        "none", circuit_breakers=CircuitBreakers(per_host_thresholds=PerHostThresholds(max_connections=1))
    )
    with pytest.raises(NoEndpointAvailable):
        cluster.acquire()


def test_retries_have_a_limit_of_their_own() -> None:
    cluster = limited(max_retries=2)
    permits = [cluster.retry_permit() for _ in range(2)]
    with pytest.raises(Overloaded, match="max_retries 2 reached"):
        cluster.retry_permit()
    permits[0].release()
    permits[0].release()
    with cluster.retry_permit(), pytest.raises(Overloaded):
        cluster.retry_permit()


@pytest.mark.parametrize(
    ("in_flight", "waiting", "allowed"), [(0, 0, 3), (14, 0, 3), (15, 0, 3), (20, 0, 4), (10, 14, 4)]
)
def test_a_retry_budget_is_a_share_of_requests_in_flight_and_waiting(
    in_flight: int, waiting: int, allowed: int
) -> None:
    cluster = limited(retry_budget=RetryBudget(), max_retries=0)
    held = [cluster.acquire() for _ in range(in_flight)], [cluster.pending_permit() for _ in range(waiting)]
    permits = [cluster.retry_permit() for _ in range(allowed)]
    with pytest.raises(Overloaded, match=f"retry_budget {allowed} reached"):
        cluster.retry_permit()
    assert len(permits) == allowed
    assert len(held) == 2


@pytest.mark.parametrize("what", ["pending", "connection"])
def test_waiting_requests_and_connections_are_counted_by_permits(what: str) -> None:
    cluster = limited(max_pending_requests=1, max_connections=1)
    take = getattr(cluster, f"{what}_permit")
    with take() as permit:
        assert isinstance(permit, Permit)
        with pytest.raises(Overloaded, match=rf"max_{what}\w* 1 reached"):
            take()
    permit = take()
    del permit
    gc.collect()
    take().release()


def test_statistics_show_what_remains() -> None:
    cluster = limited(max_requests=2, max_retries=1)
    lease = cluster.acquire()
    found = cluster.stats().circuit_breakers
    assert found is not None
    assert (found.requests.limit, found.requests.active, found.requests.remaining, found.requests.open) == (
        2,
        1,
        1,
        False,
    )
    other = cluster.acquire()
    with pytest.raises(Overloaded):
        cluster.acquire()
    found = cluster.stats().circuit_breakers
    assert found is not None
    assert (found.requests.remaining, found.requests.open, found.requests.refused) == (0, True, 1)
    assert (found.retries.remaining, found.pending_requests.remaining, found.connections.limit) == (1, 1024, 1024)
    lease.done()
    other.done()


def test_without_circuit_breakers_there_is_no_limit() -> None:
    cluster = Cluster("free", fleet(1))
    leases = [cluster.acquire() for _ in range(3000)]
    permits = [cluster.retry_permit() for _ in range(3000)]
    assert cluster.stats().circuit_breakers is None
    assert len(leases) == len(permits)


def test_a_permit_outlives_its_cluster() -> None:
    cluster = limited(retry_budget=RetryBudget())
    permit = cluster.retry_permit()
    del cluster
    gc.collect()
    permit.release()


def test_only_a_cluster_makes_permits() -> None:
    with pytest.raises(TypeError, match=r"Cluster\.retry_permit"):
        Permit()


def test_the_limit_is_never_exceeded_by_threads() -> None:
    cluster = Cluster("threads", fleet(3), policy=FULL_SCAN, circuit_breakers=CircuitBreakers(max_requests=5))
    beyond: list[int] = []

    def work() -> None:
        for _ in range(2000):
            try:
                lease = cluster.acquire()
            except Overloaded:
                continue
            active = cluster.stats().active
            if active > 5:
                beyond.append(active)
            lease.done()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert beyond == []
    assert cluster.stats().active == 0
