"""Rules R1, R2, R4, R5 and R7 of what a correct xDS server does: nobody harms anybody else."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.directory import ServiceSnapshot
from lbcore.model import Endpoint
from lbcore.xds.assignments import assignment
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.wire import Resource
from tests.xds.clients import ADS, CDS, EDS, LDS, TIME_LIMIT, Plane, eventually, plane, ports, resources, service
from tests.xds.conftest import Only


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_r1_nothing_is_answered_before_the_sources_are_in_sync(method: str) -> None:
    async with plane(synced=False) as running:
        client = getattr(running, method)()
        await client.ask(CDS)
        await client.ask(EDS, "web")
        assert await client.quiet()
        running.publish(service("web", 1))
        assert resources(await client.receive(CDS)).keys() == {"web"}
        assert resources(await client.receive(EDS)).keys() == {"web"}


async def test_r1_a_fetch_before_the_sources_are_in_sync_is_unavailable() -> None:
    async with plane(synced=False) as running:
        fetch = running.channel.unary_unary("/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await fetch(discovery_pb2.DiscoveryRequest().SerializeToString())
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_fetch_is_answered_with_what_there_is(served: Plane) -> None:
    served.publish(service("web", 1), service("api", 2))
    fetch = served.channel.unary_unary("/envoy.service.endpoint.v3.EndpointDiscoveryService/FetchEndpoints")
    request = discovery_pb2.DiscoveryRequest(resource_names=["web"])
    answer = await fetch(request.SerializeToString())
    assert resources(discovery_pb2.DiscoveryResponse.FromString(answer)).keys() == {"web"}


async def test_a_fetch_of_what_does_not_exist_is_not_found(served: Plane) -> None:
    served.publish()
    fetch = served.channel.unary_unary("/envoy.service.endpoint.v3.EndpointDiscoveryService/FetchEndpoints")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await fetch(discovery_pb2.DiscoveryRequest(resource_names=["web"]).SerializeToString())
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_r2_a_source_that_fails_changes_nothing_for_anybody(served: Plane, method: str, only: Only) -> None:
    served.publish(service("web", 1))
    client = getattr(served, method)(only(CDS))
    await client.ask(CDS)
    await client.settle(CDS)
    served.directory.mark_stale("test", "the file cannot be read")
    assert await client.quiet()
    newcomer = getattr(served, method)(only(CDS))
    await newcomer.ask(CDS)
    assert resources(await newcomer.receive(CDS)).keys() == {"web"}


async def test_r4_five_hundred_clients_at_once_are_all_served(served: Plane, only: Only) -> None:
    served.publish(service("web", 1))
    clients = [served.sotw(only(EDS)) for _ in range(500)]

    async def follow(client: object) -> list[int]:
        await client.ask(EDS, "web")  # type: ignore[attr-defined]
        return ports((await client.settle(EDS, "web"))["web"])  # type: ignore[attr-defined]

    assert await asyncio.wait_for(asyncio.gather(*map(follow, clients)), TIME_LIMIT) == [[1]] * 500
    served.publish(service("web", 2))
    news = await asyncio.wait_for(asyncio.gather(*(client.receive(EDS) for client in clients)), TIME_LIMIT)
    assert all(ports(resources(each)["web"]) == [2] for each in news)


async def test_r5_a_client_that_never_reads_holds_up_nobody(served: Plane) -> None:
    def large(port: int) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(f"10.0.{n >> 8}.{n & 255}:{port}", metadata={"padding": "x" * 500}) for n in range(4000))

    served.publish(service("web", endpoints=large(1)))
    stuck = served.channel.stream_stream(f"{ADS}DeltaAggregatedResources")()
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=EDS.type_url, resource_names_subscribe=["web"])
    for _ in range(20):
        await stuck.write(request.SerializeToString())  # each is owed 2 MB, far above what the transport buffers
    reader = served.sotw()
    await reader.ask(EDS, "small")
    for port in range(1, 20):
        served.publish(service("web", endpoints=large(port)), service("small", port))
        assert ports((await asyncio.wait_for(reader.settle(EDS, "small"), TIME_LIMIT))["small"]) == [port]
    stuck.cancel()


@pytest.mark.parametrize("method", ["StreamAggregatedResources", "DeltaAggregatedResources"])
@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"\x0a\x05ab", random.Random(1).randbytes(1000)])
async def test_r7_bytes_that_are_no_request_end_that_stream_only(served: Plane, method: str, garbage: bytes) -> None:
    served.publish(service("web", 1))
    bystander = served.sotw()
    await bystander.ask(EDS, "web")
    await bystander.settle(EDS, "web")
    call = served.channel.stream_stream(f"{ADS}{method}")()
    await call.write(garbage)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "DiscoveryRequest" in (await call.details() or "")
    await eventually(lambda: served.xds.stream_count == 1)
    served.publish(service("web", 2))
    assert ports((await bystander.settle(EDS, "web"))["web"]) == [2]


async def test_r7_a_hundred_thousand_names_and_a_large_node_are_served(served: Plane, only: Only) -> None:
    served.publish(service("web", 1))
    client = served.sotw(only(EDS), metadata={"padding": "x" * 1_000_000})
    await client.ask(EDS, *(f"name-{number}" for number in range(100_000)), "web")
    assert (await client.receive(EDS)).resources
    served.publish(service("web", 2))
    await client.ask(EDS, "web")
    assert ports((await client.settle(EDS, "web"))["web"]) == [2]


async def test_r7_a_failure_inside_ends_that_stream_and_says_so(
    served: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, only: Only
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("broken on purpose")

    served.publish(service("web", 1))
    monkeypatch.setattr("lbcore.xds.resource_set.sotw_body", fail)
    client = served.sotw(only(EDS))
    await client.ask(EDS, "web")
    code, _ = await client.status()
    assert code is grpc.StatusCode.INTERNAL
    assert "broken on purpose" in caplog.text


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_r7_a_failure_inside_when_time_has_passed_ends_that_stream(
    served: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str, only: Only
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("lbcore.xds.session.Session.wake", fail)
    served.publish(service("web", 1, ttl=0.2))
    features = ["xds.config.supports-resource-ttl", "xds.config.supports-resource-in-sotw"]
    client = getattr(served, method)(only(EDS), user_agent_name="proxy", client_features=features)
    await client.ask(EDS, "web")
    response = await client.receive(EDS)
    if method == "sotw":
        await client.ask(EDS, "web", version=response.version_info)
    else:
        await client.accept(EDS)
    code, _ = await client.status()
    assert code is grpc.StatusCode.INTERNAL
    assert "broken on purpose" in caplog.text


async def test_r7_a_failure_inside_at_a_change_ends_only_the_streams_it_concerns(
    served: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, only: Only
) -> None:
    encode = assignment

    def fail_for_web(service: ServiceSnapshot, *args: Any) -> Resource:
        if service.name == "web":
            raise RuntimeError("broken on purpose")
        return encode(service, *args)

    served.publish(service("web", 1), service("api", 1))
    of_web, of_api = served.sotw(only(EDS)), served.sotw(only(EDS))
    await of_web.ask(EDS, "web")
    await of_web.settle(EDS, "web")
    await of_api.ask(EDS, "api")
    await of_api.settle(EDS, "api")
    monkeypatch.setattr("lbcore.xds.resources.assignment", fail_for_web)
    served.publish(service("web", 2), service("api", 2))
    assert ports((await of_api.settle(EDS, "api"))["api"]) == [2]
    assert (await of_web.status())[0] is grpc.StatusCode.INTERNAL
    assert "broken on purpose" in caplog.text
    served.change(service("api", 3))
    assert ports((await of_api.settle(EDS, "api"))["api"]) == [3]


@pytest.mark.parametrize("resource_type", [CDS, LDS], ids=lambda each: each.name)
async def test_a_missing_name_is_answered_at_once_with_an_error(
    served: Plane, resource_type: ResourceType, only: Only
) -> None:
    served.publish()
    client = served.sotw(only(resource_type), user_agent_name="gRPC C-core")
    await client.ask(resource_type, "nowhere")
    response = await client.receive(resource_type)
    assert not response.resources
    (error,) = response.resource_errors
    assert error.resource_name.name == "nowhere"
    assert error.error_detail.code == grpc.StatusCode.NOT_FOUND.value[0]
