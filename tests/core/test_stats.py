"""`stats` counts what happened to each endpoint and states how picking sees it."""

from __future__ import annotations

import pytest

from lbcore import Availability, Cluster, EndpointStats, Health
from tests.core.fleets import POLICIES, address, fleet
from tests.core.layouts import spread_over_health


def of_only_endpoint(cluster: Cluster) -> EndpointStats:
    (stats,) = cluster.stats().endpoints
    return stats


@pytest.fixture
def cluster() -> Cluster:
    return Cluster("stats", fleet(1), policy=POLICIES["least_request"])


def test_a_new_cluster_has_counted_nothing(cluster: Cluster) -> None:
    stats = of_only_endpoint(cluster)
    assert (stats.active, stats.requests, stats.successes, stats.failures) == (0, 0, 0, 0)
    assert stats.mean_latency is None


def test_requests_successes_and_failures_are_counted_apart(cluster: Cluster) -> None:
    for ok in (True, True, False):
        cluster.acquire().done(ok)
    held = cluster.acquire()
    stats = of_only_endpoint(cluster)
    assert (stats.active, stats.requests, stats.successes, stats.failures) == (1, 4, 2, 1)
    held.done()


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        *((200, False), (404, False), (499, False), (500, True), (503, True), (599, True)),
        *(("OK", False), ("NOT_FOUND", False), ("UNAVAILABLE", True), ("INTERNAL", True), ("DEADLINE_EXCEEDED", True)),
    ],
)
def test_a_status_of_500_or_one_that_maps_there_is_a_failure(cluster: Cluster, status: int | str, failed: bool) -> None:
    cluster.acquire().done(status=status)
    stats = of_only_endpoint(cluster)
    assert (stats.successes, stats.failures) == (int(not failed), int(failed))


def test_a_dropped_lease_is_neither_success_nor_failure(cluster: Cluster) -> None:
    cluster.acquire()
    stats = of_only_endpoint(cluster)
    assert (stats.requests, stats.successes, stats.failures, stats.active) == (1, 0, 0, 0)


def test_an_exception_in_a_with_block_is_a_failure(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError), cluster.acquire():
        raise RuntimeError
    assert of_only_endpoint(cluster).failures == 1


def test_the_mean_latency_is_over_the_requests_that_gave_one(cluster: Cluster) -> None:
    cluster.acquire().done(latency=0.1)
    cluster.acquire().done(latency=0.3)
    cluster.acquire().done()
    assert of_only_endpoint(cluster).mean_latency == pytest.approx(0.2)


def test_picks_are_not_requests(cluster: Cluster) -> None:
    cluster.pick()
    cluster.pick_many(10)
    assert of_only_endpoint(cluster).requests == 0


@pytest.mark.parametrize(
    ("health", "availability"),
    [
        (Health.UNKNOWN, Availability.HEALTHY),
        (Health.HEALTHY, Availability.HEALTHY),
        (Health.DEGRADED, Availability.DEGRADED),
        (Health.UNHEALTHY, Availability.UNAVAILABLE),
        (Health.DRAINING, Availability.UNAVAILABLE),
        (Health.TIMEOUT, Availability.UNAVAILABLE),
    ],
)
def test_availability_follows_discovery_until_a_check_fails(health: Health, availability: Availability) -> None:
    cluster = Cluster("stats", spread_over_health([health]))
    assert of_only_endpoint(cluster).availability is availability
    cluster.set_health(address(0), False)
    assert of_only_endpoint(cluster).availability is Availability.UNAVAILABLE


def test_counts_survive_an_update_in_the_new_order() -> None:
    cluster = Cluster("stats", fleet(2), seed=1)
    for _ in range(6):
        cluster.acquire().done()
    cluster.update(fleet(2)[::-1])
    assert [each.requests for each in cluster.stats().endpoints] == [3, 3]
    assert [each.endpoint.address for each in cluster.stats().endpoints] == [address(1), address(0)]


def test_the_cluster_counts_requests_to_endpoints_that_left() -> None:
    cluster = Cluster("stats", fleet(1))
    lease = cluster.acquire()
    cluster.update(fleet(3)[1:])
    assert cluster.stats().active == 1
    lease.done()
    assert cluster.stats().active == 0


def test_stats_carry_the_name() -> None:
    assert Cluster("web").stats().name == "web"
