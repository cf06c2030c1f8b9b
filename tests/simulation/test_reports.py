"""Reports that are behind: what a delay does to those who go by them."""

from __future__ import annotations

import pytest

from lbcore import Adaptive, RoundRobin
from lbcore.policy import Policy
from lbcore.simulation import Fleet, Outcome, Reports, Scenario, Servers, Traffic, run_once


def outcome(policy: Policy, delay: float) -> Outcome:
    scenario = Scenario(
        fleet=Fleet(servers=(Servers(count=20),), clients=10),
        traffic=Traffic(load=85.0, requests=40_000),
        reports=Reports(delay=delay),
    )
    return run_once(scenario, policy, 1)


def test_older_reports_are_worth_less() -> None:
    waits = [outcome(Adaptive(), delay).mean for delay in (0.0, 0.02, 0.2)]
    assert waits[0] < waits[1] < waits[2]


def test_who_does_not_go_by_reports_does_not_mind() -> None:
    assert outcome(RoundRobin(), 0.1) == outcome(RoundRobin(), 0.0)


def test_a_delay_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="delay -1"):
        Reports(delay=-1.0)
