"""Assignments: what neither Envoy nor gRPC refuses. Names of tests bear the rule they check."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf import any_pb2, json_format
from hypothesis import given
from hypothesis import strategies as st

from lbcore.directory import ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.model import MAX_WEIGHT, Endpoint, Health, Locality
from lbcore.settings import DropOverload
from lbcore.xds.assignments import Frames, assignment, encoded_endpoints
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource


def message(resource: Resource) -> Any:
    """The assignment in a resource."""
    payload = resource.framed
    start = 1
    while payload[start] & 0x80:
        start += 1
    return endpoint_pb2.ClusterLoadAssignment.FromString(any_pb2.Any.FromString(payload[start + 1 :]).value)


def made_of(service: ServiceSnapshot, unix_sockets: bool = True) -> Resource:
    endpoints = encoded_endpoints(service, unix_sockets=unix_sockets)
    return assignment(service, endpoints, Frames.of(service, endpoints))


def made(*endpoints: Endpoint, unix_sockets: bool = True, **settings: Any) -> Any:
    return message(made_of(ServiceSnapshot(name="web", endpoints=endpoints, **settings), unix_sockets))


def addresses(made: Any) -> list[tuple[str, int]]:
    return [
        (each.endpoint.address.socket_address.address, each.endpoint.address.socket_address.port_value)
        for group in made.endpoints
        for each in group.lb_endpoints
    ]


def test_v6_it_bears_the_name_of_the_service() -> None:
    assert made().cluster_name == "web"


def test_addresses_of_both_families_and_of_a_socket() -> None:
    groups = made(Endpoint("10.0.0.1:80"), Endpoint("[0:0::1]:81"), Endpoint("unix:/run/a.sock")).endpoints
    found = [json_format.MessageToDict(each.endpoint.address) for group in groups for each in group.lb_endpoints]
    assert found == [
        {"socketAddress": {"address": "10.0.0.1", "portValue": 80}},
        {"socketAddress": {"address": "::1", "portValue": 81}},
        {"pipe": {"path": "/run/a.sock"}},
    ]


def test_grpc_gets_no_unix_sockets() -> None:
    assert addresses(made(Endpoint("unix:/run/a.sock"), Endpoint("10.0.0.1:80"), unix_sockets=False)) == [
        ("10.0.0.1", 80)
    ]


@pytest.mark.parametrize("health", list(Health))
def test_health_is_passed_on(health: Health) -> None:
    (group,) = made(Endpoint("10.0.0.1:80", health=health)).endpoints
    assert group.lb_endpoints[0].health_status == health.value


def test_weight_hostname_and_metadata_are_passed_on() -> None:
    metadata = {"hash_key": "k", "canary": True, "version": 3, "tags": ["a", None, 1.5], "nested": {"x": {}}}
    endpoint = Endpoint("10.0.0.1:80", weight=7, hostname="web-1", metadata=metadata)
    (group,) = made(endpoint).endpoints
    (found,) = group.lb_endpoints
    assert found.load_balancing_weight.value == 7
    assert found.endpoint.hostname == "web-1"
    assert json_format.MessageToDict(found.metadata) == {"filterMetadata": {"envoy.lb": metadata}}


def test_v1_every_locality_is_present_with_a_weight_of_at_least_one() -> None:
    groups = made(
        Endpoint("10.0.0.1:80"),
        Endpoint("10.0.0.2:80", locality="eu/a/rack"),
        locality_weights={Locality("eu", "a", "rack"): 5},
    ).endpoints
    assert [(each.HasField("locality"), each.load_balancing_weight.value) for each in groups] == [(True, 1), (True, 5)]
    assert [str(groups[1].locality.region), groups[1].locality.zone, groups[1].locality.sub_zone] == ["eu", "a", "rack"]


def test_v2_priorities_are_contiguous_from_zero() -> None:
    endpoints = [Endpoint(f"10.0.0.{priority}:80", priority=priority) for priority in (9, 3, 5)]
    groups = made(*endpoints).endpoints
    found = [(group.priority, group.lb_endpoints[0].endpoint.address.socket_address.address) for group in groups]
    assert found == [(0, "10.0.0.3"), (1, "10.0.0.5"), (2, "10.0.0.9")]


def test_v2_a_priority_left_without_usable_endpoints_leaves_no_gap() -> None:
    endpoints = (Endpoint("unix:/a"), Endpoint("10.0.0.1:80", priority=1))
    assert [group.priority for group in made(*endpoints, unix_sockets=False).endpoints] == [0]


def test_drop_overload_and_overprovisioning_are_passed_on() -> None:
    policy = made(overprovisioning_factor=120, drop_overload=DropOverload(category="throttle", percent=0.25)).policy
    assert policy.overprovisioning_factor.value == 120
    (drop,) = policy.drop_overloads
    assert drop.category == "throttle"
    assert (drop.drop_percentage.numerator, drop.drop_percentage.denominator) == (2500, 2)  # of a million


def test_a_service_without_endpoints_has_an_assignment_that_empties_the_cluster() -> None:
    assert len(made().endpoints) == 0


def test_equal_content_has_an_equal_version_whatever_the_order_of_its_metadata() -> None:
    entries = [(f"key-{number}", number) for number in range(100)]
    one = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", metadata=dict(entries)),))
    other = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", metadata=dict(reversed(entries))),))
    assert made_of(one).version == made_of(other).version


endpoints = st.builds(
    Endpoint,
    st.one_of(
        st.builds("10.0.0.{}:{}".format, st.integers(1, 9), st.integers(1, 65535)),
        st.builds("[2001:db8::{:x}]:80".format, st.integers(1, 99)),
        st.builds("unix:/run/{}".format, st.integers(1, 9)),
    ),
    weight=st.integers(1, MAX_WEIGHT // 16),
    locality=st.sampled_from(["", "eu", "eu/a", "eu/a/x"]),
    priority=st.integers(0, 128),
    health=st.sampled_from(Health),
)
services = st.builds(
    ServiceSnapshot,
    name=st.sampled_from(["web", "ns/web", "wéb", "日本"]),
    endpoints=st.lists(endpoints, max_size=15, unique_by=lambda each: each.address).map(tuple),
    locality_weights=st.dictionaries(st.sampled_from([Locality(), Locality("eu")]), st.integers(1, MAX_WEIGHT // 4)),
)


@given(services, st.booleans())
def test_v1_to_v6_hold_for_any_service(service: ServiceSnapshot, unix_sockets: bool) -> None:
    made = message(made_of(service, unix_sockets))
    assert made.cluster_name == service.name
    assert all(group.HasField("locality") and group.load_balancing_weight.value >= 1 for group in made.endpoints)
    priorities = {group.priority for group in made.endpoints}
    assert priorities == set(range(len(priorities)))
    places = [(group.priority, group.locality.SerializeToString()) for group in made.endpoints]
    assert len(places) == len(set(places))
    every = [each for group in made.endpoints for each in group.lb_endpoints]
    assert max(Counter(each.endpoint.address.SerializeToString() for each in every).values(), default=1) == 1
    assert all(each.load_balancing_weight.value >= 1 for each in every)
    assert all(sum(each.load_balancing_weight.value for each in g.lb_endpoints) <= MAX_WEIGHT for g in made.endpoints)
    for priority in priorities:
        weights = [group.load_balancing_weight.value for group in made.endpoints if group.priority == priority]
        assert sum(weights) <= MAX_WEIGHT


@given(services, st.booleans())
def test_v6_it_is_byte_for_byte_what_protobuf_writes(service: ServiceSnapshot, unix_sockets: bool) -> None:
    resource = made_of(service, unix_sockets)
    again = Resource(ResourceType.ASSIGNMENT, service.name, message(resource))
    assert again.framed == resource.framed
    assert again.version == resource.version


changes = st.lists(
    st.tuples(st.integers(0, 14), st.sampled_from(["weight", "health", "locality", "priority", "metadata", "gone"])),
    max_size=6,
)


@given(services, st.lists(changes, max_size=4), st.booleans())
def test_what_follows_another_is_what_it_would_be_alone(
    service: ServiceSnapshot, history: list[list[tuple[int, str]]], unix_sockets: bool
) -> None:
    encoded = encoded_endpoints(service, unix_sockets=unix_sockets)
    frames = Frames.of(service, encoded)
    for step, edits in enumerate(history, start=2):
        members = list(service.endpoints)
        for index, what in edits:
            if index < len(members):
                members[index : index + 1] = edited(members[index], what, step)
        service = replace(service, endpoints=tuple(members))
        encoded = encoded_endpoints(service, encoded, unix_sockets=unix_sockets)
        frames = Frames.of(service, encoded, previous=frames)
        assert assignment(service, encoded, frames).framed == made_of(service, unix_sockets).framed


def edited(endpoint: Endpoint, what: str, step: int) -> list[Endpoint]:
    if what == "gone":
        return []
    value = {
        "weight": step,
        "health": Health(step % 6),
        "locality": Locality("eu", f"z{step}"),
        "priority": step,
        "metadata": {"step": step},
    }[what]
    return [replace_one(endpoint, **{what: value})]


def replace_one(endpoint: Endpoint, **changed: Any) -> Endpoint:
    fields = {name: getattr(endpoint, name) for name in Endpoint.__slots__ if name != "address"}
    return Endpoint(endpoint.address, **{**fields, **changed})


@pytest.mark.parametrize("length", [0, 1, 90, 127, 128, 16_000, 70_000])
def test_lengths_of_any_size_are_framed_right(length: int) -> None:
    for endpoint in (Endpoint("10.0.0.1:80", hostname="w" * length), Endpoint("unix:/" + "p" * min(length, 100))):
        (group,) = made(endpoint).endpoints
        (one,) = group.lb_endpoints
        assert (one.endpoint.hostname or one.endpoint.address.pipe.path) in ("", "w" * length, endpoint.address[5:])


@pytest.mark.parametrize("kind", ["mapping", "list"])
def test_metadata_as_deep_as_may_be_is_read_by_clients_and_deeper_is_refused(kind: str) -> None:
    """Protobuf gives up beyond a hundred messages in one another, and Envoy with it the whole stream."""

    def nested(depth: int) -> object:
        inner: object = 1
        for _ in range(depth):
            inner = {"x": inner} if kind == "mapping" else [inner]
        return inner

    def made_with(depth: int) -> Any:  # the metadata itself is one of them
        return made(Endpoint("10.0.0.1:80", metadata={"x": nested(depth - 1)}))

    (endpoint,) = made_with(24).endpoints[0].lb_endpoints
    assert json_format.MessageToDict(endpoint.metadata)["filterMetadata"]["envoy.lb"] == {"x": nested(23)}
    for depth in (25, 5000):
        with pytest.raises(InvalidSetting, match="at most 24 in one another"):
            made_with(depth)
