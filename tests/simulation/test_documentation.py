"""docs/simulation.md names every field of a scenario, and its example is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from lbcore.schema import fields_of, snake_case
from lbcore.simulation import Event, Fleet, Measured, Reports, Retries, Scenario, Servers, ServiceTime, Traffic
from lbcore.simulation.scenario_file import parse_scenario

TEXT = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
VALUES = (*get_args(Event), *get_args(ServiceTime), *(Fleet, Measured, Reports, Retries, Scenario, Servers, Traffic))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_every_field_is_described(value: type) -> None:
    assert {name for name in fields_of(value) if not re.search(rf"\b{name}\b", TEXT)} == set()


@pytest.mark.parametrize("value", [*get_args(Event), *get_args(ServiceTime)], ids=lambda value: value.__name__)
def test_every_choice_is_shown_with_its_fields(value: type) -> None:
    shown = re.findall(rf"`{snake_case(value.__name__)}: {{([^}}]*)}}`", TEXT)
    assert [set(fields.split(", ")) for fields in shown] == [set(fields_of(value))]


def test_the_example_is_a_scenario() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert parse_scenario(example, "simulation.md").events
