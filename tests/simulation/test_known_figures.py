"""p99 of known policies as a multiple of JSQ's, and errors at a fail-fast server, against an independent simulation
(medians of three seeds; 400 to 600 thousand requests, 100 servers, 10 ms exponential service, 0.25 ms one way)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lbcore import LeastRequest, Random, RoundRobin
from lbcore.policy import Policy
from lbcore.simulation import Scenario, run
from lbcore.simulation.scenario_file import load_scenario

DEVELOP = Path(__file__).parents[2] / "bench" / "scenarios" / "develop"
TOLERANCE = 0.10
P2C = LeastRequest()
FULL_SCAN = LeastRequest(selection_method="full_scan")


def scenario(name: str, load: float | None = None) -> Scenario:
    loaded = load_scenario(DEVELOP / f"{name}.yaml")
    return loaded if load is None else replace(loaded, traffic=replace(loaded.traffic, load=load))


@pytest.mark.parametrize(
    ("name", "load", "expected"),
    [
        ("a90", 70.0, {P2C: 1.44, FULL_SCAN: 1.00, RoundRobin(): 1.9, Random(): 3.3}),
        ("a90", None, {P2C: 1.74, FULL_SCAN: 1.00, RoundRobin(): 4.7, Random(): 8.8}),
        ("a80_bimodal", None, {P2C: 5.44, FULL_SCAN: 1.00}),
        ("b90", None, {P2C: 3.77, FULL_SCAN: 1.00}),
        ("c85", None, {P2C: 1.82, FULL_SCAN: 1.00}),
        ("d90", None, {P2C: 3.23, FULL_SCAN: 2.93}),
        ("d90_subset", None, {FULL_SCAN: 1.49}),
    ],
)
def test_p99_to_jsq(name: str, load: float | None, expected: dict[Policy, float]) -> None:
    report = run(scenario(name, load), policies=list(expected))
    found = [row.p99_to_jsq for row in report.rows[2:]]
    assert found == [pytest.approx(ratio, rel=TOLERANCE) for ratio in expected.values()]


def test_the_baseline_that_knows_the_speeds() -> None:
    report = run(scenario("b90"), policies=[])
    assert report.row("sed").p99_to_jsq == pytest.approx(0.74, rel=TOLERANCE)
    assert report.row("jsq").p99 == pytest.approx(0.074, rel=TOLERANCE)


def test_errors_of_a_server_that_fails_fast() -> None:
    report = run(scenario("e70_fail_fast"), policies=[P2C, FULL_SCAN])
    assert [row.error_percent for row in report.rows[2:]] == [
        pytest.approx(1.64, rel=TOLERANCE),
        pytest.approx(2.95, rel=TOLERANCE),
    ]
