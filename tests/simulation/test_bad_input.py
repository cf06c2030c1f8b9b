"""The native loop's own entries refuse what would break it, and what lies beyond the end of time does no harm."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import Adaptive, Cluster, Endpoint, Prequal, RoundRobin, VirtualClock
from lbcore._core import Simulation
from lbcore.policy import Policy
from lbcore.simulation import Baseline, Exponential, FailFast, Fleet, Pareto, Scenario, Servers, Traffic, run_once

DEFAULT = Adaptive()
REFUSALS = (ValueError, TypeError, IndexError, OverflowError, RuntimeError, AttributeError)


def simulation(**changed: Any) -> Simulation:
    given: dict[str, Any] = {
        "seed": 1, "requests": 20, "workers": [1, 2], "clients": 2, "baseline": 0, "network_delay": 1000,
    }  # fmt: skip
    return Simulation(VirtualClock(), **(given | changed))


def cluster(policy: Policy = DEFAULT) -> Cluster:
    return Cluster("two", [Endpoint("10.0.0.1:80"), Endpoint("10.0.0.2:80")], policy=policy)


@pytest.mark.parametrize(
    "changed",
    [{"requests": 0}, {"workers": []}, {"workers": [0]}, {"clients": 0}, {"workers": [2**31]}, {"requests": 2**40}],
    ids=str,
)
def test_a_fleet_that_is_none_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        simulation(**changed)


def test_a_simulation_is_set_up_once_and_whole() -> None:
    made = simulation()
    with pytest.raises(ValueError, match="interval"):
        made.run(None)
    made.set_arrivals(1e6, 0, 1e6, 0.0, 0.0)
    with pytest.raises(RuntimeError, match="set_client"):
        made.run(None)
    made.set_client(0, cluster(), [0, 1])
    with pytest.raises(IndexError):
        made.set_client(1, cluster(), [0, 2])
    with pytest.raises(IndexError):
        made.set_client(2, cluster(), [0, 1])
    made.set_client(1, cluster(), [1, 0])
    assert made.run(None) == 20
    with pytest.raises(RuntimeError):
        made.__init__(VirtualClock(), seed=1, requests=1, workers=[1], clients=1, baseline=0, network_delay=0)  # type: ignore[misc]


def test_a_cluster_that_changes_unheard_is_noticed() -> None:
    made = simulation(clients=1)
    made.set_arrivals(1e6, 0, 1e6, 0.0, 0.0)
    changing = cluster()
    made.set_client(0, changing, [0, 1])
    changing.update([Endpoint(f"10.0.1.{n}:80") for n in range(9)])
    with pytest.raises(RuntimeError, match="has changed"):
        made.run(None)


numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=True), st.none(), st.text(max_size=2), st.integers(0, 4)
)
calls = st.one_of(
    st.tuples(st.just("set_arrivals"), st.tuples(numbers, st.integers(0, 5), numbers, numbers, numbers)),
    st.tuples(st.just("set_interval"), st.tuples(numbers)),
    st.tuples(st.just("set_measured"), st.tuples(numbers, numbers)),
    st.tuples(st.just("set_reports"), st.tuples(numbers, numbers, numbers)),
    st.tuples(st.just("set_probes"), st.tuples(numbers)),
    st.tuples(st.just("set_retries"), st.tuples(st.integers(-1, 3), numbers, numbers, numbers)),
    st.tuples(st.just("set_client"), st.tuples(numbers, st.just(None), st.lists(numbers, max_size=3))),
    st.tuples(st.just("set_present"), st.tuples(numbers, numbers)),
    st.tuples(st.just("set_speed"), st.tuples(numbers, numbers)),
    st.tuples(st.just("set_failing"), st.tuples(numbers, numbers, numbers)),
    st.tuples(st.just("run"), st.tuples(st.integers(0, 10**9))),
)


@settings(max_examples=150, deadline=None)
@given(baseline=st.booleans(), policy=st.sampled_from([RoundRobin(), Prequal()]), called=st.lists(calls, max_size=12))
def test_any_values_are_refused_or_do_no_harm(
    baseline: bool, policy: Policy, called: list[tuple[str, tuple[Any, ...]]]
) -> None:
    made = simulation(baseline=int(baseline))
    made.set_arrivals(1e6, 0, 1e6, 0.0, 0.0)
    for client in range(2):
        made.set_client(client, cluster(policy), [0, 1])
    for name, arguments in called:
        with contextlib.suppress(*REFUSALS):
            getattr(made, name)(*arguments)
    made.run(10**12)
    made.server_figures()


def test_work_beyond_the_end_of_time_is_done_just_before_it() -> None:
    scenario = Scenario(
        fleet=Fleet(servers=(Servers(count=2, speed=0.001),)),
        traffic=Traffic(load=1000.0, service_time=Pareto(mean=1e4, alpha=1.001), requests=50),
        events=(FailFast(servers=2, latency=9e9),),
    )
    for contender in (Baseline.JSQ, RoundRobin()):
        assert run_once(scenario, contender, 1).error_percent == 100.0


def test_more_time_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match=r"traffic.requests: requests 1000000: expected fewer"):
        Scenario(
            fleet=Fleet(servers=(Servers(count=1),)),
            traffic=Traffic(load=1.0, service_time=Exponential(mean=1e4), requests=1_000_000),
        )
