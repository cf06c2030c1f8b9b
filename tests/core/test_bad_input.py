"""What a cluster refuses, and that the error says which setting, what was given and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore import Cluster, Endpoint, InvalidSetting, RoundRobin
from tests.core.fleets import fleet

BAD_SETTINGS: list[tuple[str, Any, str]] = [
    ("overprovisioning_factor", 0, r"overprovisioning_factor 0.*expected"),
    ("overprovisioning_factor", 2**32, r"overprovisioning_factor 4294967296.*expected"),
    ("overprovisioning_factor", 140.5, r"overprovisioning_factor 140.5.*expected"),
    ("panic_threshold", -1.0, r"panic_threshold -1.*expected"),
    ("panic_threshold", 100.5, r"panic_threshold 100.5.*expected"),
    ("panic_threshold", float("nan"), r"panic_threshold nan.*expected"),
    ("panic_threshold", "50", r"panic_threshold '50'.*expected"),
    ("fail_traffic_on_panic", "yes", r"fail_traffic_on_panic 'yes'.*expected"),
    ("policy", "round_robin", r"policy 'round_robin'.*expected.*RoundRobin"),
    ("policy", RoundRobin, r"policy .*expected.*RoundRobin"),
    ("locality_policy", "zone", r"locality_policy 'zone'.*expected"),
    ("local_locality", 5, r"local_locality 5.*expected"),
    ("subsets", [], r"subsets \[\].*expected"),
    ("clock", 5, r"clock 5.*expected"),
    ("seed", "x", r"seed 'x'.*expected"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_SETTINGS, ids=lambda value: ascii(value)[:40])
def test_a_bad_setting_is_refused_with_its_name_its_value_and_what_is_allowed(
    field: str, value: object, message: str
) -> None:
    with pytest.raises((InvalidSetting, TypeError), match=message):
        Cluster("bad", fleet(2), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, 5, b"name"], ids=repr)
def test_a_name_that_is_no_text_is_refused(name: object) -> None:
    with pytest.raises((InvalidSetting, TypeError), match="name"):
        Cluster(name, fleet(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("members", [5, None, [1], ["10.0.0.1:80"], [None]], ids=repr)
def test_what_is_no_endpoint_is_refused(members: object) -> None:
    with pytest.raises((InvalidSetting, TypeError), match=r"endpoint|iterable"):
        Cluster("bad").update(members)  # type: ignore[arg-type]


def test_an_iterable_that_fails_half_way_changes_nothing() -> None:
    cluster = Cluster("kept", fleet(2))

    def broken() -> Any:
        yield from fleet(1)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        cluster.update(broken())
    assert cluster.endpoints == fleet(2)


def test_an_unknown_setting_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        Cluster("bad", colour=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("weights", [{"eu/a": -1}, {"eu/a": 2**32}, {"eu/a": 1.5}, {5: 1}, 5], ids=repr)
def test_bad_locality_weights_are_refused(weights: object) -> None:
    with pytest.raises((InvalidSetting, TypeError), match="locality"):
        Cluster("bad").update(fleet(1), locality_weights=weights)  # type: ignore[arg-type]


def test_locality_weights_that_together_exceed_32_bits_are_refused() -> None:
    members = [Endpoint("10.0.0.1:80", locality="a"), Endpoint("10.0.0.2:80", locality="b")]
    with pytest.raises(InvalidSetting, match="locality"):
        Cluster("bad").update(members, locality_weights={"a": 2**32 - 1, "b": 1})


@pytest.mark.parametrize("healthy", [None, "yes", 2], ids=repr)
def test_health_that_is_neither_true_nor_false_is_refused(healthy: object) -> None:
    with pytest.raises((InvalidSetting, TypeError), match="healthy"):
        Cluster("bad", fleet(1)).set_health(fleet(1)[0].address, healthy)  # type: ignore[arg-type]
