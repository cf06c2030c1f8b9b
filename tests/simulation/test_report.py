"""What a report says: the same for equal seeds, the same requests for every policy, events met as they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from lbcore import LeastRequest, RoundRobin
from lbcore.simulation import (
    Baseline,
    Burst,
    Event,
    FailFast,
    Fleet,
    Join,
    Leave,
    Pause,
    Retries,
    Scenario,
    Servers,
    SlowDown,
    Traffic,
    run,
    run_once,
)
from lbcore.simulation.run import run_to_end

SCENARIO = Scenario(
    fleet=Fleet(servers=(Servers(count=20),), clients=2),
    traffic=Traffic(load=70.0, requests=30_000),
    policies=(LeastRequest(), RoundRobin()),
)
FULL_SCAN = LeastRequest(selection_method="full_scan")


def with_event(event: Event, load: float = 70.0) -> Scenario:
    return replace(SCENARIO, events=(event,), traffic=replace(SCENARIO.traffic, load=load))


def test_equal_seeds_give_equal_reports_in_any_number_of_processes() -> None:
    short = SCENARIO.with_requests(3000)
    reports = [run(short, seeds=2), run(short, seeds=2), run(short, seeds=2, jobs=2)]
    assert reports[0] == reports[1] == reports[2]
    assert run(replace(short, seed=3)) != reports[0]


def test_every_policy_meets_the_same_requests() -> None:
    seen = [run_to_end(SCENARIO, each, 5, []).records for each in (Baseline.SED, LeastRequest(), RoundRobin())]
    for other in seen[1:]:
        assert bool((other.arrival_times == seen[0].arrival_times).all())
        assert bool((other.work == seen[0].work).all())


def test_figures_are_medians_over_the_seeds() -> None:
    report = run(SCENARIO.with_requests(5000), seeds=3)
    row = report.row("round_robin")
    ratios = [own.p99 / base.p99 for own, base in zip(row.outcomes, report.row("jsq").outcomes, strict=True)]
    assert row.p99_to_jsq == sorted(ratios)[1]
    assert row.p99_to_jsq_range == (min(ratios), max(ratios))
    assert row.p99 == sorted(outcome.p99 for outcome in row.outcomes)[1]


def test_utilisation_is_the_load() -> None:
    for contender in (Baseline.JSQ, RoundRobin()):
        outcome = run_once(SCENARIO, contender, 1)
        assert outcome.mean_utilization == pytest.approx(0.7, rel=0.03)
        assert 1.0 <= outcome.max_over_mean_utilization < 1.2
        assert outcome.growth == pytest.approx(1.0, abs=0.5)


def test_queues_that_grow_are_seen_to_grow() -> None:
    slow = replace(SCENARIO, fleet=Fleet(servers=(Servers(count=18), Servers(count=2, speed=0.2))))
    assert run_once(slow, RoundRobin(), 1).growth > 1.5
    assert run_once(slow, FULL_SCAN, 1).growth < 1.5


def test_a_slow_down_is_diverted_from_and_recovered_from() -> None:
    [event] = run_once(with_event(SlowDown(servers=4, at=5.0, duration=5.0, factor=10.0)), FULL_SCAN, 1).events
    assert event.fair_share == pytest.approx(20.0)
    assert event.fair_share_during == pytest.approx(100 * 0.4 / 16.4)
    assert event.share_before == pytest.approx(20.0, rel=0.05)
    assert event.share_during is not None
    assert event.share_during < 5.0
    assert event.share_after == pytest.approx(20.0, rel=0.1)
    assert event.time_to_divert is not None
    assert event.time_to_recover is not None
    assert max(event.time_to_divert, event.time_to_recover) < 1.0


def test_round_robin_never_diverts() -> None:
    [event] = run_once(with_event(SlowDown(servers=4, at=5.0, duration=5.0, factor=2.0), 40.0), RoundRobin(), 1).events
    assert event.time_to_divert is None
    assert event.share_during == pytest.approx(20.0, rel=0.02)


def test_servers_join_and_leave() -> None:
    [joined] = run_once(with_event(Join(servers=5, at=4.0)), RoundRobin(), 1).events
    assert (joined.share_before, joined.fair_share) == (0.0, 25.0)
    assert joined.share_first_second == pytest.approx(25.0, rel=0.05)
    assert joined.time_to_recover == 0.0
    [left] = run_once(with_event(Leave(servers=5, at=4.0, duration=4.0)), RoundRobin(), 1).events
    assert left.share_during == 0.0
    assert left.share_after == pytest.approx(25.0, rel=0.05)


def test_a_failing_server_causes_its_share_of_errors() -> None:
    outcome = run_once(with_event(FailFast(servers=1)), RoundRobin(), 1)
    assert outcome.error_percent == pytest.approx(5.0, rel=0.02)
    halved = run_once(with_event(FailFast(servers=1, share=50.0)), RoundRobin(), 1)
    assert halved.error_percent == pytest.approx(2.5, rel=0.1)
    retried = run_once(replace(with_event(FailFast(servers=1)), retries=Retries()), RoundRobin(), 1)
    assert retried.error_percent < 0.5
    assert retried.attempts == pytest.approx(1.05, abs=0.01)


def test_a_pause_delays_and_loses_nothing() -> None:
    paused = run_once(with_event(Pause(servers=20, at=1.0, duration=0.5, every=5.0)), RoundRobin(), 1)
    assert paused.error_percent == 0.0
    assert paused.p99 > 0.3


def test_a_burst_brings_more_requests() -> None:
    plain, burst = (
        run_to_end(scenario, Baseline.JSQ, 1, [[]] * len(scenario.events)).records.arrival_times
        for scenario in (SCENARIO, with_event(Burst(at=4.0, duration=2.0, factor=3.0)))
    )

    def between(times: object, begin: float, end: float) -> int:
        return int(((times >= begin * 1e9) & (times < end * 1e9)).sum())  # type: ignore[operator]

    assert between(burst, 0.0, 4.0) == between(plain, 0.0, 4.0)
    assert between(burst, 4.0, 6.0) == pytest.approx(3 * between(plain, 4.0, 6.0), rel=0.1)


def test_json_holds_numbers_only() -> None:
    report = run(with_event(FailFast(servers=20)).with_requests(500), policies=[RoundRobin()])
    assert math.isnan(report.row("round_robin").p99)
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text)["policies"][2]["p99"] is None
    assert "round_robin" in str(report)


def test_an_unknown_row_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        run(SCENARIO.with_requests(100)).row("none")
