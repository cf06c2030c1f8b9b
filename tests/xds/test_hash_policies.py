"""What a route hashes, as messages: all kinds for Envoy and gRPC alike, from the route or else from its service."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from lbcore.directory import DirectorySnapshot, ServiceSnapshot
from lbcore.request_hash import Cookie, FilterState, HashPolicy, Header, QueryParameter, RegexRewrite, SourceIp
from lbcore.routing import Listener, Route
from lbcore.xds.client_kind import ClientKind
from lbcore.xds.hash_policies import hash_policies
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog


def as_json(policy: HashPolicy | None) -> list[Any]:
    return [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in hash_policies(policy)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, []),
        (HashPolicy([]), []),
        (HashPolicy(Header("X-User")), [{"header": {"header_name": "x-user"}}]),
        (
            HashPolicy(Header("x-user", regex_rewrite=RegexRewrite(r"(\d+)", r"\1"))),
            [
                {
                    "header": {
                        "header_name": "x-user",
                        "regex_rewrite": {"pattern": {"google_re2": {}, "regex": r"(\d+)"}, "substitution": r"\1"},
                    }
                }
            ],
        ),
        (HashPolicy(Cookie("session")), [{"cookie": {"name": "session"}}]),
        (HashPolicy(Cookie("session", ttl=0)), [{"cookie": {"name": "session", "ttl": "0s"}}]),
        (
            HashPolicy(Cookie("session", ttl=60, path="/a", attributes={"SameSite": "Lax", "Secure": ""})),
            [
                {
                    "cookie": {
                        "name": "session",
                        "ttl": "60s",
                        "path": "/a",
                        "attributes": [{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}],
                    }
                }
            ],
        ),
        (HashPolicy(QueryParameter("q")), [{"query_parameter": {"name": "q"}}]),
        (
            HashPolicy([FilterState("tenant", terminal=True), SourceIp()]),
            [{"filter_state": {"key": "tenant"}, "terminal": True}, {"connection_properties": {"source_ip": True}}],
        ),
    ],
    ids=str,
)
def test_every_method_is_sent_with_all_of_its_settings(policy: HashPolicy | None, expected: list[Any]) -> None:
    assert as_json(policy) == expected


USER = HashPolicy(Header("x-user"))
TENANT = HashPolicy(Header("x-tenant"))


def listener(*hash_on: HashPolicy | None) -> Listener:
    routes = tuple(Route(prefix=f"/{i}", service="web", hash_on=each) for i, each in enumerate(hash_on))
    return Listener(name="in", address="127.0.0.1:80", routes=routes)


def routes_of(catalog: Catalog, kind: ClientKind, name: str) -> Any:
    return catalog.resources(ResourceType.ROUTE, kind).get(name)


def world(hash_on: HashPolicy | None, *of_routes: HashPolicy | None) -> DirectorySnapshot:
    service = ServiceSnapshot(name="web", hash_on=hash_on)
    return DirectorySnapshot(services={"web": service}, listeners=(listener(*of_routes),))


def test_a_route_that_does_not_say_what_it_hashes_hashes_what_its_service_says() -> None:
    said = Catalog(world(None, USER, TENANT, None))
    by_default = Catalog(world(TENANT, USER, None, HashPolicy([])))
    assert routes_of(said, ClientKind.ENVOY, "in").framed == routes_of(by_default, ClientKind.ENVOY, "in").framed


def test_routes_change_with_what_their_service_says_and_listeners_do_not() -> None:
    first = Catalog(world(None, None))
    before = routes_of(first, ClientKind.ENVOY, "in"), routes_of(first, ClientKind.GRPC, "web")
    listeners = first.resources(ResourceType.LISTENER, ClientKind.ENVOY)
    kept = listeners.get("in")
    second = Catalog(world(USER, None), first)
    assert routes_of(second, ClientKind.ENVOY, "in").version != before[0].version
    assert routes_of(second, ClientKind.GRPC, "web").version != before[1].version
    assert second.resources(ResourceType.LISTENER, ClientKind.ENVOY).get("in") is kept
