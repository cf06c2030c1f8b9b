"""Which endpoints are picked at all: health from discovery, health from an active checker, and panic."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lbcore import Availability, Cluster, Health, NoEndpointAvailable
from lbcore.model import CheckedHealth
from tests.core.fleets import POLICIES, address
from tests.core.layouts import in_states, spread_over_health

KEYS = range(0, 2**64, 2**54)
EVERY_STATE = list(Health)


def picked(cluster: Cluster) -> set[int]:
    """Numbers of the endpoints that a thousand picks give."""
    numbers = {each.address: i for i, each in enumerate(cluster.endpoints)}
    return {numbers[cluster.pick(key).address] for key in KEYS}


def down(cluster: Cluster, numbers: Iterable[int]) -> None:
    for number in numbers:
        cluster.set_health(address(number), False)


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_only_unknown_and_healthy_serve_while_any_is_left(policy: str) -> None:
    cluster = Cluster("states", spread_over_health(EVERY_STATE), policy=POLICIES[policy], panic_threshold=0.0)
    load = {Health.UNKNOWN, Health.HEALTHY}
    serving = {EVERY_STATE[number] for number in picked(cluster)}
    assert serving - {Health.DEGRADED} == load


@pytest.mark.parametrize("state", [Health.UNHEALTHY, Health.DRAINING, Health.TIMEOUT])
def test_an_endpoint_out_of_service_gets_nothing(policy: str, state: Health) -> None:
    states = [Health.HEALTHY, Health.HEALTHY, Health.HEALTHY, state]
    assert picked(Cluster("out", spread_over_health(states), policy=POLICIES[policy])) == {0, 1, 2}


def test_degraded_endpoints_rest_while_the_healthy_suffice(policy: str) -> None:
    assert picked(Cluster("rest", in_states(8, 2, 0), policy=POLICIES[policy])) == set(range(8))


def test_degraded_endpoints_serve_when_nobody_is_healthy(policy: str) -> None:
    assert picked(Cluster("degraded", in_states(0, 3, 1), policy=POLICIES[policy])) == {0, 1, 2}


def test_below_the_panic_threshold_all_endpoints_serve(policy: str) -> None:
    assert picked(Cluster("panic", in_states(1, 0, 3), policy=POLICIES[policy])) == {0, 1, 2, 3}


def test_at_the_panic_threshold_only_healthy_ones_serve(policy: str) -> None:
    assert picked(Cluster("calm", in_states(2, 0, 2), policy=POLICIES[policy])) == {0, 1}


def test_a_panic_threshold_of_zero_means_never(policy: str) -> None:
    assert picked(Cluster("never", in_states(1, 0, 9), policy=POLICIES[policy], panic_threshold=0.0)) == {0}


def test_without_panic_nobody_healthy_is_nobody(policy: str) -> None:
    states = [Health.UNHEALTHY, Health.DRAINING, Health.TIMEOUT]
    cluster = Cluster("none", spread_over_health(states), policy=POLICIES[policy], panic_threshold=0.0)
    with pytest.raises(NoEndpointAvailable):
        cluster.pick("key")


def test_panic_can_be_made_to_fail_requests(policy: str) -> None:
    cluster = Cluster("fail", in_states(1, 0, 3), policy=POLICIES[policy], fail_traffic_on_panic=True)
    with pytest.raises(NoEndpointAvailable, match="panic"):
        cluster.pick("key")


def test_the_error_names_the_states_the_endpoints_are_in() -> None:
    states = [Health.UNHEALTHY, Health.UNHEALTHY, Health.DRAINING]
    cluster = Cluster("told", spread_over_health(states), panic_threshold=0.0)
    with pytest.raises(NoEndpointAvailable) as refusal:
        cluster.pick()
    assert all(part in str(refusal.value) for part in ("'told'", "2 UNHEALTHY", "1 DRAINING"))


def test_a_failed_check_takes_an_endpoint_out(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    down(cluster, [2])
    assert picked(cluster) == {0, 1, 3}


def test_a_passed_check_brings_it_back(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    down(cluster, [2])
    cluster.set_health(address(2), True)
    assert picked(cluster) == {0, 1, 2, 3}


def test_a_passed_check_does_not_outrank_discovery(policy: str) -> None:
    cluster = Cluster("checked", in_states(3, 0, 1), policy=POLICIES[policy])
    cluster.set_health(address(3), True)
    assert picked(cluster) == {0, 1, 2}


def test_failed_checks_count_towards_panic(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    down(cluster, [0, 1, 2])
    assert picked(cluster) == {0, 1, 2, 3}


def test_a_failed_check_survives_an_update_that_keeps_the_address(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    down(cluster, [2])
    cluster.update(in_states(5, 0, 0))
    assert picked(cluster) == {0, 1, 3, 4}


def test_an_endpoint_that_left_and_came_back_starts_healthy(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    down(cluster, [3])
    cluster.update(in_states(3, 0, 0))
    cluster.update(in_states(4, 0, 0))
    assert picked(cluster) == {0, 1, 2, 3}


def test_a_request_still_in_flight_does_not_keep_a_failed_check_alive(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    leases = [cluster.acquire(key) for key in KEYS]
    down(cluster, [3])
    cluster.update(in_states(3, 0, 0))
    cluster.update(in_states(4, 0, 0))
    assert {each.availability for each in cluster.stats().endpoints} == {Availability.HEALTHY}
    assert len(leases) == len(KEYS)


def test_health_of_an_address_that_left_is_a_lookup_error_even_with_requests_in_flight() -> None:
    cluster = Cluster("checked", in_states(1, 0, 0))
    lease = cluster.acquire()
    cluster.update(in_states(1, 0, 0, first=7))
    with pytest.raises(LookupError):
        cluster.set_health(lease.endpoint.address, False)


def test_health_of_an_unknown_address_is_a_lookup_error_naming_it() -> None:
    with pytest.raises(LookupError, match=r"10\.0\.0\.9:80"):
        Cluster("checked", in_states(2, 0, 0)).set_health("10.0.0.9:80", False)


def test_requests_in_flight_keep_counting_while_an_endpoint_is_out(policy: str) -> None:
    cluster = Cluster("checked", in_states(4, 0, 0), policy=POLICIES[policy])
    leases = [cluster.acquire() for _ in range(8)]
    down(cluster, [2])
    for lease in leases:
        lease.done()
    cluster.set_health(address(2), True)
    assert [(each.availability, each.active) for each in cluster.stats().endpoints] == [(Availability.HEALTHY, 0)] * 4


def test_a_check_that_passes_as_degraded_rests_while_the_healthy_suffice(policy: str) -> None:
    cluster = Cluster("states", spread_over_health([Health.HEALTHY] * 4), policy=POLICIES[policy])
    cluster.set_health(address(0), True, degraded=True)
    assert cluster.stats().endpoints[0].availability is Availability.DEGRADED
    assert picked(cluster) == {1, 2, 3}
    cluster.set_health(address(0), True)
    assert picked(cluster) == {0, 1, 2, 3}


def test_degraded_by_check_does_not_outrank_discovery_or_a_failure(policy: str) -> None:
    cluster = Cluster("states", spread_over_health([Health.UNHEALTHY, Health.HEALTHY]), policy=POLICIES[policy])
    for number in (0, 1):
        cluster.set_health(address(number), True, degraded=True)
    assert cluster.stats().endpoints[0].availability is Availability.UNAVAILABLE
    cluster.set_health(address(1), False)
    assert cluster.stats().endpoints[1].availability is Availability.UNAVAILABLE


def test_one_that_leaves_by_its_own_word_is_out_of_the_denominator() -> None:
    cluster = Cluster("states", spread_over_health([Health.HEALTHY] * 4))
    cluster.set_health(address(0), False, excluded=True)
    (priority,) = cluster.stats().priorities
    assert (priority.total, priority.healthy, priority.excluded) == (4, 3, 1)
    cluster.set_health(address(0), True)
    (priority,) = cluster.stats().priorities
    assert (priority.healthy, priority.excluded) == (4, 0)


def test_many_findings_are_one_change_and_unknown_addresses_are_passed_over() -> None:
    cluster = Cluster("states", spread_over_health([Health.HEALTHY] * 4), panic_threshold=0.0)
    fails = CheckedHealth(passing=False)
    cluster.apply_checks({address(0): fails, address(1): CheckedHealth(degraded=True), "10.9.9.9:1": fails})
    assert [each.availability for each in cluster.stats().endpoints] == [
        Availability.UNAVAILABLE,
        Availability.DEGRADED,
        Availability.HEALTHY,
        Availability.HEALTHY,
    ]
