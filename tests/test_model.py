"""`Endpoint`, `Locality` and `Health`: canonical when made, immutable after, and refusals that say what is allowed."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from lbcore.errors import InvalidSetting, LbError
from lbcore.model import Endpoint, Health, Locality


def test_the_address_is_kept_in_canonical_form() -> None:
    assert Endpoint("[2001:DB8:0:0::1]:0443").address == "[2001:db8::1]:443"


@pytest.mark.parametrize("address", ["", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", "unix:relative.sock"], ids=ascii)
def test_what_is_no_address_is_refused_quoting_it(address: str) -> None:
    with pytest.raises(InvalidSetting, match="address") as refusal:
        Endpoint(address)
    assert repr(address) in str(refusal.value)


@pytest.mark.parametrize("address", [None, 80, b"10.0.0.1:80", ("10.0.0.1", 80), "a\ud800:80"], ids=ascii)
def test_an_address_that_is_no_text_is_refused(address: object) -> None:
    with pytest.raises(InvalidSetting, match="address"):
        Endpoint(address)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [1, 2**32 - 1])
def test_the_bounds_of_a_weight_are_weights(weight: int) -> None:
    assert Endpoint("10.0.0.1:80", weight=weight).weight == weight


@pytest.mark.parametrize("weight", [0, -1, 2**32, 2**33, 1.0, "1", True, None], ids=repr)
def test_a_weight_out_of_range_is_refused_with_the_range(weight: object) -> None:
    with pytest.raises(InvalidSetting, match=rf"weight {weight!r}: expected a whole number, 1 to 4294967295"):
        Endpoint("10.0.0.1:80", weight=weight)  # type: ignore[arg-type]


def test_a_weight_of_zero_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(InvalidSetting, match="set its health to draining"):
        Endpoint("10.0.0.1:80", weight=0)


@pytest.mark.parametrize("priority", [-1, 129, 1.0, "0", False], ids=repr)
def test_a_priority_out_of_range_is_refused_with_the_range(priority: object) -> None:
    with pytest.raises(InvalidSetting, match=rf"priority {priority!r}: expected a whole number, 0 to 128"):
        Endpoint("10.0.0.1:80", priority=priority)  # type: ignore[arg-type]


@pytest.mark.parametrize("health", ["HEALTHY", 1, None], ids=repr)
def test_a_health_that_is_none_is_refused_with_all_there_are(health: object) -> None:
    with pytest.raises(InvalidSetting, match=r"UNKNOWN, HEALTHY, UNHEALTHY, DRAINING, TIMEOUT, DEGRADED"):
        Endpoint("10.0.0.1:80", health=health)  # type: ignore[arg-type]


def test_health_has_envoys_numbers() -> None:
    assert [(state.name, state.value) for state in Health] == [
        ("UNKNOWN", 0),
        ("HEALTHY", 1),
        ("UNHEALTHY", 2),
        ("DRAINING", 3),
        ("TIMEOUT", 4),
        ("DEGRADED", 5),
    ]


@pytest.mark.parametrize(
    ("text", "locality"),
    [
        ("", Locality()),
        ("eu", Locality("eu")),
        ("eu/a", Locality("eu", "a")),
        ("eu/a/rack-1", Locality("eu", "a", "rack-1")),
        ("/a", Locality("", "a")),
    ],
)
def test_a_locality_is_read_from_its_text_and_written_back(text: str, locality: Locality) -> None:
    assert Endpoint("10.0.0.1:80", locality=text).locality == locality
    assert str(locality) == text


def test_a_locality_of_four_parts_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="locality 'a/b/c/d'"):
        Endpoint("10.0.0.1:80", locality="a/b/c/d")


def test_localities_sort_by_region_then_zone_then_sub_zone() -> None:
    texts = ["a", "a/a", "a/a/b", "a/b", "b"]
    assert sorted(map(Locality.parse, reversed(texts))) == [Locality.parse(text) for text in texts]


@pytest.mark.parametrize("metadata", [None, 5, [("a", 1)], {1: "a"}], ids=repr)
def test_metadata_that_is_no_mapping_of_text_is_refused(metadata: object) -> None:
    with pytest.raises(InvalidSetting, match="metadata"):
        Endpoint("10.0.0.1:80", metadata=metadata)  # type: ignore[arg-type]


def test_changing_the_callers_metadata_later_does_not_reach_the_endpoint() -> None:
    metadata = {"hash_key": "a"}
    endpoint = Endpoint("10.0.0.1:80", metadata=metadata)
    metadata["hash_key"] = "b"
    assert endpoint.hash_key == "a"


@pytest.mark.parametrize(("value", "key"), [("a", "a"), ("", None), (5, None), (None, None), (b"a", None)], ids=repr)
def test_the_hash_key_counts_only_as_text(value: object, key: str | None) -> None:
    assert Endpoint("10.0.0.1:80", metadata={"hash_key": value}).hash_key == key


def test_endpoints_are_equal_when_all_their_fields_are() -> None:
    fields = {"weight": 2, "locality": "eu/a", "priority": 1, "health": Health.DEGRADED, "metadata": {"a": [1]}}
    one, other = Endpoint("[::1]:80", **fields), Endpoint("[0::1]:80", **fields)  # type: ignore[arg-type]
    assert (one, hash(one)) == (other, hash(other))


@pytest.mark.parametrize("field", ["address", "weight", "locality", "priority", "health", "hostname", "metadata"])
def test_an_endpoint_cannot_be_changed(field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Endpoint("10.0.0.1:80"), field, "x")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_an_endpoint_can_be_copied_and_pickled(duplicate: object) -> None:
    endpoint = Endpoint("10.0.0.1:80", weight=3, locality="eu/a", metadata={"hash_key": "a"})
    assert duplicate(endpoint) == endpoint  # type: ignore[operator]


def test_replacing_a_field_checks_it_again() -> None:
    endpoint = Endpoint("10.0.0.1:80", locality="eu/a")
    assert dataclasses.replace(endpoint, weight=7) == Endpoint("10.0.0.1:80", weight=7, locality="eu/a")
    with pytest.raises(InvalidSetting):
        dataclasses.replace(endpoint, weight=0)


def test_a_refusal_is_a_value_error_and_one_of_lbcores() -> None:
    assert issubclass(InvalidSetting, ValueError)
    assert issubclass(InvalidSetting, LbError)
