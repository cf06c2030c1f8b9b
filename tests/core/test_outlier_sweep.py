"""What outlier detection does at intervals: judging rates, letting endpoints return, forgiving."""

from __future__ import annotations

import pytest

from lbcore import EjectionCause
from tests.core.fleets import address
from tests.core.outliers import Watched, counts

RATES_ALONE = {"consecutive_5xx": 0}
PERCENTAGES_ALONE = {**RATES_ALONE, "enforcing_success_rate": 0, "enforcing_failure_percentage": 100}


def serve(watched: Watched, successes: dict[int, int], volume: int = 100, *, ok: bool = True) -> None:
    """So many requests to each endpoint, of which so many go well; the rest fail as answers, or locally."""
    for number, good in successes.items():
        watched.end(number, good)
        watched.end(number, volume - good, ok=ok, status=500 if ok else None)


# Success rates. The example of Envoy's documentation: of 50, 100, 100, 100, 100 the mean is 90, the deviation 20.


def test_a_rate_below_the_mean_by_the_factor_of_deviations_ejects() -> None:
    watched = Watched(5, **RATES_ALONE)
    serve(watched, {0: 50, 1: 100, 2: 100, 3: 100, 4: 100})
    assert watched.ejected() == set()
    watched.tick(10.0)
    assert watched.ejected() == {0}
    found = counts(watched)
    assert (found.success_rate_average, found.success_rate_ejection_threshold) == (90.0, 52.0)
    assert [each.success_rate for each in watched.cluster.stats().endpoints] == [50.0, 100.0, 100.0, 100.0, 100.0]
    assert watched.cluster.stats().endpoints[0].ejection_cause is EjectionCause.SUCCESS_RATE


@pytest.mark.parametrize(("factor", "ejected"), [(1999, {0}), (2000, set()), (2001, set())])
def test_a_rate_at_the_threshold_stays(factor: int, ejected: set[int]) -> None:
    watched = Watched(5, success_rate_stdev_factor=factor, **RATES_ALONE)
    serve(watched, {0: 50, 1: 100, 2: 100, 3: 100, 4: 100})
    watched.tick(10.0)
    assert watched.ejected() == ejected


@pytest.mark.parametrize(("volume", "ejected"), [(99, set()), (100, {0})])
def test_rates_need_requests_enough(volume: int, ejected: set[int]) -> None:
    watched = Watched(5, **RATES_ALONE)
    serve(watched, {0: 50, 1: volume, 2: volume, 3: volume, 4: volume}, volume)
    watched.tick(10.0)
    assert watched.ejected() == ejected


@pytest.mark.parametrize(("hosts", "ejected"), [(4, set()), (5, {0})])
def test_rates_need_endpoints_enough(hosts: int, ejected: set[int]) -> None:
    watched = Watched(6, success_rate_stdev_factor=1000, **RATES_ALONE)
    serve(watched, {0: 50, **dict.fromkeys(range(1, hosts), 100)})
    watched.tick(10.0)
    assert watched.ejected() == ejected


def test_an_interval_counts_for_itself() -> None:
    watched = Watched(5, **RATES_ALONE)
    half = {0: 25, 1: 50, 2: 50, 3: 50, 4: 50}
    serve(watched, half, 50)
    watched.tick(10.0)
    serve(watched, half, 50)
    watched.tick(10.0)
    assert watched.ejected() == set()


def test_who_is_ejected_is_left_out_of_the_rates_of_the_others() -> None:
    watched = Watched(6, consecutive_5xx=10, success_rate_stdev_factor=1000)
    serve(watched, {0: 0, 1: 90, 2: 100, 3: 100, 4: 100, 5: 100})
    assert watched.ejected() == {0, 1}  # ten in a row
    watched.tick(10.0)
    assert counts(watched).success_rate_average is None  # four are left, too few


def test_local_rates_are_judged_apart_where_errors_are_split() -> None:
    watched = Watched(5, split_external_local_origin_errors=True, consecutive_local_origin_failure=0, **RATES_ALONE)
    serve(watched, {0: 50, 1: 100, 2: 100, 3: 100, 4: 100}, ok=False)
    watched.tick(10.0)
    each = watched.cluster.stats().endpoints[0]
    assert each.ejection_cause is EjectionCause.LOCAL_ORIGIN_SUCCESS_RATE
    assert (each.success_rate, each.local_origin_success_rate) == (100.0, 50.0)  # answers that came were good
    assert counts(watched).local_origin_success_rate_ejection_threshold == 52.0


# Failure percentages


@pytest.mark.parametrize(("successes", "ejected"), [(14, {0}), (15, {0}), (16, set())])
def test_the_percentage_itself_ejects(successes: int, ejected: set[int]) -> None:
    watched = Watched(6, **PERCENTAGES_ALONE)
    serve(watched, {0: successes, 1: 100, 2: 100, 3: 100, 4: 100})
    watched.tick(10.0)
    assert watched.ejected() == ejected


@pytest.mark.parametrize(("volume", "ejected"), [(49, set()), (50, {0})])
def test_percentages_need_requests_enough(volume: int, ejected: set[int]) -> None:
    watched = Watched(6, **PERCENTAGES_ALONE)
    serve(watched, {0: 0, 1: volume, 2: volume, 3: volume, 4: volume}, volume)
    watched.tick(10.0)
    assert watched.ejected() == ejected


@pytest.mark.parametrize(("hosts", "ejected"), [(4, set()), (5, {0})])
def test_percentages_need_endpoints_enough(hosts: int, ejected: set[int]) -> None:
    watched = Watched(6, **PERCENTAGES_ALONE)
    serve(watched, {0: 0, **dict.fromkeys(range(1, hosts), 100)})
    watched.tick(10.0)
    assert watched.ejected() == ejected


def test_percentages_do_not_eject_by_default() -> None:
    watched = Watched(6, consecutive_5xx=0, enforcing_success_rate=0)
    serve(watched, {0: 0, 1: 100, 2: 100, 3: 100, 4: 100})
    watched.tick(10.0)
    assert watched.ejected() == set()
    assert counts(watched).ejections_detected_failure_percentage == 1


def test_one_that_its_rate_has_ejected_is_not_judged_again() -> None:
    watched = Watched(5, consecutive_5xx=0, enforcing_failure_percentage=100)
    serve(watched, {0: 0, 1: 100, 2: 100, 3: 100, 4: 100})
    watched.tick(10.0)
    found = counts(watched)
    assert (found.ejections_enforced_success_rate, found.ejections_detected_failure_percentage) == (1, 0)
    assert found.ejections_active == 1


def test_local_percentages_have_a_cause_of_their_own() -> None:
    watched = Watched(
        5,
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=0,
        enforcing_local_origin_success_rate=0,
        enforcing_failure_percentage_local_origin=100,
    )
    serve(watched, {0: 0, 1: 100, 2: 100, 3: 100, 4: 100}, ok=False)
    watched.tick(10.0)
    assert watched.cluster.stats().endpoints[0].ejection_cause is EjectionCause.LOCAL_ORIGIN_FAILURE_PERCENTAGE


# Returning


def out_for(watched: Watched, number: int) -> float:
    """Seconds by ticks of one until an endpoint is back."""
    for seconds in range(1, 2000):
        watched.tick(1.0)
        if number not in watched.ejected():
            return seconds
    raise AssertionError("it never returned")


def test_an_ejection_ends_at_the_first_sweep_after_the_base_time() -> None:
    watched = Watched(consecutive_5xx=1)
    watched.clock.advance(4.0)
    watched.fail(3)
    assert watched.cluster.stats().endpoints[3].returns_at == watched.start + 34_000_000_000
    assert out_for(watched, 3) == 36  # 34 seconds after the start, seen by the sweep at 40
    assert watched.picked() == set(range(10))


def test_each_further_ejection_is_longer_up_to_the_longest() -> None:
    watched = Watched(consecutive_5xx=1, interval=1.0, base_ejection_time=3.0, max_ejection_time=8.0)
    lengths = []
    for _ in range(5):
        watched.fail(3)
        lengths.append(out_for(watched, 3))
    assert lengths == [3, 6, 8, 8, 8]


def test_a_healthy_interval_shortens_the_next_ejection() -> None:
    watched = Watched(consecutive_5xx=1, interval=1.0, base_ejection_time=3.0)
    for expected in (3, 6, 9):
        watched.fail(3)
        assert out_for(watched, 3) == expected
    watched.tick(1.0)
    watched.tick(1.0)
    watched.fail(3)
    assert out_for(watched, 3) == 6
    for _ in range(10):
        watched.tick(1.0)
    watched.fail(3)
    assert out_for(watched, 3) == 3


def test_jitter_is_added_and_drawn_anew_each_time() -> None:
    watched = Watched(consecutive_5xx=1, base_ejection_time=30.0, max_ejection_time_jitter=10.0)
    seen = []
    for number in range(8):
        watched.fail(number)
        each = watched.cluster.stats().endpoints[number]
        assert each.returns_at is not None
        assert each.ejected_at is not None
        seen.append((each.returns_at - each.ejected_at) / 1e9 - 30.0)
    assert all(0.0 <= jitter <= 10.0 for jitter in seen)
    assert len(set(seen)) == 8


def test_equal_seeds_give_equal_jitter() -> None:
    def returns_at(seed: int) -> int | None:
        watched = Watched(consecutive_5xx=1, max_ejection_time_jitter=10.0, seed=seed)
        watched.fail(1)
        return watched.cluster.stats().endpoints[1].returns_at

    assert returns_at(1) == returns_at(1) != returns_at(2)


def test_nothing_happens_before_a_sweep_is_due() -> None:
    watched = Watched(consecutive_5xx=1, base_ejection_time=1.0)
    watched.fail(3)
    for _ in range(9):
        watched.tick(1.0)
    assert watched.ejected() == {3}
    watched.tick(1.0)
    assert watched.ejected() == set()


def test_sweeps_keep_their_grid_when_ticks_come_late() -> None:
    watched = Watched(5, consecutive_5xx=1, base_ejection_time=1.0)
    watched.tick(19.5)  # one sweep, for 10; the next is due at 20, not at 29.5
    watched.fail(3)
    watched.tick(1.0)
    assert watched.ejected() == set()


def test_a_passed_active_check_ends_an_ejection_at_once() -> None:
    watched = Watched(consecutive_5xx=1)
    watched.fail(3)
    watched.cluster.set_health(address(3), True)
    assert watched.ejected() == set()
    assert watched.picked() == set(range(10))


def test_unless_it_is_told_not_to() -> None:
    watched = Watched(consecutive_5xx=1, successful_active_health_check_uneject_host=False)
    watched.fail(3)
    watched.cluster.set_health(address(3), True)
    assert watched.ejected() == {3}


def test_a_check_that_passes_as_the_one_before_ends_an_ejection_too() -> None:
    watched = Watched(consecutive_5xx=1)
    watched.fail(3)
    watched.cluster.passed_check(address(3))
    watched.cluster.passed_check("10.9.9.9:80")
    assert watched.ejected() == set()


def test_a_failed_active_check_outlasts_the_ejection() -> None:
    watched = Watched(consecutive_5xx=1)
    watched.fail(3)
    watched.cluster.set_health(address(3), False)
    watched.tick(30.0)
    assert watched.ejected() == set()
    assert watched.picked() == set(range(10)) - {3}


def test_handles_see_an_endpoint_return() -> None:
    watched = Watched(3, consecutive_5xx=1)
    handle = watched.cluster.handle()
    watched.fail(1)
    assert {handle.pick().address for _ in range(9)} == {address(0), address(2)}
    watched.tick(30.0)
    assert {handle.pick().address for _ in range(9)} == {address(number) for number in range(3)}
