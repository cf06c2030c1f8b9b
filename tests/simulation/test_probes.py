"""Probes: what they bring to the policy that picks by them, and that nobody else takes notice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lbcore import Adaptive, InvalidSetting, LeastRequest, PeakEwma, Prequal, Random, RoundRobin
from lbcore.errors import ConfigError
from lbcore.simulation import Baseline, Fleet, Pause, Scenario, Servers, Traffic, run, run_once
from lbcore.simulation.run import Contender, run_to_end
from lbcore.simulation.scenario_file import parse_scenario

PREQUAL = Prequal()


def scenario(probes: int, **changed: Any) -> Scenario:
    return Scenario(
        fleet=Fleet(servers=(Servers(count=30), Servers(count=3, speed=0.2)), clients=15),
        traffic=Traffic(load=85.0, requests=40_000, probes=probes),
        **changed,
    )


def picks(of: Scenario, contender: Contender, seed: int = 1) -> tuple[list[int], list[int]]:
    times, servers = run_to_end(of, contender, seed, [[]] * len(of.events)).records.picks
    return times.tolist(), servers.tolist()


def test_probes_find_the_slow_servers() -> None:
    with_probes = run(scenario(3), policies=(PREQUAL, Random(), LeastRequest()))
    without = run(scenario(0), policies=(PREQUAL,))
    p99 = {row.name: row.p99 for row in with_probes.rows}
    assert p99["prequal"] < p99["least_request"] / 4 < p99["random"] / 4
    assert p99["prequal"] < without.row("prequal").p99 / 4


def test_equal_servers_get_their_share() -> None:
    even = Scenario(
        fleet=Fleet(servers=(Servers(count=30),), clients=15), traffic=Traffic(load=85.0, requests=40_000, probes=3)
    )
    _, servers = picks(even, PREQUAL)
    shares = [servers.count(server) / len(servers) * 30 for server in range(30)]
    assert 0.6 < min(shares) <= max(shares) < 1.25


def test_equal_seeds_give_equal_runs() -> None:
    assert picks(scenario(3), PREQUAL) == picks(scenario(3), PREQUAL)
    assert picks(scenario(3), PREQUAL) != picks(scenario(3), PREQUAL, seed=2)


def test_requests_are_the_same_with_and_without() -> None:
    [few, many] = [run_to_end(scenario(probes), PREQUAL, 1, []).records for probes in (0, 5)]
    assert few.arrival_times.tolist() == many.arrival_times.tolist()
    assert few.work.tolist() == many.work.tolist()
    assert few.picks[1].tolist() != many.picks[1].tolist()


@pytest.mark.parametrize(
    "contender", [*Baseline, Adaptive(), LeastRequest(), PeakEwma(), RoundRobin()], ids=lambda each: str(each)[:20]
)
def test_nobody_else_takes_notice(contender: Contender) -> None:
    assert picks(scenario(3), contender) == picks(scenario(0), contender)


def test_servers_that_stand_still_answer_none() -> None:
    paused = scenario(3, events=(Pause(servers=33, at=0.1, duration=0.3),))
    assert run_once(paused, PREQUAL, 1).error_percent == 0.0


def test_more_probes_than_servers_go_to_each_once() -> None:
    few = replace(scenario(16), fleet=Fleet(servers=(Servers(count=2),)))
    assert run_once(few, PREQUAL, 1).p99 < run_once(few, Random(), 1).p99


@pytest.mark.parametrize("probes", [-1, 17, 1.5, None, True, "3"])
def test_bad_numbers_are_refused(probes: Any) -> None:
    with pytest.raises(InvalidSetting, match="probes"):
        Traffic(load=50.0, probes=probes)


def test_a_scenario_file_says_how_many() -> None:
    text = "fleet: {{servers: [{{count: 3}}]}}\ntraffic: {{load: 50, probes: {}}}\npolicies: [prequal]\n"
    assert parse_scenario(text.format(3), "three.yaml").traffic.probes == 3
    with pytest.raises(ConfigError, match=r"bad.yaml:2: traffic.probes: probes 99: expected"):
        parse_scenario(text.format(99), "bad.yaml")
