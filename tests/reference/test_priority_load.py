"""Priority loads against Envoy's test/extensions/load_balancing_policies/common/load_balancer_impl_base_test.cc."""

from __future__ import annotations

import pytest

from tests.reference.health import Availability
from tests.reference.priority_load import Counts, PriorityLoad, priority_load

CALM = [False] * 3
PANIC = [True] * 3


@pytest.mark.parametrize(
    ("levels", "healthy", "degraded", "panic"),
    [
        ([(1, 1), (1, 1)], [100, 0], [0, 0], [False, False]),
        ([(2, 1), (2, 1)], [70, 30], [0, 0], [False, False]),
        ([(4, 1), (2, 2)], [35, 65], [0, 0], [False, False]),
        ([(4, 1), (4, 1)], [50, 50], [0, 0], [True, True]),
        ([(4, 1, 0, 3), (5, 1)], [100, 0], [0, 0], [False, False]),
        ([(4, 0, 0, 4), (4, 1)], [50, 50], [0, 0], [True, True]),
        ([(4, 0, 0, 1), (6, 1, 0, 2)], [40, 60], [0, 0], [True, True]),
        ([(1, 0), (1, 0)], [50, 50], [0, 0], [True, True]),
        ([(1, 0), (2, 0)], [34, 66], [0, 0], [True, True]),
        ([(4, 1), (4, 1), (4, 1)], [35, 35, 30], [0, 0, 0], CALM),
        ([(5, 1), (5, 1), (5, 1)], [34, 33, 33], [0, 0, 0], PANIC),
        ([(5, 0), (5, 0), (5, 4)], [0, 0, 100], [0, 0, 0], CALM),
        ([(5, 0), (5, 0), (5, 2)], [34, 33, 33], [0, 0, 0], PANIC),
        ([(5, 0, 5), (5, 2, 2), (5, 2)], [0, 56, 44], [0, 0, 0], CALM),
        ([(5, 0), (3, 0), (2, 0)], [50, 30, 20], [0, 0, 0], PANIC),
        ([(5, 0), (6, 2), (3, 1)], [37, 42, 21], [0, 0, 0], PANIC),
        ([(5, 0, 1), (5, 0, 5), (5, 1)], [0, 0, 28], [28, 44, 0], CALM),
        ([(0, 0), (6, 0), (3, 0)], [0, 67, 33], [0, 0, 0], PANIC),
    ],
)
def test_loads_are_envoys(
    levels: list[tuple[int, ...]], healthy: list[int], degraded: list[int], panic: list[bool]
) -> None:
    assert priority_load([Counts(*level) for level in levels]) == PriorityLoad(healthy, degraded, panic)


def test_without_panic_rounding_goes_to_the_first_degraded_level() -> None:
    load = priority_load([Counts(5, 0), Counts(5, 0, 2), Counts(5, 0, 1)], panic_threshold=0.0)
    assert (load.healthy, load.degraded) == ([0, 0, 0], [0, 67, 33])


def test_overprovisioning_of_100_spills_every_lost_percent() -> None:
    assert priority_load([Counts(4, 2), Counts(4, 2)], 100).healthy == [50, 50]


def test_healthy_loads_come_before_degraded_ones_in_the_choice() -> None:
    load = PriorityLoad([0, 0, 28], [28, 44, 0], CALM)
    assert [load.choose(draw) for draw in (27, 28, 55, 56, 99, 127)] == [
        (2, Availability.HEALTHY),
        (0, Availability.DEGRADED),
        (0, Availability.DEGRADED),
        (1, Availability.DEGRADED),
        (1, Availability.DEGRADED),
        (2, Availability.HEALTHY),
    ]
