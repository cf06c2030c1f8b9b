"""Slow start: a newcomer's weight grows by Envoy's formula, and moves with the clock by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import Cluster, Endpoint, Health, LeastRequest, RoundRobin, SlowStart
from lbcore.policy import Policy
from tests.core.chi_square import assert_follows
from tests.core.clocks import ManualClock
from tests.core.fleets import address, fleet
from tests.reference.slow_start import slow_start_factor

WINDOW = 60.0
PICKS = 4_000


def round_robin(**ramp: float) -> Policy:
    return RoundRobin(slow_start=SlowStart(WINDOW, **ramp))


def least_request(**ramp: float) -> Policy:
    return LeastRequest(selection_method="full_scan", slow_start=SlowStart(WINDOW, **ramp))


def joined(policy: Policy, weights: tuple[int, ...] = (1, 1, 1)) -> tuple[Cluster, ManualClock]:
    """Endpoints that are long warm, and a last one that joins now."""
    clock = ManualClock()
    members = fleet(len(weights), weights)
    cluster = Cluster("slow", members[:-1], policy=policy, clock=clock, seed=7)
    clock.advance(10 * WINDOW)
    cluster.update(members)
    return cluster, clock


def assert_weighs(cluster: Cluster, weights: list[float], picks: int = PICKS) -> None:
    """The endpoints get picks as these effective weights say; within chance, because a ramp thins turns at random."""
    counts = Counter(cluster.pick().address for _ in range(picks))
    assert_follows(counts, {address(i): weight / sum(weights) for i, weight in enumerate(weights)})


@pytest.mark.parametrize("age", [0.0, 3.0, 15.0, 30.0, 59.0, 60.0, 600.0])
@pytest.mark.parametrize("ramp", [{}, {"aggression": 2.0}, {"min_weight_percent": 50.0}, {"min_weight_percent": 0.0}])
def test_round_robin_gives_a_newcomer_its_share_at_every_age(age: float, ramp: dict[str, float]) -> None:
    cluster, clock = joined(round_robin(**ramp), (2, 3, 4))
    clock.advance(age)
    assert_weighs(cluster, [2, 3, 4 * slow_start_factor(age, WINDOW, **ramp)])


@given(st.floats(0.0, 70.0), st.floats(0.2, 5.0), st.floats(0.0, 100.0))
def test_the_share_of_a_newcomer_follows_the_formula(age: float, aggression: float, least: float) -> None:
    cluster, clock = joined(round_robin(aggression=aggression, min_weight_percent=least))
    clock.advance(age)
    assert_weighs(cluster, [1, 1, slow_start_factor(age, WINDOW, aggression, least)], 2_000)


@pytest.mark.parametrize("make", [round_robin, least_request])
def test_the_weight_moves_with_the_clock_without_any_update(make: Callable[[], Policy]) -> None:
    cluster, clock = joined(make())
    shares = []
    for _ in range(7):
        leases = [cluster.acquire() for _ in range(600)]
        shares.append(Counter(lease.endpoint.address for lease in leases)[address(2)] / 600)
        for lease in leases:
            lease.done()
        clock.advance(WINDOW / 6)
    assert shares == sorted(shares)
    assert shares[0] < 0.06
    assert shares[-1] == pytest.approx(1 / 3, abs=0.005)


def test_least_request_weighs_requests_in_flight_by_the_ramp() -> None:
    cluster, clock = joined(least_request())
    clock.advance(WINDOW / 2)
    leases = [cluster.acquire() for _ in range(500)]
    counts = Counter(lease.endpoint.address for lease in leases)
    assert [counts[address(i)] for i in range(3)] == pytest.approx([200, 200, 100], abs=2)


def test_a_sampled_choice_compares_the_ramped_scores() -> None:
    clock = ManualClock()
    policy = LeastRequest(slow_start=SlowStart(WINDOW))
    cluster = Cluster("slow", fleet(1), policy=policy, clock=clock, seed=7)
    clock.advance(10 * WINDOW)
    cluster.update(fleet(2))
    counts = Counter(cluster.pick().address for _ in range(8_000))
    assert_follows(counts, {address(0): 0.75, address(1): 0.25})


def test_an_endpoint_that_passes_its_checks_again_starts_slowly() -> None:
    cluster, clock = joined(round_robin())
    clock.advance(10 * WINDOW)
    cluster.set_health(address(0), False)
    clock.advance(5.0)
    cluster.set_health(address(0), True)
    assert_weighs(cluster, [0.1, 1, 1])


def test_discovery_calling_an_endpoint_healthy_again_begins_no_ramp_as_in_envoy() -> None:
    cluster, clock = joined(round_robin())
    clock.advance(10 * WINDOW)
    cluster.update([Endpoint(address(0), health=Health.UNHEALTHY), *fleet(3)[1:]])
    clock.advance(5.0)
    cluster.update(fleet(3))
    assert_weighs(cluster, [1, 1, 1])


def test_a_change_of_weight_does_not_start_the_ramp_anew() -> None:
    cluster, clock = joined(round_robin())
    clock.advance(WINDOW / 2)
    cluster.update([*fleet(2), Endpoint(address(2), weight=3)])
    assert_weighs(cluster, [1, 1, 1.5])


def test_where_all_endpoints_are_new_they_share_evenly() -> None:
    cluster = Cluster("slow", fleet(4), policy=round_robin(), clock=ManualClock(), seed=7)
    assert_weighs(cluster, [1, 1, 1, 1])


def test_after_the_window_the_rotation_is_exact_again() -> None:
    cluster, clock = joined(round_robin())
    assert_weighs(cluster, [1, 1, 0.1])
    clock.advance(WINDOW)
    cluster.tick()
    assert set(Counter(cluster.pick().address for _ in range(300)).values()) == {100}


def test_without_slow_start_a_newcomer_takes_its_full_share_at_once() -> None:
    cluster, _ = joined(RoundRobin())
    assert set(Counter(cluster.pick().address for _ in range(300)).values()) == {100}


def test_a_batch_in_the_ramp_follows_it_as_single_picks_do() -> None:
    batch, single = (joined(round_robin())[0] for _ in range(2))
    picked = [batch.endpoints[i].address for i in batch.pick_many(500)]
    assert picked == [single.pick().address for _ in range(500)]


@pytest.mark.parametrize("outcome", [None, "now"])
def test_a_clock_that_tells_no_time_is_a_type_error(outcome: object) -> None:
    with pytest.raises(TypeError):
        Cluster("slow", fleet(2), policy=round_robin(), clock=lambda: outcome).pick()  # type: ignore[arg-type, return-value]


def test_an_error_of_the_clock_reaches_the_caller() -> None:
    def broken() -> int:
        raise RuntimeError("clock")

    with pytest.raises(RuntimeError, match="clock"):
        Cluster("slow", fleet(2), policy=round_robin(), clock=broken).pick()


def test_a_clock_that_goes_back_does_no_harm() -> None:
    cluster, clock = joined(round_robin())
    clock.advance(-WINDOW)
    assert_weighs(cluster, [1, 1, 0.1])


@pytest.mark.parametrize("make", [round_robin, least_request])
@pytest.mark.parametrize("call", ["pick", "acquire", "pick_many", "rank", "explain"])
def test_a_clock_in_which_the_endpoints_change_meets_the_new_ones(make: Callable[[], Policy], call: str) -> None:
    following = [[Endpoint(address(100))]]
    clock = ManualClock()

    def changing_clock() -> int:
        if following and changing:
            cluster.update(following.pop())
        return clock()

    changing = False
    cluster = Cluster("slow", fleet(200), policy=make(), clock=changing_clock, seed=7)
    changing = True
    calls: dict[str, Callable[[], Endpoint | None]] = {
        "pick": lambda: cluster.pick(),
        "acquire": lambda: cluster.acquire().endpoint,
        "pick_many": lambda: next(cluster.endpoints[i] for i in cluster.pick_many(1)),
        "rank": lambda: cluster.rank("key", 1)[0],
        "explain": lambda: cluster.explain().winner,
    }
    outcome = calls[call]()
    assert outcome is not None
    assert outcome.address == address(100)
    assert cluster.endpoints == (Endpoint(address(100)),)
