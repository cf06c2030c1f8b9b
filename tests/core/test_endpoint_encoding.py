"""Endpoints as protobuf: whatever is given, bytes that protobuf reads back, or an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore._core import EncodedEndpoints
from lbcore.model import Endpoint, Health, Locality


def encoded(*endpoints: Any) -> EncodedEndpoints:
    return EncodedEndpoints(endpoints, lambda _: b"")


def test_groups_stand_in_the_order_in_which_they_first_appear() -> None:
    made = encoded(
        Endpoint("10.0.0.1:1", locality="eu"),
        Endpoint("10.0.0.2:1", priority=1),
        Endpoint("10.0.0.3:1", locality=Locality("eu")),
    )
    assert list(made.groups) == [(0, Locality("eu")), (1, Locality())]
    assert len(made.bodies[0]) == 2 * len(made.bodies[1])


def test_followers_share_what_is_unchanged() -> None:
    one, two, three = (Endpoint(f"10.0.0.{n}:1", locality=zone) for n, zone in ((1, "eu"), (2, "us"), (3, "us")))
    first = encoded(one, two, three)
    again = EncodedEndpoints((one, Endpoint("10.0.0.9:1", locality="us"), three), lambda _: b"", first)
    assert again.groups is first.groups
    assert again.bodies[0] is first.bodies[0]
    assert again.bodies[1] != first.bodies[1]
    assert first.bodies[1] == encoded(two, three).bodies[0], "what is followed stays as it was"


def test_a_follower_with_another_layout_shares_nothing() -> None:
    one, two = Endpoint("10.0.0.1:1", locality="eu"), Endpoint("10.0.0.2:1", locality="us")
    first = encoded(one, two)
    for changed in ((one,), (two, one), (one, Endpoint("10.0.0.2:1", locality="us", priority=1))):
        made = EncodedEndpoints(changed, lambda _: b"", first)
        assert list(made.bodies) == list(encoded(*changed).bodies)


@pytest.mark.parametrize("endpoints", [None, [Endpoint("10.0.0.1:80")], (1,), ("10.0.0.1:80",)])
def test_anything_else_than_endpoints_is_refused(endpoints: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        EncodedEndpoints(endpoints, lambda _: b"")
    with pytest.raises(TypeError):
        EncodedEndpoints((), lambda _: b"", endpoints or 1)


def test_what_encodes_the_rest_must_make_bytes_and_may_fail() -> None:
    endpoint = Endpoint("10.0.0.1:80", metadata={"a": 1})

    def fail(_: Endpoint) -> bytes:
        raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        EncodedEndpoints((endpoint,), fail)
    with pytest.raises(TypeError):
        EncodedEndpoints((endpoint,), lambda _: "text")  # type: ignore[arg-type, return-value]


anything = st.one_of(st.text(max_size=20), st.integers(), st.none(), st.binary(max_size=5), st.sampled_from(Health))


@given(st.lists(st.tuples(*[anything] * 4, st.sampled_from(["10.0.0.1:80", "[:80", "[", "]", ":", "", "unix:", "x"]))))
def test_objects_that_are_no_endpoints_are_encoded_or_refused(given: list[tuple[Any, ...]]) -> None:
    fakes = tuple(
        SimpleNamespace(
            address=address,
            hostname=hostname,
            weight=weight,
            health=health,
            priority=priority,
            locality=Locality(),
            metadata={},
            additional_addresses=(),
        )
        for hostname, weight, health, priority, address in given
    )
    try:
        made = encoded(*fakes)
    except (TypeError, OverflowError, AttributeError, UnicodeEncodeError):
        return
    assert sum(map(len, made.bodies)) > 0 or not fakes
