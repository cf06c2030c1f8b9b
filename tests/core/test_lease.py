"""A lease counts its request as in flight until it is done: exactly once, by call, by `with`, or by collection."""

from __future__ import annotations

import gc

import pytest

from lbcore import Cluster, Endpoint, Lease, NoEndpointAvailable
from tests.core.fleets import FULL_SCAN, POLICIES, address, fleet
from tests.core.observed import active_requests


@pytest.fixture(params=POLICIES)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return Cluster("leases", fleet(1), policy=POLICIES[request.param])


def active(cluster: Cluster) -> int:
    return sum(active_requests(cluster).values())


def test_an_acquired_request_is_in_flight(cluster: Cluster) -> None:
    leases = [cluster.acquire(key) for key in (None, "a", b"b", 3)]
    assert active(cluster) == len(leases)


def test_the_lease_names_its_endpoint(cluster: Cluster) -> None:
    assert cluster.acquire().endpoint is cluster.endpoints[0]


def test_done_ends_the_request(cluster: Cluster) -> None:
    cluster.acquire().done()
    assert active(cluster) == 0


def test_done_a_second_time_does_nothing(cluster: Cluster) -> None:
    lease, other = cluster.acquire(), cluster.acquire()
    lease.done()
    lease.done(ok=False)
    assert active(cluster) == 1
    other.done()


def test_the_endpoint_can_be_read_after_done(cluster: Cluster) -> None:
    lease = cluster.acquire()
    lease.done()
    assert lease.endpoint is cluster.endpoints[0]


def test_with_gives_the_endpoint_and_ends_the_request(cluster: Cluster) -> None:
    with cluster.acquire("key") as endpoint:
        assert (endpoint, active(cluster)) == (cluster.endpoints[0], 1)
    assert active(cluster) == 0


def test_an_exception_ends_the_request_and_is_not_swallowed(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="upstream"), cluster.acquire():
        raise RuntimeError("upstream")
    assert active(cluster) == 0


def test_done_within_with_counts_once(cluster: Cluster) -> None:
    lease, other = cluster.acquire(), cluster.acquire()
    with lease:
        lease.done(ok=True)
    assert active(cluster) == 1
    other.done()


def test_a_lease_dropped_without_done_is_released_when_collected(cluster: Cluster) -> None:
    lease = cluster.acquire()
    del lease
    gc.collect()
    assert active(cluster) == 0


def test_a_lease_done_and_then_dropped_is_released_once(cluster: Cluster) -> None:
    lease, other = cluster.acquire(), cluster.acquire()
    lease.done()
    del lease
    gc.collect()
    assert active(cluster) == 1
    other.done()


def test_a_lease_outlives_its_cluster() -> None:
    lease = Cluster("gone", fleet(1), policy=FULL_SCAN).acquire()
    gc.collect()
    lease.done()
    assert lease.endpoint == fleet(1)[0]


def test_a_lease_outlives_its_endpoints_removal(cluster: Cluster) -> None:
    lease = cluster.acquire()
    removed = lease.endpoint
    cluster.update([Endpoint(address(9))])
    lease.done()
    assert (lease.endpoint, active(cluster)) == (removed, 0)


def test_in_flight_counts_survive_an_update(cluster: Cluster) -> None:
    leases = [cluster.acquire() for _ in range(3)]
    cluster.update([Endpoint(address(0), weight=9), Endpoint(address(1))])
    assert active_requests(cluster) == {address(0): 3, address(1): 0}
    for lease in leases:
        lease.done()
    assert active(cluster) == 0


def test_a_failed_acquire_leaves_nothing_in_flight() -> None:
    cluster = Cluster("none")
    with pytest.raises(NoEndpointAvailable):
        cluster.acquire()
    assert active(cluster) == 0


@pytest.mark.parametrize("status", [200, 503, "OK", "UNAVAILABLE", None])
def test_a_status_is_an_http_number_or_a_grpc_name(cluster: Cluster, status: int | str | None) -> None:
    cluster.acquire().done(ok=status in (200, "OK"), status=status, latency=0.01)
    assert active(cluster) == 0


@pytest.mark.parametrize("status", ["NOT_A_CODE", 99, 600, -1, 1.5, b"OK"], ids=repr)
def test_a_status_that_is_neither_is_refused(cluster: Cluster, status: object) -> None:
    with pytest.raises((TypeError, ValueError), match="status"):
        cluster.acquire().done(status=status)  # type: ignore[arg-type]


def test_a_refused_done_can_be_made_good(cluster: Cluster) -> None:
    lease = cluster.acquire()
    with pytest.raises((TypeError, ValueError)):
        lease.done(status="NOT_A_CODE")
    lease.done()
    assert active(cluster) == 0


@pytest.mark.parametrize("latency", [-1.0, float("nan"), float("inf"), "1"], ids=repr)
def test_a_latency_that_is_no_time_is_refused(cluster: Cluster, latency: object) -> None:
    with pytest.raises((TypeError, ValueError), match="latency"):
        cluster.acquire().done(latency=latency)  # type: ignore[arg-type]


def test_a_lease_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        Lease()


def test_many_leases_are_each_their_own() -> None:
    cluster = Cluster("many", fleet(10), policy=FULL_SCAN)
    leases = [cluster.acquire() for _ in range(10_000)]
    for lease in leases[::2]:
        lease.done()
    assert active(cluster) == 5_000
    assert len({id(lease) for lease in leases}) == 10_000
