"""A control plane that sends what a test says, message by message, and keeps what its client has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

__all__ = ["CDS", "EDS", "ScriptedPlane", "assignment", "cluster", "scripted_plane"]

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
TIME_LIMIT = 30.0  # seconds for what happens at once


def cluster(name: str, service_name: str = "") -> cluster_pb2.Cluster:
    """A cluster whose endpoints come by EDS."""
    shown = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS)
    shown.eds_cluster_config.service_name = service_name
    return shown


def assignment(name: str, *hosts: str, **fields: Any) -> endpoint_pb2.ClusterLoadAssignment:
    """Endpoints at port 80 in one locality; fields are those of each LbEndpoint."""
    shown = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    group = shown.endpoints.add(locality={"region": "eu"})
    for host in hosts:
        address = {"socket_address": {"address": host, "port_value": 80}}
        group.lb_endpoints.add(endpoint={"address": address}, **fields)
    return shown


class ScriptedPlane:
    """One ADS server of one variant. `request` gives the next message of the newest stream, `send` answers on it."""

    def __init__(self, delta: bool) -> None:
        self.delta = delta
        self.port = 0
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._context: Any = None
        self._nonces = 0
        self._end = asyncio.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def request(self, type_url: str | None = None) -> Any:
        received = await asyncio.wait_for(self._requests.get(), TIME_LIMIT)
        assert type_url is None or received.type_url == type_url, received
        return received

    async def quiet(self) -> bool:
        """Whether the client says nothing more."""
        await asyncio.sleep(0.1)
        return self._requests.empty()

    async def send(
        self, type_url: str, version: str, *messages: Message, removed: tuple[str, ...] = (), **more: Any
    ) -> str:
        """Sends a response and returns its nonce. In delta each resource has the version."""
        self._nonces += 1
        nonce = f"n{self._nonces}"
        response: Any
        if self.delta:
            response = discovery_pb2.DeltaDiscoveryResponse(removed_resources=removed, **more)
            for message in messages:
                name = getattr(message, "cluster_name", "") or message.name  # type: ignore[attr-defined]
                response.resources.add(name=name, version=version).resource.Pack(message)
        else:
            response = discovery_pb2.DiscoveryResponse(version_info=version, **more)
            for message in messages:
                response.resources.add().Pack(message)
        response.type_url, response.nonce = type_url, nonce
        await self._context.write(response)
        return nonce

    async def answer(self, type_url: str, version: str, *messages: Message) -> None:
        """Sends a response once it has been asked for."""
        await self.request(type_url)
        await self.send(type_url, version, *messages)

    def end(self) -> None:
        """Ends the stream, as a restart of the server does."""
        self._end.set()

    async def serve(self, _: Any, context: Any) -> None:
        self._context, self._end = context, asyncio.Event()
        while not self._requests.empty():  # those of an earlier stream
            self._requests.get_nowait()
        reading = asyncio.ensure_future(self._read(context))
        await self._end.wait()
        reading.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    async def _read(self, context: Any) -> None:
        while (received := await context.read()) is not grpc.aio.EOF:
            await self._requests.put(received)


@asynccontextmanager
async def scripted_plane(*, delta: bool) -> AsyncIterator[ScriptedPlane]:
    plane = ScriptedPlane(delta)
    prefix = "Delta" if delta else "Stream"
    request: Any = discovery_pb2.DeltaDiscoveryRequest if delta else discovery_pb2.DiscoveryRequest

    async def serve(requests: Any, context: Any) -> None:
        await plane.serve(requests, context)

    handler = grpc.stream_stream_rpc_method_handler(
        serve, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {f"{prefix}AggregatedResources": handler}),)
    )
    plane.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield plane
    finally:
        await server.stop(None)
