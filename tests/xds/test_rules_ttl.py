"""Rules T1 to T4 of what a correct xDS server does: resources that a client forgets unless it hears of them again."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.xds.resource_type import ResourceType
from tests.xds.clients import CDS, EDS, Plane, SotwClient, ports, service
from tests.xds.conftest import Only

TTL = "xds.config.supports-resource-ttl"
WRAPPER = "xds.config.supports-resource-in-sotw"
TIMED = {"user_agent_name": "proxy", "client_features": [TTL, WRAPPER]}
SERVED = [CDS, EDS]


def wrapped(response: Any) -> list[discovery_pb2.Resource]:
    """The resources of a response, each in its wrapper, as both protocols have them."""
    if isinstance(response, discovery_pb2.DeltaDiscoveryResponse):
        return list(response.resources)
    return [discovery_pb2.Resource.FromString(each.value) for each in response.resources if is_wrapped(each)]


def is_wrapped(resource: Any) -> bool:
    return bool(resource.type_url == "type.googleapis.com/envoy.service.discovery.v3.Resource")


async def answered(client: Any, resource_type: ResourceType, response: Any) -> None:
    """Accepts a response."""
    if isinstance(response, discovery_pb2.DeltaDiscoveryResponse):
        await client.accept(resource_type)
    else:
        await client.ask(resource_type, "web", version=response.version_info)


@pytest.mark.parametrize("features", [[], [TTL], [WRAPPER]])
async def test_t1_resources_are_wrapped_only_for_clients_that_know_wrapper_and_ttl(
    served: Plane, features: list[str], only: Only
) -> None:
    served.publish(service("web", 1, ttl=5))
    client = served.sotw(only(EDS), user_agent_name="envoy", client_features=features)
    await client.ask(EDS, "web")
    response = await client.receive(EDS)
    assert not any(map(is_wrapped, response.resources))
    assert len(response.resources) == 1


@pytest.mark.parametrize("features", [[], [WRAPPER]])
async def test_t1_delta_a_ttl_is_said_only_to_clients_that_know_it(
    served: Plane, features: list[str], only: Only
) -> None:
    served.publish(service("web", 1, ttl=5))
    client = served.delta(only(EDS), user_agent_name="envoy", client_features=features)
    await client.ask(EDS, "web")
    (resource,) = (await client.receive(EDS)).resources
    assert not resource.HasField("ttl")


@pytest.mark.parametrize("resource_type", SERVED, ids=lambda each: each.name)
@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_t1_a_client_that_knows_both_is_told_the_ttl(
    served: Plane, method: str, resource_type: ResourceType, only: Only
) -> None:
    served.publish(service("web", 1, ttl=2.5), service("other", 2))
    client = getattr(served, method)(only(resource_type), **TIMED)
    await client.ask(resource_type, "web", "other")
    response = await client.receive(resource_type)
    ttls = {each.name: each.ttl.ToMilliseconds() for each in wrapped(response) if each.HasField("ttl")}
    assert ttls == {"web": 2500}
    assert len(response.resources) == 2
    (web,) = (each for each in wrapped(response) if each.name == "web")
    assert web.resource.type_url == resource_type.type_url
    assert web.version


async def test_t1_envoy_is_told_of_no_ttl_that_ends_it(served: Plane) -> None:
    served.publish(service("web", 1, ttl=5))
    client = served.sotw(**TIMED | {"user_agent_name": "envoy"})
    await client.ask(EDS, "web")
    assert not wrapped(await client.receive(EDS))
    await client.ask(CDS)
    assert wrapped(await client.receive(CDS))


@pytest.mark.parametrize("resource_type", SERVED, ids=lambda each: each.name)
async def test_t2_a_heartbeat_prolongs_and_changes_nothing(served: Plane, resource_type: ResourceType) -> None:
    await heartbeats(served, served.sotw(**TIMED), resource_type)


@pytest.mark.parametrize("resource_type", SERVED, ids=lambda each: each.name)
async def test_t4_delta_has_heartbeats_too(served: Plane, resource_type: ResourceType, only: Only) -> None:
    await heartbeats(served, served.delta(only(resource_type), **TIMED), resource_type)


async def heartbeats(served: Plane, client: Any, resource_type: ResourceType) -> None:
    served.publish(service("web", 1, ttl=0.6), service("other", 2))
    await client.ask(resource_type, "web")
    first = await client.receive(resource_type)
    (sent,) = wrapped(first)
    await answered(client, resource_type, first)
    for _ in range(3):
        beat = await client.receive(resource_type)  # well before the TTL is over: it would be gone by then
        assert beat.nonce != first.nonce
        assert getattr(beat, "version_info", "") == getattr(first, "version_info", "")
        (prolonged,) = wrapped(beat)
        if resource_type is CDS and isinstance(client, SotwClient):
            assert prolonged == sent  # what such a response leaves out would be deleted
            await answered(client, resource_type, beat)
            continue
        assert (prolonged.name, prolonged.version) == ("web", sent.version)
        assert prolonged.ttl.ToMilliseconds() == 600
        assert not prolonged.HasField("resource")
        await answered(client, resource_type, beat)


async def test_t2_a_heartbeat_waits_for_the_answer_to_a_response(served: Plane, only: Only) -> None:
    served.publish(service("web", 1, ttl=0.2))
    client = served.sotw(only(EDS), **TIMED)
    await client.ask(EDS, "web")
    first = await client.receive(EDS)
    assert await client.quiet(0.4)
    await answered(client, EDS, first)
    assert not wrapped(await client.receive(EDS))[0].HasField("resource")


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_t3_what_is_sent_again_without_a_ttl_lives_for_ever(served: Plane, method: str, only: Only) -> None:
    served.publish(service("web", 1, ttl=0.4))
    client = getattr(served, method)(only(EDS), **TIMED)
    await client.ask(EDS, "web")
    await answered(client, EDS, await client.receive(EDS))
    served.publish(service("web", 1))
    while True:
        response = await client.receive(EDS)
        await answered(client, EDS, response)
        if not wrapped(response) or wrapped(response)[0].HasField("resource"):
            break
    assert not [each for each in wrapped(response) if each.HasField("ttl")]
    assert await client.quiet(0.6)
    served.publish(service("web", 2))
    assert len((await client.receive(EDS)).resources) == 1


async def test_t2_a_change_between_heartbeats_is_sent_as_ever(served: Plane, only: Only) -> None:
    served.publish(service("web", 1, ttl=30))
    client = served.sotw(only(EDS), **TIMED)
    await client.ask(EDS, "web")
    await answered(client, EDS, await client.receive(EDS))
    served.publish(service("web", 7, ttl=30))
    (changed,) = wrapped(await client.receive(EDS))
    assert ports(endpoint_pb2.ClusterLoadAssignment.FromString(changed.resource.value)) == [7]
