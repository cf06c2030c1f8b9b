"""Scenario files: the ones that come with lbcore can be read, and every mistake is told with its line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbcore import LeastRequest, RoundRobin
from lbcore.errors import ConfigError, InvalidSetting
from lbcore.simulation import Exponential, Fleet, Lognormal, Scenario, Servers, SlowDown, Traffic
from lbcore.simulation.scenario_file import load_scenario, parse_policy, parse_scenario

SCENARIOS = sorted((Path(__file__).parents[2] / "bench" / "scenarios").rglob("*.yaml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenarios_of_the_bench_can_be_read(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.policies
    kind = {"develop": "# For development: ", "report": "# Held out: "}[path.parent.name]
    assert path.read_text().splitlines()[1].startswith(kind)


def test_a_file_means_what_it_says() -> None:
    text = """
fleet:
  servers: [{count: 9, workers: 2}, {count: 1, speed: 0.5}]
  clients: 3
  network_delay: 1ms
traffic: {load: 80, service_time: {lognormal: {mean: 20ms, sigma: 0.5}}, requests: 9000}
reports: {}
events:
  - slow_down: {servers: 2, at: 1s, duration: 500ms, factor: 4}
policies: [round_robin, {least_request: {choice_count: 3}}]
seed: 7
"""
    scenario = parse_scenario(text, "ten.yaml")
    assert scenario.fleet == Fleet(
        servers=(Servers(count=9, workers=2), Servers(count=1, speed=0.5)), clients=3, network_delay=0.001
    )
    assert scenario.traffic == Traffic(load=80.0, service_time=Lognormal(mean=0.02, sigma=0.5), requests=9000)
    assert scenario.reports is not None
    assert scenario.events == (SlowDown(servers=2, at=1.0, duration=0.5, factor=4.0),)
    assert scenario.policies == (RoundRobin(), LeastRequest(choice_count=3))
    assert scenario.seed == 7


def test_every_mistake_is_told_with_line_and_field() -> None:
    text = """\
fleet:
  servers: [{count: 0}]
  network_delay: soon
traffic:
  load: 90
  service_time: {exponental: {}}
events:
  - burst: {at: 1s}
policies: [least_requst]
"""
    with pytest.raises(ConfigError) as error:
        parse_scenario(text, "bad.yaml")
    starts = ["2: fleet.servers[0].count: count 0", "3: fleet.network_delay: ", "6: traffic.service_time: unknown name"]
    starts += ["8: events[0].burst: duration is missing", "9: policies[0]: unknown name 'least_requst'"]
    assert len(error.value.mistakes) == len(starts)
    for mistake, start in zip(error.value.mistakes, starts, strict=True):
        assert mistake.startswith(f"bad.yaml:{start}")


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("events: [{slow_down: {servers: 4, at: 0}}]", "events[0].servers"),
        ("events: [{burst: {at: 90s, duration: 1s}}]", "events[0].at"),
        ("events: [{join: {servers: 3, at: 1s}}]", "events[0].servers"),
        ("events: [{pause: {servers: 1, at: 1s, duration: 2s, every: 1s}}]", "events[0].pause.every"),
        ("measured: {after: 99s}", "measured.after"),
        ("measured: {after: 2s, until: 1s}", "measured.until"),
    ],
)
def test_contradictions_are_told_with_their_field(part: str, where: str) -> None:
    text = f"fleet: {{servers: [{{count: 3}}]}}\ntraffic: {{load: 50, requests: 1000}}\n{part}\n"
    with pytest.raises(ConfigError) as error:
        parse_scenario(text, "bad.yaml")
    [mistake] = error.value.mistakes
    assert mistake.startswith(f"bad.yaml:3: {where}: ")


@pytest.mark.parametrize("text", ["", "[", "{fleet: 3}", "- 1", "\x00", "fleet: &a [*a]"])
def test_what_is_no_scenario_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^bad.yaml"):
        parse_scenario(text, "bad.yaml")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        parse_scenario(b"\xff\xfe", "bad.yaml")


def test_fewer_requests_than_an_event_needs_are_refused() -> None:
    scenario = Scenario(
        fleet=Fleet(servers=(Servers(count=1),)),
        traffic=Traffic(load=50.0, service_time=Exponential(mean=0.01), requests=1000),
        events=(SlowDown(servers=1, at=10.0),),
    )
    with pytest.raises(InvalidSetting, match=r"events\[0\].at.*expected before the last of the 100 requests"):
        scenario.with_requests(100)


def test_a_policy_is_written_as_in_the_configuration_file() -> None:
    assert parse_policy("round_robin") == RoundRobin()
    with pytest.raises(ConfigError, match=r"policy:1: .*choice_count 1"):
        parse_policy("{least_request: {choice_count: 1}}")
