"""How many endpoints may be out at once: Envoy's percentage, and never the last usable one of a priority."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore import Cluster, EjectionCause, Endpoint, Health, OutlierDetection
from tests.core.fleets import address
from tests.core.outliers import Watched, counts

# endpoints, max_ejection_percent, ejected: those of ten and less as Envoy 1.40 was seen to do.
CAPS = [
    (1, 100, 0),
    (2, 50, 1),
    (2, 49, 0),
    (2, 100, 1),
    (3, 33, 0),
    (3, 34, 1),
    (3, 67, 2),
    (3, 100, 2),
    (9, 10, 0),
    (10, 10, 1),
    (20, 10, 2),
    (10, 0, 0),
    (10, 100, 9),
]


@pytest.mark.parametrize(("members", "percent", "ejected"), CAPS)
def test_the_percentage_counts_the_one_to_be_ejected(members: int, percent: int, ejected: int) -> None:
    watched = Watched(members, max_ejection_percent=percent, consecutive_5xx=1)
    leases = [watched.begin(number)[0] for number in range(members)]
    for lease in leases:
        lease.done(status=500)
    assert len(watched.ejected()) == ejected
    assert counts(watched).ejections_overflow == members - ejected


def test_one_may_always_be_ejected_if_so_set() -> None:
    watched = Watched(9, max_ejection_percent=0, always_eject_one_host=True, consecutive_5xx=1)
    watched.fail(4)
    watched.fail(5)
    assert watched.ejected() == {4}


def test_but_never_the_only_one() -> None:
    watched = Watched(1, always_eject_one_host=True, consecutive_5xx=1)
    watched.fail(0, 3)
    assert watched.ejected() == set()


def test_who_was_spared_is_ejected_once_there_is_room() -> None:
    watched = Watched(10, max_ejection_percent=10, consecutive_5xx=2)
    watched.fail(1, 2)
    watched.fail(2, 2)
    assert watched.ejected() == {1}
    watched.tick(30.0)
    watched.fail(2, 2)
    assert watched.ejected() == {2}


def layout(*states: tuple[int, Health]) -> list[Endpoint]:
    return [Endpoint(address(number), priority=p, health=health) for number, (p, health) in enumerate(states)]


UP, DOWN, WEAK = Health.HEALTHY, Health.UNHEALTHY, Health.DEGRADED


@pytest.mark.parametrize(
    ("states", "ejected"),
    [
        ([(0, UP), (0, UP), (1, UP)], 1),
        ([(0, UP), (0, DOWN), (1, UP)], 0),
        ([(0, UP), (0, WEAK), (1, UP)], 1),
        ([(0, UP), (1, UP), (1, UP)], 0),
        ([(0, UP), (0, UP), (0, UP), (1, UP)], 2),
    ],
)
def test_the_last_usable_one_of_a_priority_stays(states: list[tuple[int, Health]], ejected: int) -> None:
    watched = Watched(layout(*states), consecutive_5xx=1)
    leases = [watched.cluster.acquire() for _ in range(30)]
    for lease in leases:
        lease.done(status=500)
    assert len(watched.ejected()) == ejected


def test_one_that_fails_its_active_check_is_not_usable() -> None:
    watched = Watched(2, consecutive_5xx=1)
    watched.cluster.set_health(address(1), False)
    watched.fail(0)
    assert watched.ejected() == set()


def test_an_update_that_makes_room_lets_the_next_one_go() -> None:
    watched = Watched(9, max_ejection_percent=10, consecutive_5xx=1)
    watched.fail(3)
    assert watched.ejected() == set()
    watched.cluster.update([Endpoint(address(number)) for number in range(10)])
    watched.fail(3)
    assert watched.ejected() == {3}


def test_who_leaves_ejected_makes_room_for_another() -> None:
    watched = Watched(10, max_ejection_percent=10, consecutive_5xx=1)
    watched.fail(0)
    watched.cluster.update([Endpoint(address(number)) for number in range(1, 11)])
    assert counts(watched).ejections_active == 0
    watched.fail(4)
    assert [each.endpoint.address for each in watched.cluster.stats().endpoints if each.ejected] == [address(4)]


def test_who_leaves_and_joins_again_starts_anew() -> None:
    watched = Watched(4, consecutive_5xx=2)
    leases = watched.begin(3, 3)
    watched.fail(3, 2)
    members = watched.cluster.endpoints
    watched.cluster.update(members[:3])
    leases.pop().done(status=500)  # of somebody who is not there
    watched.cluster.update(members)
    assert watched.cluster.stats().endpoints[3].times_ejected == 0
    leases.pop().done(status=500)
    assert watched.ejected() == set()
    leases.pop().done(status=500)
    assert watched.ejected() == {3}


def test_an_update_that_keeps_an_address_keeps_it_ejected() -> None:
    watched = Watched(4, consecutive_5xx=1)
    watched.fail(3)
    watched.cluster.update([Endpoint(address(number), weight=2) for number in range(5)])
    assert watched.ejected() == {3}
    assert watched.picked() == {0, 1, 2, 4}


# Together with priorities and panic


def test_a_priority_that_loses_endpoints_spills_over() -> None:
    states = [(0, UP)] * 4 + [(1, UP)]
    watched = Watched(layout(*states), consecutive_5xx=1)
    for number in (0, 1):
        watched.fail(number)
    loads = [level.healthy_load for level in watched.cluster.stats().priorities]
    assert loads == [70, 30]  # two of four, times 1.4


def test_panic_brings_the_ejected_back_into_play_but_does_not_end_their_ejection() -> None:
    watched = Watched(10, panic_threshold=50.0, consecutive_5xx=1)
    for number in range(5):
        watched.fail(number)
    assert watched.picked() == set(range(5, 10))
    watched.fail(5)
    assert watched.picked() == set(range(10))
    assert watched.ejected() == set(range(6))


def test_a_priority_in_panic_serves_with_all_until_the_ejected_return() -> None:
    """A timeline: of each level three of four go, and all that are left are not enough; then they are back."""
    states = [(0, UP)] * 4 + [(1, UP)] * 4
    watched = Watched(layout(*states), panic_threshold=50.0, consecutive_5xx=1, interval=10.0, base_ejection_time=30.0)

    def levels() -> list[tuple[int, bool]]:
        return [(level.healthy_load + level.degraded_load, level.panic) for level in watched.cluster.stats().priorities]

    assert levels() == [(100, False), (0, False)]
    seen = []
    for number in range(3):
        watched.fail(number)
        seen.append(levels())
    assert seen == [
        [(100, False), (0, False)],  # 3 of 4, times 1.4: more than all of it
        [(70, False), (30, False)],
        [(35, False), (65, False)],  # no panic while the other level has room
    ]
    for number in range(4, 7):
        watched.fail(number)
    assert levels() == [(50, True), (50, True)]
    assert watched.picked() == set(range(8))
    watched.tick(20.0)
    assert levels() == [(50, True), (50, True)]
    watched.tick(10.0)
    assert levels() == [(100, False), (0, False)]
    assert watched.ejected() == set()


def test_panic_that_fails_its_traffic_leaves_the_last_usable_one() -> None:
    cluster = Cluster(
        "strict",
        [Endpoint(address(number)) for number in range(4)],
        fail_traffic_on_panic=True,
        panic_threshold=20.0,
        outlier_detection=OutlierDetection(consecutive_5xx=1, max_ejection_percent=100),
    )
    for lease in [cluster.acquire() for _ in range(40)]:
        lease.done(status=500)
    assert sum(each.ejected for each in cluster.stats().endpoints) == 3
    assert len({cluster.pick().address for _ in range(20)}) == 1


# The sweeps' own limits

BY_RATE = {"consecutive_5xx": 0, "success_rate_request_volume": 1, "success_rate_minimum_hosts": 1}
BY_PERCENTAGE = {
    "consecutive_5xx": 0,
    "enforcing_success_rate": 0,
    "enforcing_failure_percentage": 100,
    "failure_percentage_request_volume": 1,
    "failure_percentage_minimum_hosts": 1,
}


@pytest.mark.parametrize(
    ("algorithm", "caps"),
    [
        # Envoy counts the one to be ejected, gRPC does not (gRFC A50).
        ("envoy", {1: 0, 2: 0, 3: 0, 9: 0, 10: 1, 20: 2, 29: 2, 30: 3}),
        ("grpc", {1: 0, 2: 1, 3: 1, 9: 1, 10: 1, 11: 2, 20: 2, 21: 3}),
    ],
)
def test_a_sweep_ejects_no_more_than_the_percentage(algorithm: str, caps: dict[int, int]) -> None:
    for members, ejected in caps.items():
        watched = Watched(members, algorithm=algorithm, max_ejection_percent=10, **BY_PERCENTAGE)
        for number in range(members):
            watched.end(number, 5, status=500)
        watched.tick(10.0)
        assert watched.ejected() == set(range(ejected)), members
        assert counts(watched).ejections_overflow == members - ejected


@pytest.mark.parametrize(("members", "ejected"), [(1, 0), (2, 0), (3, 1), (9, 1), (10, 1), (20, 1)])
def test_one_outlier_among_others_may_always_go_if_so_set(members: int, ejected: int) -> None:
    """Of two, the worse lies one deviation below the mean, which is not more than one."""
    watched = Watched(
        members, max_ejection_percent=0, always_eject_one_host=True, success_rate_stdev_factor=1000, **BY_RATE
    )
    for number in range(members):
        watched.end(number, 5, status=500 if number == 0 else 200)
    watched.tick(10.0)
    assert len(watched.ejected()) == ejected


# Settings that are none


@pytest.mark.parametrize("setting", [1, {}, "on", OutlierDetection])
def test_a_setting_of_another_kind_is_refused(setting: Any) -> None:
    with pytest.raises(ValueError, match=r"outlier_detection .*: expected OutlierDetection settings, or None"):
        Cluster("bad", outlier_detection=setting)


def test_without_a_setting_nobody_is_ejected_and_nothing_counted() -> None:
    cluster = Cluster("plain", [Endpoint(address(number)) for number in range(2)])
    for _ in range(20):
        cluster.acquire().done(ok=False)
    cluster.tick()
    assert cluster.stats().outlier_detection is None
    assert not any(each.ejected for each in cluster.stats().endpoints)
    assert EjectionCause.SUCCESS_RATE == "success_rate"
