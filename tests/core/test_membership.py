"""`update` swaps the whole set of endpoints at once; slots, and so counts, stay with their addresses."""

from __future__ import annotations

import re

import pytest

from lbcore import Cluster, Endpoint, Health, InvalidSetting, LbError, NoEndpointAvailable
from tests.core.fleets import POLICIES, address, fleet


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_cluster_has_no_endpoint_to_give(policy: str) -> None:
    with pytest.raises(NoEndpointAvailable, match="empty"):
        Cluster("empty", policy=POLICIES[policy]).pick()


def test_the_error_is_a_lookup_error_and_one_of_lbcores() -> None:
    assert issubclass(NoEndpointAvailable, LookupError)
    assert issubclass(NoEndpointAvailable, LbError)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_cluster_of_one_always_gives_that_one(policy: str) -> None:
    (only,) = fleet(1)
    cluster = Cluster("one", [only], policy=POLICIES[policy])
    assert {cluster.pick(key) for key in (None, "a", b"b", 3)} == {only}


def test_endpoints_are_those_given_in_order() -> None:
    members = fleet(5)
    assert Cluster("order", members).endpoints == members


def test_endpoints_can_come_from_any_iterable() -> None:
    assert Cluster("iterable", iter(fleet(3))).endpoints == fleet(3)


def test_a_pick_returns_the_very_object_that_was_given() -> None:
    (only,) = fleet(1)
    assert Cluster("identity", [only]).pick() is only


def test_the_same_endpoints_again_change_nothing() -> None:
    cluster = Cluster("same", fleet(5))
    assert cluster.update(fleet(5)) is False


def test_endpoints_in_a_cluster_that_did_not_change_stay_the_same_objects() -> None:
    cluster = Cluster("same", fleet(5))
    before = cluster.endpoints
    cluster.update(fleet(5))
    assert cluster.endpoints is before


@pytest.mark.parametrize(
    "changed",
    [
        Endpoint(address(0), weight=2),
        Endpoint(address(0), priority=1),
        Endpoint(address(0), locality="eu/a"),
        Endpoint(address(0), health=Health.DRAINING),
        Endpoint(address(0), hostname="a"),
        Endpoint(address(0), metadata={"version": "2"}),
        Endpoint(address(9)),
    ],
    ids=["weight", "priority", "locality", "health", "hostname", "metadata", "address"],
)
def test_any_difference_is_a_change(changed: Endpoint) -> None:
    cluster = Cluster("changed", fleet(2))
    assert cluster.update([changed, fleet(2)[1]]) is True
    assert cluster.endpoints == (changed, fleet(2)[1])


def test_an_update_to_no_endpoints_empties_the_cluster() -> None:
    cluster = Cluster("emptied", fleet(2))
    assert cluster.update([]) is True
    with pytest.raises(NoEndpointAvailable):
        cluster.pick()


@pytest.mark.parametrize("policy", POLICIES)
def test_after_an_update_only_the_new_members_are_picked(policy: str) -> None:
    cluster = Cluster("moved", fleet(4), policy=POLICIES[policy])
    members = [Endpoint(address(100 + i)) for i in range(3)]
    cluster.update(members)
    assert {cluster.pick(key) for key in range(0, 2**64, 2**54)} == set(members)


def test_one_address_twice_is_refused_naming_it_and_both_places() -> None:
    twice = [Endpoint(address(1)), Endpoint(address(2)), Endpoint(address(1), weight=5)]
    with pytest.raises(InvalidSetting) as refusal:
        Cluster("twice", twice)
    around, rest = str(refusal.value).split(address(1), 1)
    assert sorted(re.findall(r"\d+", around + rest)) == ["0", "2"]


def test_two_spellings_of_one_ipv6_address_are_the_same_address() -> None:
    with pytest.raises(InvalidSetting, match=r"\[::1\]:80"):
        Cluster("twice", [Endpoint("[::1]:80"), Endpoint("[0:0::0:1]:80")])


def test_a_refused_update_leaves_the_cluster_as_it_was() -> None:
    cluster = Cluster("kept", fleet(3))
    with pytest.raises(InvalidSetting):
        cluster.update([*fleet(3), fleet(1)[0]])
    assert cluster.endpoints == fleet(3)


@pytest.fixture(scope="module")
def hundred_thousand() -> tuple[Endpoint, ...]:
    return fleet(100_000)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_hundred_thousand_endpoints_are_a_cluster_like_any_other(
    policy: str, hundred_thousand: tuple[Endpoint, ...]
) -> None:
    cluster = Cluster("large", hundred_thousand, policy=POLICIES[policy], seed=1)
    picked = cluster.pick_many(list(range(0, 2**64, 2**54)))
    assert picked.min() >= 0
    assert len(set(picked.tolist())) > 500
    assert cluster.update(hundred_thousand[1:]) is True


@pytest.mark.parametrize("name", ["", "a/b", "ü", "x" * 300], ids=ascii)
def test_any_text_is_a_name(name: str) -> None:
    assert Cluster(name, fleet(1)).name == name
