"""Envoy and gRPC never get each other's listeners and clusters, whatever they call themselves and however they ask."""

from __future__ import annotations

import pytest

from lbcore.routing import Listener
from lbcore.xds.client_kind import ClientKind
from lbcore.xds.resource_type import ResourceType
from tests.xds.clients import CDS, EDS, LDS, RDS, Plane, service

ENVOY, GRPC, EITHER = ClientKind


@pytest.mark.parametrize(
    ("agent", "resource_type", "wildcard", "expected"),
    [
        ("envoy", LDS, True, ENVOY),
        ("envoy", CDS, False, ENVOY),
        ("gRPC C-core linux Python", LDS, False, GRPC),
        ("gRPC Go", CDS, True, GRPC),
        ("grpc-node", EDS, False, GRPC),
        ("", LDS, True, ENVOY),
        ("", LDS, False, GRPC),
        ("something else", CDS, True, ENVOY),
        ("something else", CDS, False, GRPC),
        ("", EDS, False, EITHER),
        ("", RDS, False, EITHER),
    ],
)
def test_a_client_is_what_it_says_or_else_how_it_asks(
    agent: str, resource_type: ResourceType, wildcard: bool, expected: ClientKind
) -> None:
    assert ClientKind.of(agent, resource_type, wildcard) is expected


async def test_a_listener_and_a_service_of_one_name_are_told_apart(served: Plane) -> None:
    served.publish(service("web", 1), listeners=[Listener(name="web", address="127.0.0.1:1", routes=())])
    by_wildcard, by_name = served.sotw(), served.sotw()
    await by_wildcard.ask(LDS)
    assert (await by_wildcard.settle(LDS))["web"].HasField("address")
    await by_name.ask(LDS, "web")
    assert (await by_name.settle(LDS, "web"))["web"].HasField("api_listener")


async def test_a_client_stays_what_its_first_request_made_it(served: Plane) -> None:
    served.publish(service("web", 1), listeners=[Listener(name="web", address="127.0.0.1:1", routes=())])
    client = served.sotw()
    await client.ask(LDS)
    await client.settle(LDS)
    await client.ask(LDS, "web", "api")
    assert (await client.settle(LDS, "web", "api"))["web"].HasField("address")
