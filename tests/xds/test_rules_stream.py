"""Rules A1 to A9 of what a correct xDS server does, as a client sees it: the stream and the session."""

from __future__ import annotations

import asyncio
import gc

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint
from lbcore.routing import Listener, Route
from lbcore.xds.observer import XdsObserver
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.session import Session
from lbcore.xds.stream import Stream
from lbcore.xds.subscription import Subscription
from lbcore.xds.write import Write
from tests.xds.clients import CDS, EDS, LDS, RDS, Plane, eventually, plane, ports, resources, service
from tests.xds.conftest import Only


async def test_a1_an_aggregated_request_without_a_type_ends_the_stream(served: Plane) -> None:
    client = served.sotw()
    await client.send_bytes(discovery_pb2.DiscoveryRequest(resource_names=["web"]).SerializeToString())
    code, details = await client.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "type_url" in details


async def test_a1_delta_an_aggregated_request_without_a_type_ends_the_stream(served: Plane) -> None:
    client = served.delta()
    await client.send_bytes(discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=["web"]).SerializeToString())
    assert (await client.status())[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("resource_type", [CDS, EDS, RDS, LDS], ids=lambda each: each.name)
async def test_a2_a_service_of_one_type_implies_it(served: Plane, resource_type: ResourceType) -> None:
    served.publish(service("web", 1))
    client = served.sotw(resource_type)
    await client.send_bytes(discovery_pb2.DiscoveryRequest(resource_names=["web"]).SerializeToString())
    response = await client.receive()
    assert response.type_url == resource_type.type_url
    assert list(resources(response)) == ["web"]


async def test_a2_a_service_of_one_type_has_no_other(served: Plane) -> None:
    client = served.sotw(EDS)
    await client.ask(CDS, "web")
    code, details = await client.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "type_url" in details


async def test_a3_the_first_node_holds_for_the_whole_stream(served: Plane) -> None:
    served.publish(service("web", 1), listeners=[Listener(name="in", address="127.0.0.1:1", routes=())])
    client = served.sotw(user_agent_name="envoy")
    await client.ask(CDS)
    await client.settle(CDS)
    as_grpc = discovery_pb2.DiscoveryRequest(type_url=LDS.type_url, node={"id": "other", "user_agent_name": "gRPC Go"})
    await client.send_bytes(as_grpc.SerializeToString())
    assert list(await client.settle(LDS)) == ["in"]


async def test_a4_nonces_are_unique_on_a_stream(served: Plane) -> None:
    served.publish(service("web", 1))
    client = served.sotw()
    await client.ask(CDS)
    await client.settle(CDS)
    nonces = [client.nonces[CDS]]
    await client.ask(EDS, "web")
    for port in range(2, 6):
        await client.settle(EDS, "web")
        nonces.append(client.nonces[EDS])
        served.publish(service("web", port))
    assert all(nonces)
    assert len(set(nonces)) == 5


async def test_a4_a_nonce_and_a_version_of_another_stream_are_no_obstacle(served: Plane, only: Only) -> None:
    served.publish(service("web", 1))
    before = served.sotw(only(EDS))
    await before.ask(EDS, "web")
    await before.settle(EDS, "web")
    after = served.sotw(only(EDS))
    await after.ask(EDS, "web", nonce=before.nonces[EDS], version=before.versions[EDS])
    assert list(await after.settle(EDS, "web")) == ["web"]


async def test_a5_a_refused_assignment_leaves_the_other_types_alone(served: Plane) -> None:
    served.publish(service("web", 1))
    client = served.sotw()
    await client.ask(CDS)
    await client.settle(CDS)
    clusters = client.nonces[CDS], client.versions[CDS]
    await client.ask(EDS, "web")
    await client.receive(EDS)
    await client.refuse(EDS, "web")
    assert await client.quiet()
    assert (client.nonces[CDS], client.versions[CDS]) == clusters
    served.change(service("api", 2))
    assert list(await client.settle(CDS)) == ["web", "api"]


async def test_a6_a_type_that_is_not_served_is_passed_over(served: Plane) -> None:
    served.publish(service("web", 1))
    client = served.sotw()
    secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    await client.send_bytes(discovery_pb2.DiscoveryRequest(type_url=secret, resource_names=["key"]).SerializeToString())
    await client.ask(EDS, "web")
    assert list(await client.settle(EDS, "web")) == ["web"]
    assert await client.quiet()


@pytest.mark.parametrize("end", ["cancel", "half-close"])
async def test_a7_a_client_that_goes_away_leaves_nothing_behind(served: Plane, end: str, only: Only) -> None:
    served.publish(service("web", 1))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "web")
    await client.receive(EDS)
    assert served.xds.stream_count == 1
    if end == "cancel":
        client.cancel()
    else:
        await client.half_close()
    await eventually(lambda: served.xds.stream_count == 0)
    served.publish(service("web", 2))  # nobody is there to be told


async def test_a7_opened_streams_are_all_reported_closed() -> None:
    class Count(XdsObserver):
        opened = closed = 0

        def stream_opened(self, method: str) -> None:
            assert method == "DeltaAggregatedResources"
            self.opened += 1

        def stream_closed(self, method: str) -> None:
            assert method == "DeltaAggregatedResources"
            self.closed += 1

    count = Count()
    async with plane(observer=count) as running:
        running.publish(service("web", 1))
        for _ in range(1000):
            client = running.delta()
            await client.ask(EDS, "web")
            await client.receive(EDS)
            client.cancel()
        await eventually(lambda: running.xds.stream_count == 0)
        assert (count.opened, count.closed) == (1000, 1000)
        del client
        await eventually(lambda: gc.collect() < 0 or not left_behind())


def left_behind() -> list[object]:
    """What the server made for streams and nobody has let go."""
    return [each for each in gc.get_objects() if isinstance(each, Stream | Session | Subscription)]


def large(name: str) -> ServiceSnapshot:
    """A service whose assignment is far above what the transport takes in before a client reads."""
    padding = {"padding": "x" * 1000}
    return service(name, endpoints=tuple(Endpoint(f"10.0.{n >> 8}.{n & 255}:1", metadata=padding) for n in range(2000)))


async def test_a7_a_client_that_leaves_inside_of_a_response_leaves_nothing_behind(served: Plane, only: Only) -> None:
    served.publish(large("web"))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "web")
    await write_begun(served)
    await client.half_close()
    await eventually(lambda: served.xds.stream_count == 0)
    await eventually(lambda: not writes())


async def test_a7_a_write_that_is_over_when_its_client_leaves_is_not_gone_on_with() -> None:
    loop = asyncio.get_running_loop()
    taken = loop.create_future()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))

    async def writing() -> None:
        await taken

    write = Write(writing(), failures.append)
    write.proceed()
    taken.set_result(None)  # gRPC has taken the message, of which the write hears in the next turn
    write.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert failures == []


async def write_begun(served: Plane) -> None:
    """Returns while a response is on its way. Its end is an event of its own, so every turn of the loop has to look."""
    while not any(stream._write for stream in served.xds._streams):  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(0)


def writes() -> list[Write]:
    """What waits for gRPC to take a response."""
    return [each for each in gc.get_objects() if isinstance(each, Write)]


@pytest.mark.parametrize("resource_type", [CDS, EDS], ids=lambda each: each.name)
async def test_a8_draining_ends_an_idle_stream_with_unavailable(
    served: Plane, resource_type: ResourceType, only: Only
) -> None:
    served.publish(service("web", 1))
    client = served.sotw(only(resource_type))
    await client.ask(resource_type, "web")
    await client.settle(resource_type, "web")
    served.xds.drain()
    code, details = await client.status()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "draining" in details
    await eventually(lambda: served.xds.stream_count == 0)


async def test_a8_draining_lets_a_response_under_way_arrive_whole(served: Plane, only: Only) -> None:
    served.publish(large("web"))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "web")
    await write_begun(served)
    served.xds.drain()
    assert len(ports(resources(await client.receive(EDS))["web"])) == 2000
    assert (await client.status())[0] is grpc.StatusCode.UNAVAILABLE


async def test_a9_only_the_newest_of_two_requests_is_answered_in_the_end(served: Plane, only: Only) -> None:
    served.publish(service("a", 1), service("b", 2))
    client = served.sotw(only(EDS))
    await client.ask(EDS, "a", nonce="")
    await client.ask(EDS, "a", "b", nonce="")
    known: dict[str, list[int]] = {}
    while known.keys() != {"a", "b"}:
        known |= {name: ports(each) for name, each in resources(await client.receive(EDS)).items()}
    assert known == {"a": [1], "b": [2]}


async def test_routes_of_a_listener_and_of_a_service_do_not_mix(served: Plane, only: Only) -> None:
    listener = Listener(name="web", address="127.0.0.1:1", routes=(Route(prefix="/x", service="api"),))
    served.publish(service("web", 1), listeners=[listener])
    for agent, cluster in (("envoy", "api"), ("gRPC Java", "web"), ("", "web")):
        client = served.sotw(only(RDS), user_agent_name=agent)
        await client.ask(RDS, "web")
        routes = (await client.settle(RDS, "web"))["web"]
        assert routes.virtual_hosts[0].routes[0].route.cluster == cluster
