"""Fleets that no policy is tuned on: the same for ever, and such that they can be served; constants that are tried."""

from __future__ import annotations

import pytest

from bench.simulation.constants import CONSTANTS, Constant
from bench.simulation.held_out import MOST_LOAD, SEEDS, draw
from lbcore.simulation import Burst, SlowDown


def test_a_seed_is_one_fleet_for_ever() -> None:
    assert [draw(seed) for seed in SEEDS] == [draw(seed) for seed in SEEDS]
    assert len({draw(seed).words for seed in SEEDS}) == len(SEEDS) == 60
    first, last = draw(SEEDS[0]), draw(SEEDS[-1])
    assert first.words.startswith(
        "2 clients, 98 servers of 2 workers, speeds 0.5, 1 and 2.2, deterministic 1.4 ms, 61 %"
    )
    assert last.words.startswith("138 clients, 6 servers, 1 of them 3.8x slower, exponential 7.1 ms, 63 %")


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_asked_for_can_be_served(seed: int) -> None:
    scenario = draw(seed).scenario
    assert 0.0 < scenario.traffic.load <= MOST_LOAD
    for event in scenario.events:
        assert event.at < scenario.duration
        if isinstance(event, Burst):
            assert scenario.traffic.load * event.factor <= MOST_LOAD + 1e-9
        elif isinstance(event, SlowDown):
            left = 1.0 - event.servers / len(scenario.fleet.speeds)
            assert scenario.traffic.load <= MOST_LOAD * left + 1e-9


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant.name)
def test_a_constant_stands_once_in_its_file(constant: Constant) -> None:
    assert float(constant.own) > 0.0
    assert constant.own not in constant.values
