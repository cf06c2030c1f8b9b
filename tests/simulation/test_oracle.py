"""The native event loop does, to the nanosecond, what the plain one does through acquire and done."""

from __future__ import annotations

import math

import numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbcore import (
    Adaptive,
    ClientSideWeightedRoundRobin,
    LeastRequest,
    Maglev,
    OutlierDetection,
    PeakEwma,
    Prequal,
    Random,
    RoundRobin,
    SlowStart,
)
from lbcore.simulation import (
    Baseline,
    Bimodal,
    Burst,
    Deterministic,
    Event,
    Exponential,
    FailFast,
    Fleet,
    Hyperexponential,
    Join,
    Leave,
    Lognormal,
    Pareto,
    Pause,
    Reports,
    Retries,
    Scenario,
    Servers,
    SlowDown,
    Traffic,
)
from lbcore.simulation.run import Contender, run_to_end
from lbcore.simulation.timeline import affected_servers
from tests.reference.fleet_simulation import FleetSimulation

REQUESTS = 80
SUCCEEDED = 1

CONTENDERS: list[Contender] = [
    *Baseline,
    RoundRobin(),
    Random(),
    LeastRequest(),
    LeastRequest(selection_method="full_scan"),
    LeastRequest(slow_start=SlowStart(0.05)),
    Maglev(table_size=31),
    Adaptive(),
    Adaptive(recovery_time=0.05),
    PeakEwma(decay_time=0.05),
    PeakEwma(selection_method="full_scan"),
    ClientSideWeightedRoundRobin(blackout_period=0.01, weight_update_period=0.1, weight_expiration_period=0.3),
    Prequal(),
    Prequal(pool_size=2, max_age=0.02),
]
service_times = st.one_of(
    st.builds(Exponential),
    st.builds(Lognormal, sigma=st.floats(0.1, 2.0)),
    st.builds(Hyperexponential, long_share=st.floats(0.0, 100.0), long_factor=st.floats(1.0, 50.0)),
    st.builds(Bimodal, long_share=st.floats(0.0, 100.0), long_factor=st.floats(1.0, 50.0)),
    st.builds(Pareto, alpha=st.floats(1.1, 5.0)),
    st.builds(Deterministic),
)
servers = st.builds(
    Servers,
    count=st.integers(1, 3),
    speed=st.sampled_from([0.2, 1.0, 1.7]),
    workers=st.integers(1, 3),
    weight=st.integers(1, 3),
)
retries = st.builds(
    Retries,
    num_retries=st.integers(0, 3),
    per_try_timeout=st.none() | st.floats(0.002, 0.1),
    budget_percent=st.floats(0.0, 100.0),
    min_retry_concurrency=st.integers(0, 3),
)


delays = st.sampled_from([0.0, 0.0005, 0.01, 10.0])


@st.composite
def events(draw: st.DrawFn, span: float, count: int) -> Event:
    at = draw(st.floats(0.0, 0.9)) * span
    duration = draw(st.floats(0.05, 1.0)) * span
    ending = draw(st.sampled_from([None, duration]))
    some = draw(st.integers(1, count))
    kind = draw(st.sampled_from([SlowDown, Pause, FailFast, Join, Leave, Burst]))
    if kind is SlowDown:
        return SlowDown(servers=some, at=at, duration=ending, factor=draw(st.floats(0.5, 20.0)))
    if kind is Pause:
        return Pause(servers=some, at=at, duration=duration, every=draw(st.sampled_from([None, 2 * duration])))
    if kind is FailFast:
        return FailFast(servers=some, at=at, duration=ending, latency=0.0005, share=draw(st.floats(0.0, 100.0)))
    if kind is Join and count > 1:
        return Join(servers=1, at=at)
    if kind is Leave:
        return Leave(servers=some, at=at, duration=ending)
    return Burst(at=at, duration=0.3 * span, factor=draw(st.floats(0.5, 2.0)))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    groups = tuple(draw(st.lists(servers, min_size=1, max_size=2)))
    count = sum(group.count for group in groups)
    fleet = Fleet(
        servers=groups,
        clients=draw(st.integers(1, 3)),
        subset_size=draw(st.none() | st.integers(1, count)),
        network_delay=draw(st.sampled_from([0.0, 0.00025, 0.01])),
    )
    traffic = Traffic(
        load=draw(st.floats(20.0, 150.0)),
        service_time=draw(service_times),
        requests=REQUESTS,
        probes=draw(st.integers(0, 4)),
    )
    span = REQUESTS * traffic.service_time.mean / fleet.capacity / (traffic.load / 100.0)
    happening: list[Event] = []
    for event in draw(st.lists(events(span=span * 0.5, count=count), max_size=3)):
        if not (isinstance(event, Join) and any(isinstance(each, Join) for each in happening)):
            happening.append(event)
    return Scenario(
        fleet=fleet,
        traffic=traffic,
        reports=draw(
            st.none()
            | st.builds(Reports, loss=st.sampled_from([0.0, 50.0]), window=st.sampled_from([0.05, 1.0]), delay=delays)
        ),
        retries=draw(st.none() | retries),
        outlier_detection=draw(st.sampled_from([None, OutlierDetection(consecutive_5xx=2, base_ejection_time=0.05)])),
        events=tuple(happening),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios(), contender=st.sampled_from(CONTENDERS), seed=st.integers(0, 2**32 - 1))
def test_the_same_as_in_plain_python(scenario: Scenario, contender: Contender, seed: int) -> None:
    affected = affected_servers(scenario, seed)
    simulation = run_to_end(scenario, contender, seed, affected)
    reference = FleetSimulation(scenario, contender, seed, affected)
    endings = reference.run()
    records = simulation.records
    assert records.latencies.tolist() == [each.latency for each in endings]
    assert records.answering.tolist() == [each.server for each in endings]
    assert (records.states == SUCCEEDED).tolist() == [each.succeeded for each in endings]
    assert records.tries.tolist() == [each.tries for each in endings]
    times, chosen = records.picks
    assert list(zip(times.tolist(), chosen.tolist(), strict=True)) == reference.picks


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios(), contender=st.sampled_from(CONTENDERS), seed=st.integers(0, 2**32 - 1))
def test_nothing_is_lost_and_nothing_overlaps(scenario: Scenario, contender: Contender, seed: int) -> None:
    simulation = run_to_end(scenario, contender, seed, affected_servers(scenario, seed))
    records = simulation.records
    assert set(records.states.tolist()) <= {1, 2}  # every arrival has succeeded or failed
    assert int(records.tries.sum()) == records.picks[0].size + int((records.answering < 0).sum())
    assert bool((numpy.diff(records.arrival_times) >= 0).all())
    assert bool((records.latencies >= 0).all())
    round_trip = 2 * round(scenario.fleet.network_delay * 1e9)
    if not scenario.events and scenario.retries is None:
        fastest = max(scenario.fleet.speeds)
        assert bool((records.latencies + 1 >= records.work / fastest + round_trip).all())
        assert not math.isnan(float(records.work.sum()))
