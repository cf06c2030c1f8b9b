"""A picker service that is one of many clients of a fleet uses its part of it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from lbcore import Cluster, DeterministicSubsetting, Endpoint, Maglev, RandomSubsetting
from lbcore.client import PickerClient
from lbcore.config import parse
from lbcore.errors import ConfigError
from lbcore.snapshot import ServiceSnapshot
from tests.harness.picker_server import PickerServer

StartPicker = Callable[..., PickerServer]

KEYS = [f"user-{number}" for number in range(200)]
MEMBERS = tuple(Endpoint(f"10.0.{n // 200}.{n % 200}:80", priority=n // 60, locality=f"z{n % 3}") for n in range(120))


def numbered(index: int, count: int = 12) -> DeterministicSubsetting:
    return DeterministicSubsetting(client_index=index, client_count=count, subset_size=5)


@pytest.mark.parametrize("subsetting", [numbered(7), RandomSubsetting(seed=7, subset_size=5)])
def test_picks_and_the_table_are_those_of_an_embedded_cluster(
    start_picker: StartPicker, subsetting: DeterministicSubsetting | RandomSubsetting
) -> None:
    service = ServiceSnapshot(
        name="web", endpoints=MEMBERS, policy=Maglev(), subsetting=subsetting, locality_weights={"z0": 2, "z1": 1}
    )
    embedded = Cluster("web", MEMBERS, policy=Maglev(), subsetting=subsetting)
    with PickerClient(start_picker(service).address) as client:
        picks = client.pick_many("web", KEYS)
        assert set(picks.endpoints) == set(embedded.endpoints)
        assert Counter(each.priority for each in picks.endpoints) == {0: 5, 1: 5}
        assert {each.address for each in picks} <= {each.address for each in embedded.endpoints}


def test_another_part_is_another_version_and_takes_effect(start_picker: StartPicker) -> None:
    services = [ServiceSnapshot(name="web", endpoints=MEMBERS, subsetting=numbered(index)) for index in (0, 1)]
    assert services[0].version != services[1].version
    server = start_picker(services[0])
    with PickerClient(server.address) as client:
        first = set(client.pick_many("web", 50).endpoints)
        server.publish(services[1])
        assert first.isdisjoint(client.pick_many("web", 50).endpoints)


def test_the_configuration_file_says_it() -> None:
    text = """
services:
  web: {endpoints: [10.0.0.1:80], subsetting: {deterministic_subsetting: {client_index: 3, client_count: 9}}}
  api: {endpoints: [10.0.0.1:80], subsetting: {random_subsetting: {seed: 5, subset_size: 10}}}
"""
    services = {service.name: service for service in parse(text, "lb.yaml").services}
    assert services["web"].subsetting == DeterministicSubsetting(client_index=3, client_count=9)
    assert services["api"].subsetting == RandomSubsetting(seed=5, subset_size=10)


def test_a_number_beyond_the_count_is_a_mistake_with_its_line() -> None:
    text = """
services:
  web:
    endpoints: [10.0.0.1:80]
    subsetting: {deterministic_subsetting: {client_index: 9, client_count: 9}}
"""
    with pytest.raises(ConfigError, match=r"lb.yaml:5: services.web.subsetting.*client_index 9: expected less than"):
        parse(text, "lb.yaml")
